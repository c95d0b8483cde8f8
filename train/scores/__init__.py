"""Counts and scores. Numbers only: no files, no networks, no dask."""
