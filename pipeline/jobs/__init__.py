"""Block jobs: run on Dask into a store or a GeoTIFF, resumably, with progress."""
