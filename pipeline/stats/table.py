"""Sums and tallies as a table of figures with named columns, and in words for a terminal. No files, no dask."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.metadata import ClassInfo

from ..grid.geobox import GeoBox
from .cells import Cells
from .object_stats import Tally, ratio
from .sums import Floats, Totals

KM2 = 1e6  # m²
OURS = ("area_m2", "nodata_m2", "nodata_pixels", "geometry")
SIZES = ("size_p10_m2", "size_median_m2", "size_p90_m2")  # as `tallies.QUANTILES` has them
BOUNDS = ("xmin", "ymin", "xmax", "ymax")


def class_columns(classes: Sequence[ClassInfo]) -> list[str]:
    """Give what the columns of each class begin with: its name in letters, digits and underscores, each only once.

    `area` and `nodata` are taken, and a name that would come twice has its class's value added.
    """
    made: list[str] = []
    for value, info in enumerate(classes):
        name = re.sub(r"\W+", "_", info.name).strip("_") or "class"
        taken = {"area", "nodata", *(other.casefold() for other in made)}
        made.append(f"{name}_{value}" if name.casefold() in taken else name)
    return made


def area_columns(totals: Totals, names: Sequence[str], *, whole: bool) -> dict[str, Any]:
    """Give the columns of areas and shares.

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


def object_columns(tally: Tally, area: Floats, names: Sequence[str]) -> dict[str, Any]:
    """Give the columns of objects; `area` is the observed one in m² `(groups,)`, `names` those of all classes."""
    columns: dict[str, Any] = {}
    for place, name in enumerate(names[1:]):
        count = tally.count[:, place]
        low, median, high = tally.quantiles[:, :, place]
        columns |= {
            f"{name}_count": count.astype(np.int64),
            f"{name}_per_km2": ratio(count, area / KM2),
            f"{name}_size_mean_m2": tally.mean[:, place],
            **{f"{name}_{what}": values for what, values in zip(SIZES, (low, median, high), strict=True)},
            f"{name}_size_min_m2": tally.smallest[:, place],
            f"{name}_size_max_m2": tally.largest[:, place],
            f"{name}_width_mean_m": tally.width[:, place],
        }
    return columns


def cells_frame(cells: Cells, geobox: GeoBox) -> Any:
    """Give cells as a GeoDataFrame: `row` and `column` in the grid of cells, and their outlines.

    Where the scene has no transform, outlines are in pixels, rows downwards.
    """
    import geopandas
    import shapely

    rows, columns = cells.edges()
    row, column = np.divmod(np.arange(len(cells)), cells.columns)
    boxes = shapely.box(columns[column], rows[row], columns[column + 1], rows[row + 1])
    outlines = shapely.transform(boxes, lambda points: np.column_stack(geobox.to_map(points[:, 0], points[:, 1])))
    outlines = shapely.orient_polygons(outlines)  # a map upside down turns them round
    return geopandas.GeoDataFrame({"row": row, "column": column}, geometry=outlines, crs=geobox.crs)


def joined(frame: Any, columns: dict[str, Any]) -> Any:
    """Put figures beside what rows had; names that are ours already get `_zone` added. The geometry comes last."""
    import geopandas
    import pandas

    taken = {name.casefold() for name in (*OURS, *BOUNDS, *columns)}
    renamed: dict[Any, str] = {}
    for name in frame.columns.drop("geometry"):
        text = free = str(name)
        number = 1
        while free.casefold() in taken:
            number += 1
            free = f"{text}_zone" if number == 2 else f"{text}_zone{number - 1}"
        taken.add(free.casefold())
        renamed[name] = free
    kept = pandas.DataFrame(frame.drop(columns="geometry")).rename(columns=renamed)
    made = pandas.concat([kept, pandas.DataFrame(columns, index=frame.index)], axis=1)
    return geopandas.GeoDataFrame(made, geometry=frame.geometry)


def with_bounds(frame: Any) -> Any:
    """Give the table without geometry: the bounds of each row stand for it."""
    import pandas

    bounds = frame.geometry.bounds.set_axis(list(BOUNDS), axis=1)
    return pandas.concat([pandas.DataFrame(frame.drop(columns="geometry")), bounds], axis=1)


def describe_statistics(frame: Any) -> str:
    """Give the figures of `compute_statistics` as a short table for a terminal, and its notes below.

    Several rows are added up; zones that overlap then count in each. What cannot be added, as medians, is left out.
    """
    metric = not frame["area_m2"].isna().all()
    observed = f"{_said(frame, 'area_m2', _area)} observed, {_said(frame, 'nodata_m2', _area)} nodata"
    if not metric:
        pixels = sum(frame[f"{one['column']}_pixels"].sum() for one in frame.attrs["classes"])
        observed = f"{pixels:,.0f} pixels observed, {frame['nodata_pixels'].sum():,.0f} nodata; no CRS, so no areas"
    rows = "" if len(frame) == 1 else f", {len(frame):,} rows, added up"
    table = _aligned(
        [_heads(frame), *(_class_line(frame, one["name"], one["column"]) for one in frame.attrs["classes"])]
    )
    notes = [f"note: {note}" for note in frame.attrs["notes"]]
    return "\n".join([f"{frame.attrs['scene']}{rows}", observed, "", *table, *([""] if notes else []), *notes])


def _heads(frame: Any) -> list[str]:
    objects = ["objects", "per km²", "mean size", "median size", "mean width"] if _with_objects(frame) else []
    return ["class", "pixels", "area", "share", *objects]


def _with_objects(frame: Any) -> bool:
    return any(f"{one['column']}_count" in frame for one in frame.attrs["classes"])


def _class_line(frame: Any, name: str, column: str) -> list[str]:
    """Give the line of one class."""
    pixels = frame[f"{column}_pixels"].sum()
    basis = "pixels" if frame["area_m2"].isna().all() else "m2"
    observed = sum(frame[f"{one['column']}_{basis}"].sum() for one in frame.attrs["classes"])
    share = f"{frame[f'{column}_{basis}'].sum() / observed:.2%}" if observed else "-"
    line = [name, f"{pixels:,.0f}", _said(frame, f"{column}_m2", _area), share]
    if f"{column}_count" not in frame:
        return line
    return line + _object_figures(frame, column)


def _object_figures(frame: Any, column: str) -> list[str]:
    count, area = frame[f"{column}_count"].sum(), frame["area_m2"].sum()
    mean = (frame[f"{column}_size_mean_m2"] * frame[f"{column}_count"]).sum() / count if count else np.nan
    one = frame.iloc[0] if len(frame) == 1 else {}
    return [
        f"{count:,}",
        _number(count / area * KM2 if area > 0 else np.nan),
        _area(mean if mean > 0 else np.nan),
        _area(one.get(f"{column}_size_median_m2", np.nan)),
        _length(one.get(f"{column}_width_mean_m", np.nan)),
    ]


def _said(frame: Any, column: str, say: Callable[[float], str]) -> str:
    values = frame[column]
    return "-" if values.isna().all() else say(float(values.sum()))


def _area(value: float) -> str:
    """Give an area in m², from a hectare on in ha, from a km² on in km²."""
    if not np.isfinite(value):
        return "-"
    for unit, size in (("km²", KM2), ("ha", 1e4)):
        if value >= size:
            return f"{_number(value / size)} {unit}"
    return f"{_number(value)} m²"


def _length(value: float) -> str:
    return f"{_number(value)} m" if np.isfinite(value) else "-"


def _number(value: float) -> str:
    """Give a number to at least three digits."""
    if not np.isfinite(value):
        return "-"
    digits = 0 if value == 0 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def _aligned(lines: list[list[str]]) -> list[str]:
    """Give lines with their columns under each other: the first to the left, the rest to the right."""
    wide = max(map(len, lines))
    full = [[*line, *[""] * (wide - len(line))] for line in lines]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in full]
