"""Palettes of label rasters: whether their indices say the class, or the colours that these stand for.

Masks that are drawn with the classes' own colours are often saved with a palette of the colours that occur, in the
order in which they occurred: another one in each file.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.errors import TrainingError
from pipeline.io.gdal import open_raster, run_with_env

from ..config.schema import IGNORE
from .classes import ClassTable, pack

if TYPE_CHECKING:
    from rasterio import DatasetReader

Palette = Mapping[int, int]
"""Colour code of each index."""


def read_palette(path: str) -> Palette:
    """Return the palette of a raster; empty where it has none."""

    def colors(dataset: "DatasetReader") -> dict[int, tuple[int, ...]]:
        try:
            return dict(dataset.colormap(1))
        except ValueError:  # it has none
            return {}

    found = run_with_env(path, lambda: colors(open_raster(path)))
    if not found:
        return {}
    rgb = np.array([color[:3] for color in found.values()], np.uint8).T
    return dict(zip(found, pack(rgb).tolist(), strict=True))


def grey_palette(path: str) -> Palette:
    """Return what each value of a grey raster of few bits shows: 0 is black, the highest is white. Else empty."""

    def bits(dataset: "DatasetReader") -> int:
        return int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))

    most = 2 ** run_with_env(path, lambda: bits(open_raster(path))) - 1
    return {grey: 255 * grey // most * 0x010101 for grey in range(most + 1)} if most < 255 else {}


def as_table(palette: Palette, size: int = 256) -> tuple[int, ...]:
    """Return the colour code of every index up to `size`; black for those that the palette has not."""
    return tuple(palette.get(index, 0) for index in range(max([size, *(index + 1 for index in palette)])))


def read_by_color(path: str, palette: Palette, table: ClassTable) -> tuple[ClassTable, str]:
    """Return what the indices of a palette mean, and what is to be said of it.

    Parameters
    ----------
    path
        Of the raster, for messages.
    palette
        Its colours.
    table
        What values mean, where masks are not said to be coded with colours.

    Returns
    -------
    ClassTable, str
        The table as it is, where the palette has nothing to do with the classes' colours, or indices and colours say
        the same; a table of the palette's indices by their colours, where all of these are classes'.

    Raises
    ------
    TrainingError
        By its colour an index is another class than by its value, and other colours are no class's, or the values have
        been named.
    """
    if not table.colors or len(set(table.colors)) < len(table.colors):
        return table, ""
    by_value, places = dict(table.codes), {color: place for place, color in enumerate(table.colors)}
    own = {index: color for index, color in _own_entries(palette).items() if by_value.get(index) != IGNORE}
    matched = {index: places[color] for index, color in own.items() if color in places}
    if _is_ramp(palette) or not matched:
        return table, "its palette has none of the classes' colours, and is read by value"
    if all(by_value.get(index) == place for index, place in matched.items()):
        return table, "" if len(matched) == len(own) else "its palette has other colours too, and is read by value"
    if len(matched) == len(own) and not table.explicit:
        ignored = [(code, IGNORE) for code in table.ignored]
        every = {index: places[color] for index, color in palette.items() if color in places} | dict(ignored)
        meant = replace(table, codes=tuple(sorted(every.items())), explicit=frozenset(matched))
        return meant, "its palette has the classes' colours in another order, and is read by colour"
    wrong = next((i for i, place in matched.items() if by_value.get(i, place) != place), None)
    if wrong is None:  # values that mean nothing are refused wherever they occur
        return table, "its palette has other colours too, and is read by value"
    mine, theirs = table.names[by_value[wrong]], table.names[matched[wrong]]
    raise TrainingError(
        f"{path}: by its palette, value {wrong} has the colour {palette[wrong]:06X} of {theirs!r}; by the classes, "
        f"{wrong} is {mine!r}.\nSay colors = true to read masks by colour, colors = false to read them by value"
    )


def _own_entries(palette: Palette) -> Palette:
    """Leave out what fills a palette up to its size: one colour, over and over, at its end; it may be meant once."""
    items = sorted(palette.items())
    end = len(items)
    while end > 1 and items[end - 1][1] == items[end - 2][1]:
        end -= 1
    twice = end < len(items) and items[end - 1][1] in dict(items[: end - 1]).values()
    return dict(items[: end - 1] if twice else items[:end])


def _is_ramp(palette: Palette) -> bool:
    """Whether a palette only says that higher values are brighter, as GDAL's and PIL's own do."""
    last = max(palette)
    return last > 1 and all(color == 255 * index // last * 0x010101 for index, color in palette.items())
