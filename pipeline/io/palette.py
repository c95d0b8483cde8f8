"""Colour tables: rasters of one band whose values are indexes into a table of colours, as photographs in GIF."""

from dataclasses import dataclass

import numpy as np
from rasterio.io import DatasetReader

COLORS = ("red", "green", "blue")
TOLD = (
    "band 1 holds indexes into a colour table: its colours are the bands red, green and blue, which are taken where "
    "these are asked for by name; by number it gives the indexes"
)


@dataclass(frozen=True, slots=True)
class Palette:
    """A colour table: for each value of the indexes' type one byte.

    `colors` holds red, green and blue; `seen` is 0 where an index is transparent, nodata or not in the table.
    """

    colors: tuple[bytes, bytes, bytes]
    seen: bytes


def read_palette(dataset: DatasetReader) -> Palette | None:
    """Return the colour table of a raster of one band of 8 or 16 bits; None where there is none."""
    if dataset.count != 1 or dataset.dtypes[0] not in ("uint8", "uint16"):
        return None
    try:
        entries = dataset.colormap(1)
    except ValueError:  # there is none
        return None
    table = np.zeros((4, 2 ** (8 * np.dtype(dataset.dtypes[0]).itemsize)), np.uint8)
    for index, color in entries.items():
        table[:, index] = color
    if not table[3].any():  # written without a thought of alpha
        table[3, list(entries)] = 255
    nodata = dataset.nodata
    if nodata is not None and float(nodata).is_integer() and 0 <= nodata < table.shape[1]:
        table[3, int(nodata)] = 0
    red, green, blue, seen = (row.tobytes() for row in table)
    return Palette((red, green, blue), seen)
