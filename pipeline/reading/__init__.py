"""Scenes opened, and read by window: rasters, Zarr, arrays. Knows no networks and no results."""
