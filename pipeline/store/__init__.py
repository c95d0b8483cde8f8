"""The Zarr store of a result: arrays, done markers, metadata, overviews, COG export."""
