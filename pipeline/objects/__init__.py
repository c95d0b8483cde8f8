"""Objects numbered over a whole mosaic, and measured."""
