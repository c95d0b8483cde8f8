"""Clusters that a run starts and ends, each kind through the library that is kept for it."""
