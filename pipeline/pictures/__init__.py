"""Scenes and maps small, coloured, laid over each other."""
