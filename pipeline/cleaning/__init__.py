"""Maps cleaned: decisions, morphology, small objects and holes; block by block, as on the whole raster."""
