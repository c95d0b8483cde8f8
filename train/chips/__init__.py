"""Chips out of samples, varied, read ahead."""
