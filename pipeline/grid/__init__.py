"""Where pixels lie: grids, windows, blocks and tiles, and the area of a pixel. Opens nothing."""
