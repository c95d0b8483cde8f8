"""Polygons: objects traced, simplified, regularized, and written as GeoParquet, GeoPackage and other formats."""
