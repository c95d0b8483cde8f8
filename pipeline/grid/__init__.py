"""Pixel grids: CRS and transform, windows, tiling, pixel areas, encodings of class maps."""
