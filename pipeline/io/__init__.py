"""Reading scenes: GeoTIFF and other rasters, Zarr, xarray, STAC Items."""
