"""Statistics as a table with named columns, and as text: numbers, areas, shares. No files, no dask."""

import math
import re
from collections.abc import Callable, Sequence
from itertools import chain, count
from typing import Any

import numpy as np

from models.metadata import ClassInfo

from ..grid.geobox import GeoBox
from .cells import Cells
from .object_stats import ObjectStats, ratio
from .sums import Floats, Totals

KM2 = 1e6  # m²
MINUS = "\N{MINUS SIGN}"
NARROW = "\N{NARROW NO-BREAK SPACE}"
OURS = ("area_m2", "nodata_m2", "nodata_pixels", "geometry")
SIZES = ("size_p10_m2", "size_median_m2", "size_p90_m2")  # as `object_stats.QUANTILES` has them
BOUNDS = ("xmin", "ymin", "xmax", "ymax")


def class_columns(classes: Sequence[ClassInfo]) -> list[str]:
    """Return what the columns of each class begin with: its name in letters, digits and underscores, each only once.

    `area` and `nodata` are taken, and a name that would come twice has its class's value added.
    """
    made: list[str] = []
    for value, info in enumerate(classes):
        name = re.sub(r"\W+", "_", info.name).strip("_") or "class"
        taken = {"area", "nodata", *(other.casefold() for other in made)}
        made.append(f"{name}_{value}" if name.casefold() in taken else name)
    return made


def area_columns(totals: Totals, names: Sequence[str], *, whole: bool) -> dict[str, Any]:
    """Return the columns of areas and shares.

    Parameters
    ----------
    totals
        Of `len(names)` classes, and nodata last.
    names
        What the columns of each class begin with.
    whole
        Whether pixels are counted whole, so that their numbers are integers.

    Returns
    -------
    dict
        One array `(groups,)` per column. Shares are of the observed area; without areas, of the observed pixels; NaN
        where nothing is observed.
    """
    pixels, areas = totals.pixels, totals.areas
    counted = pixels.round().astype(np.int64) if whole else pixels
    basis = pixels if np.isnan(areas).all() else areas
    columns: dict[str, Any] = {
        "area_m2": areas[:, :-1].sum(axis=1),
        "nodata_m2": areas[:, -1],
        "nodata_pixels": counted[:, -1],
    }
    shares = ratio(basis[:, :-1], basis[:, :-1].sum(axis=1, keepdims=True))
    for place, name in enumerate(names):
        columns |= {
            f"{name}_m2": areas[:, place],
            f"{name}_share": shares[:, place],
            f"{name}_pixels": counted[:, place],
        }
    return columns


def object_columns(
    objects: ObjectStats, area: Floats, names: Sequence[str], foreground: Sequence[int]
) -> dict[str, Any]:
    """Return the columns of objects.

    Parameters
    ----------
    objects
        By class value.
    area
        The observed one in m² `(groups,)`.
    names
        What the columns of each class begin with, by value.
    foreground
        Values of the classes that have objects.
    """
    columns: dict[str, Any] = {}
    for place in foreground:
        name, count = names[place], objects.count[:, place]
        columns |= {
            f"{name}_count": count.astype(np.int64),
            f"{name}_per_km2": ratio(count, area / KM2),
            f"{name}_size_mean_m2": objects.mean[:, place],
            **{f"{name}_{what}": values for what, values in zip(SIZES, objects.quantiles[:, :, place], strict=True)},
            f"{name}_size_min_m2": objects.smallest[:, place],
            f"{name}_size_max_m2": objects.largest[:, place],
            f"{name}_width_mean_m": objects.width[:, place],
        }
    return columns


def cells_frame(cells: Cells, geobox: GeoBox, down: range | None = None, across: range | None = None) -> Any:
    """Return cells as a GeoDataFrame: `row` and `column` in the grid of cells, and their outlines.

    Where the scene has no transform, outlines are in pixels, rows downwards. `down`, `across`: of these rows and
    columns of cells; None: of all.
    """
    import geopandas
    import shapely

    down, across = down or range(cells.rows), across or range(cells.columns)
    row, column = np.repeat(np.array(down), len(across)), np.tile(np.array(across), len(down))
    tops, bottoms = (np.minimum(number * cells.down, cells.height) for number in (row, row + 1))
    lefts, rights = (np.minimum(number * cells.across, cells.width) for number in (column, column + 1))
    boxes = shapely.box(lefts, tops, rights, bottoms)
    outlines = shapely.transform(boxes, lambda points: np.column_stack(geobox.to_map(points[:, 0], points[:, 1])))
    outlines = shapely.orient_polygons(outlines)  # a map upside down turns them round
    return geopandas.GeoDataFrame({"row": row, "column": column}, geometry=outlines, crs=geobox.crs)


def joined(frame: Any, columns: dict[str, Any]) -> Any:
    """Put statistics beside what rows had; names that are ours already get `_zone` added. The geometry comes last."""
    import geopandas
    import pandas

    taken = {name.casefold() for name in (*OURS, *BOUNDS, *columns)}
    renamed: dict[Any, str] = {}
    for name in frame.columns.drop("geometry"):
        choices = chain([f"{name}", f"{name}_zone"], (f"{name}_zone{number}" for number in count(2)))
        renamed[name] = next(choice for choice in choices if choice.casefold() not in taken)
        taken.add(renamed[name].casefold())
    kept = pandas.DataFrame(frame.drop(columns="geometry")).rename(columns=renamed)
    made = pandas.concat([kept, pandas.DataFrame(columns, index=frame.index)], axis=1)
    return geopandas.GeoDataFrame(made, geometry=frame.geometry)


def describe_statistics(frame: Any) -> str:
    """Describe what `compute_statistics` gave as a short table for a terminal, with its notes below.

    Several rows are added up; zones that overlap then count in each. What cannot be added, as medians, is left out.
    """
    classes, area = frame.attrs["classes"], _total(frame["area_m2"])
    if np.isfinite(area):
        observed = f"{_shown(area)} observed, {_shown(_total(frame['nodata_m2']))} nodata"
    else:
        pixels = sum(frame[f"{one['column']}_pixels"].sum() for one in classes)
        observed = f"{pixels:,.0f} pixels observed, {frame['nodata_pixels'].sum():,.0f} nodata; no CRS, so no areas"
    objects = any(f"{one['column']}_count" in frame for one in classes)
    heads = ["class", "pixels", "area", "share"]
    heads += ["objects", "per km²", "mean size", "median size", "mean width"] if objects else []
    lines = [heads, *(_class_line(frame, one["name"], one["column"]) for one in classes)]
    full = [[*line, *[""] * (len(heads) - len(line))] for line in lines]  # the background has no objects
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    table = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in full]
    notes = [f"note: {note}" for note in frame.attrs["notes"]]
    count = frame.attrs.get("rows", len(frame))
    rows = "" if count == 1 else f", {count:,} rows, added up"
    return "\n".join([f"{frame.attrs['scene']}{rows}", observed, "", *table, *([""] if notes else []), *notes])


def _class_line(frame: Any, name: str, column: str) -> list[str]:
    """Return the cells of one class."""
    area = _total(frame["area_m2"])
    basis = "m2" if np.isfinite(area) else "pixels"
    observed = sum(frame[f"{one['column']}_{basis}"].sum() for one in frame.attrs["classes"])
    share = frame[f"{column}_{basis}"].sum() / observed if observed else np.nan
    pixels = f"{frame[f'{column}_pixels'].sum():,.0f}"
    line = [name, pixels, _shown(_total(frame[f"{column}_m2"])), _shown(share, format_share)]
    if f"{column}_count" not in frame:
        return line
    count, one = frame[f"{column}_count"].sum(), frame.iloc[0] if len(frame) == 1 else {}
    mean = _total(frame[f"{column}_size_mean_m2"] * frame[f"{column}_count"])
    width = _shown(one.get(f"{column}_width_mean_m", np.nan), format_number)
    return [
        *line,
        f"{count:,}",
        _shown(count / area * KM2 if area > 0 else np.nan, format_number),
        _shown(mean / count if count else np.nan),
        _shown(one.get(f"{column}_size_median_m2", np.nan)),
        width if width == "-" else f"{width} m",
    ]


def _total(column: Any) -> float:
    """Add a column up; NaN where nothing is known."""
    return float(column.sum(min_count=1))


def _shown(value: float, form: Callable[[float], str] | None = None) -> str:
    """Return a number, as an area if not told otherwise, for a terminal."""
    return (form or format_area)(float(value)).replace(NARROW, " ") if np.isfinite(value) else "-"


def format_number(value: float, digits: int = 3) -> str:
    """Format a number to some significant digits, without an exponent, thousands apart: 12,300 or 0.0123."""
    if not math.isfinite(value):
        return "unknown"
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(places, 0)}f}".replace("-", MINUS)


def format_area(square_metres: float, digits: int = 3) -> str:
    """Format an area in whole m² or to some digits, in km² from a tenth of one on."""
    if square_metres >= 1e5:
        return f"{format_number(square_metres / KM2, digits)}{NARROW}km²"
    return f"{format_number(square_metres, digits) if square_metres < 1000 else f'{square_metres:,.0f}'}{NARROW}m²"


def format_share(share: float) -> str:
    """Format a share of 0..1 in per cent; one that is not 0 never looks like it."""
    percent = 100 * share
    if 0 < percent < 0.01:
        return f"<{NARROW}0.01{NARROW}%"
    return f"{percent:.{1 if percent >= 10 else 2}f}{NARROW}%"
