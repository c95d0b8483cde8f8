"""Objects as polygons: outlines traced by block, joined, simplified, squared, written."""
