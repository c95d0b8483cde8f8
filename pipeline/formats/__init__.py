"""Tables and polygons in files that others read: GeoParquet, GeoPackage, FlatGeobuf, GeoJSON, CSV."""
