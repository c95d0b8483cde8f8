"""The grid of an xarray DataArray: its dims brought to `(band, y, x)`, its CRS, and its transform.

Coordinates are centres of pixels by the CF conventions and in most libraries, but upper left corners in what stackstac
makes by default: a transform in the array's attributes tells the two apart.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import rioxarray  # noqa: F401 -- registers `.rio`
import xarray as xr
from affine import Affine
from dask.base import is_dask_collection
from xarray.core import indexing

from models.errors import SceneError

from ..grid.geobox import NO_TRANSFORM, GeoBox, is_position
from .gdal import printable

DIMS = ("band", "y", "x")
SPATIAL = (("y", "x"), ("lat", "lon"), ("latitude", "longitude"), ("northing", "easting"))
TIMES = ("time", "t", "date", "datetime", "month", "year", "step")
CORNERS = "the coordinates are taken for upper left corners of pixels, for so the array's transform has them"
UNFIT = "the attribute `transform` does not fit the coordinates, which are taken for centres of pixels"
KILOMETRES, KILOMETRE = {"km", "kilometer", "kilometers", "kilometre", "kilometres"}, 1000.0
UNEVEN = 0.05  # of a pixel: how far rounded coordinates may lie from even ones


@dataclass(frozen=True)
class Axis:
    """Evenly spaced coordinates: the first, the step (None of a single one), and how far each may be rounded."""

    first: float
    step: float | None
    rounded: float


def spatial_dims(array: xr.DataArray) -> tuple[Any, Any] | None:
    """Return the dims of rows and columns, whatever they are called; None where there are none."""
    names = {str(dim).lower(): dim for dim in array.dims}
    for row, column in SPATIAL:
        if row in names and column in names:
            return names[row], names[column]
    return None


def is_geographic(array: xr.DataArray) -> bool:
    """Whether the axes of an array are called latitude and longitude."""
    dims = spatial_dims(array)
    return dims is not None and str(dims[0]).lower().startswith("lat")


def with_dims(array: xr.DataArray) -> xr.DataArray:
    """Bring an array to the dims `(band, y, x)`: axes of other names, and dims of one element left out.

    Raises
    ------
    SceneError
        There are no such axes, or several dims beside them, or a dim of several times.
    """
    axes = spatial_dims(array)
    if axes is None:
        raise SceneError(f"a scene has the dims (band, y, x); received {array.dims}: use .rename() or .isel()")
    renamed = {dim: name for dim, name in zip(axes, ("y", "x"), strict=True) if dim != name}
    array = array.drop_vars([name for name in renamed.values() if name in array.coords]).rename(renamed)
    array = array.isel({dim: 0 for dim in array.dims if dim not in DIMS and array.sizes[dim] == 1})
    others = [dim for dim in array.dims if dim not in ("y", "x")]
    for dim in others:
        if str(dim).lower() in TIMES or (dim in array.coords and array.coords[dim].dtype.kind == "M"):
            raise SceneError(
                f"the array holds {array.sizes[dim]} times (dim {dim}), and a scene is of one: choose it, as by "
                f".isel({dim}=0)"
            )
    if len(others) > 1:
        raise SceneError(f"a scene has the dims (band, y, x); received {array.dims}: use .rename() or .isel()")
    if not others:
        beside = array.coords.get("band")
        array = array.drop_vars("band") if beside is not None and beside.ndim else array
        array = _with_band(array)
    elif others[0] != "band":
        array = array.drop_vars("band", errors="ignore").rename({others[0]: "band"})
    return array.transpose(*DIMS)


class _OneBand(xr.backends.BackendArray):
    """Pixels `(y, x)` that lie in a file as `(band, y, x)`."""

    def __init__(self, pixels: xr.Variable) -> None:
        self.pixels, self.shape, self.dtype = pixels, (1, *pixels.shape), pixels.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        return np.asarray(self.pixels[key[1:]].values)[None][key[0]]


def _with_band(array: xr.DataArray) -> xr.DataArray:
    """Give an array a dim of one band; `expand_dims` would read all of a file."""
    pixels = array.variable
    if pixels._in_memory or is_dask_collection(pixels):
        return array.expand_dims("band")
    lazy = indexing.LazilyIndexedArray(_OneBand(pixels))
    variable = xr.Variable(DIMS, lazy, pixels.attrs, pixels.encoding)
    return xr.DataArray(variable, array.coords, DIMS, array.name)


def geobox_of(array: xr.DataArray, geographic: bool = False) -> tuple[GeoBox, tuple[str, ...]]:
    """Return the grid of an array of dims `(band, y, x)`, and what the user should know of it.

    Parameters
    ----------
    array
        With or without coordinates.
    geographic
        Whether its axes were called latitude and longitude: they are degrees then, whatever else is not said.

    Raises
    ------
    SceneError
        Coordinates that are not evenly spaced, or may be centres or corners of pixels.
    """
    transform, notes = _transform(array)
    crs = _crs(array)
    if crs is None and geographic and transform is not None:
        crs = "EPSG:4326"
        notes = (*notes, "the array has latitudes and longitudes, and no CRS: they are taken for EPSG:4326 (WGS 84)")
    elif crs is not None and transform is not None and _counts_pixels(array, transform):
        transform = None
    if crs is not None and transform is None:
        notes = (*notes, NO_TRANSFORM)
    return GeoBox(array.sizes["y"], array.sizes["x"], transform, _wkt(crs)), notes


def _counts_pixels(array: xr.DataArray, transform: Affine) -> bool:
    """Whether coordinates are columns and rows, as numpy and rioxarray give them where there is no position."""
    if (transform.a, transform.b, transform.d, transform.e) != (1.0, 0.0, 0.0, 1.0):
        return False
    beside = array.coords.get(array.rio.grid_mapping)
    said = [] if beside is None else str(beside.attrs.get("GeoTransform", "")).split()
    with suppress(ValueError):
        said = [f"{float(value):g}" for value in said]
    return " ".join(said) == "0 1 0 0 0 1" or (transform.c, transform.f) in ((0.0, 0.0), (-0.5, -0.5))


def _wkt(crs: Any) -> str | None:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if crs is None:
        return None
    try:
        return CRS.from_user_input(crs).to_wkt() or None
    except (CRSError, ValueError) as error:
        raise SceneError(f"the array's CRS cannot be understood: {printable(str(error))[:200]}") from error


def _crs(array: xr.DataArray) -> Any:
    """Return the CRS as rioxarray finds it, else as STAC's properties have it among the coordinates."""
    from rasterio.errors import CRSError

    with suppress(CRSError, ValueError):
        if (crs := array.rio.crs) is not None:
            return crs
    told = {**{name: value.values for name, value in array.coords.items() if not value.ndim}, **array.attrs}
    for name in ("crs", "proj:code", "proj:epsg", "epsg"):
        value = told.get(name)
        if value is None or (text := str(value)) in ("", "None", "nan"):
            continue
        if name == "crs" and isinstance(value, np.ndarray):  # a grid mapping, which rioxarray has looked at
            continue
        return f"EPSG:{int(float(text))}" if re.fullmatch(r"\d+(\.0)?", text) else value if name == "crs" else text
    return None


def _transform(array: xr.DataArray) -> tuple[Affine | None, tuple[str, ...]]:
    """Return the transform of the array's file, moved to the part of the scene that it is; else that of x and y."""
    kept, told = _kept(array), _told(array)
    rotated = kept is not None and bool(kept.b or kept.d)
    x, y = _axis(array, "column" if rotated else "x", "x"), _axis(array, "row" if rotated else "y", "y")
    if x is None or y is None:
        return _without_coordinates(array, kept or told), ()
    if rotated and kept is not None:
        return kept * _part(x, y, Affine.identity()), ()
    if kept is not None:
        if told is not None:
            _refuse_two(kept, told)
        found = _on_pixels(kept, x, y, centres=True) or (kept * _part(x, y, kept), False)
        return found[0], (CORNERS,) if found[1] else _of_stackstac(array) if told is None else ()
    if told is None:
        return _of_centres(array, x, y)
    placed = _on_pixels(told, x, y, rows=_rows(array), stacked="spec" in array.attrs)
    if placed is None:
        return _of_centres(array, x, y)[0], (UNFIT,)
    return placed[0], (CORNERS,) if placed[1] else ()


def _kept(array: xr.DataArray) -> Affine | None:
    """Return the transform that rioxarray keeps beside the CRS."""
    beside = array.coords.get(array.rio.grid_mapping)
    text = "" if beside is None else str(beside.attrs.get("GeoTransform", ""))
    try:
        found = Affine.from_gdal(*map(float, text.split()))
    except (TypeError, ValueError):
        return None
    return found if is_position(found) else None


def _told(array: xr.DataArray) -> Affine | None:
    """Return the transform that an attribute tells: of stackstac, geowombat, or the projection extension of STAC.

    What lost its attributes, as by arithmetic, may still have the one of its Item as a coordinate.
    """
    attributes, beside = array.attrs, array.coords.get("proj:transform")
    values = [attributes.get("transform"), getattr(attributes.get("spec"), "transform", None)]
    values += [attributes.get("proj:transform")]
    values += [beside.values.item()] if beside is not None and not beside.ndim else []
    for value in values:
        with suppress(TypeError, ValueError):
            found = Affine(*[float(number) for number in list(value)[:6]])  # type: ignore[arg-type]
            if is_position(found) and not (found.b or found.d):
                return found
    return None


def _spec_shape(array: xr.DataArray) -> tuple[int, int] | None:
    """Return rows and columns of the whole that stackstac's attribute `spec` describes."""
    spec: Any = array.attrs.get("spec")
    try:
        west, south, east, north = spec.bounds
        across, down = spec.resolutions_xy
        return round((north - south) / down), round((east - west) / across)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        return None


def _rows(array: xr.DataArray) -> int | None:
    """Return the rows of the whole where this is all of them."""
    shape = _spec_shape(array)
    return shape[0] if shape is not None and shape[0] == array.sizes["y"] else None


def _without_coordinates(array: xr.DataArray, whole: Affine | None) -> Affine | None:
    shape = _spec_shape(array)
    if shape is not None and shape != (array.sizes["y"], array.sizes["x"]):
        raise SceneError(
            f"the array is a part of one of {shape[0]} x {shape[1]} pixels, and no coordinates x and y say which: "
            "stack with xy_coords='center'"
        )
    return whole


def _steps(lattice: Affine, x: Axis, y: Axis) -> tuple[float, float]:
    """Return how many pixels of a transform lie between coordinates; a single row or column is one pixel."""
    across, down = (
        1.0 if axis.step is None else axis.step / scale
        for axis, scale in ((x, lattice.a), (y, lattice.e))
    )  # fmt: skip
    return (_near_whole(across, 1e-3), _near_whole(down, 1e-3))


def _near_whole(value: float, tolerance: float, parts: int = 1) -> float:
    whole = round(value * parts) / parts
    return whole if abs(value - whole) < tolerance else value


def _part(x: Axis, y: Axis, lattice: Affine, shift: tuple[float, float] = (0.0, 0.0)) -> Affine:
    """Return the place of a part in pixels of the whole: whole pixels, since a part is cut out by slices.

    `shift` is what lies between the coordinates and the centres of pixels.
    """
    steps, starts = _steps(lattice, x, y), []
    for axis, step, by, origin, scale in zip(
        (x, y), steps, shift, (lattice.c, lattice.f), (lattice.a, lattice.e), strict=True
    ):
        centre = (axis.first - origin) / scale + by
        starts.append(_near_whole(centre - step / 2, max(1e-3, axis.rounded / abs(scale)), 2))
    return Affine.translation(*starts) * Affine.scale(*steps)


def _on_pixels(
    lattice: Affine, x: Axis, y: Axis, *, centres: bool = False, rows: int | None = None, stacked: bool = False
) -> tuple[Affine, bool] | None:
    """Move a transform to the part of its pixels that coordinates name; say whether they are taken for corners.

    Centres lie half way between whole numbers of pixels, corners on them; so also every n-th, or means of n, for n odd.
    For even n, means of centres are where corners are: they are taken for centres if `centres`, else refused.

    Returns
    -------
    tuple or None
        None: the coordinates do not lie on the transform's pixels.
    """
    steps = _steps(lattice, x, y)
    places = (x.first - lattice.c) / lattice.a, (y.first - lattice.f) / lattice.e
    near = (max(1e-3, x.rounded / abs(lattice.a)), max(1e-3, y.rounded / abs(lattice.e)))
    halves = [_near_whole(place, tolerance, 2) * 2 for place, tolerance in zip(places, near, strict=True)]
    if not all(value.is_integer() for value in (*steps, *halves)):
        return None
    between, even = [bool(half % 2) for half in halves], any(step % 2 == 0 for step in steps)
    if all(between) and not (even and stacked):
        return lattice * _part(x, y, lattice), False
    if centres and (even or any(between)):
        return lattice * _part(x, y, lattice), False
    if even or any(between) or lattice.a < 0 or lattice.e > 0:
        raise SceneError(
            "the array's coordinates may be centres or corners of pixels, and its attribute transform does not tell: "
            "stack with xy_coords='center', or give centres and drop the attribute"
        )
    lower = rows is not None and halves[1] == (2 if steps[1] > 0 else 2 * rows)  # rows 1 to n, and not 0 to n - 1
    return lattice * _part(x, y, lattice, (0.5, -0.5 if lower else 0.5)), True


def _refuse_two(kept: Affine, told: Affine) -> None:
    """Refuse two transforms of the same pixel size of which one lies between the other's pixels."""
    if abs(kept.a / told.a - 1) > 1e-6 or abs(kept.e / told.e - 1) > 1e-6:
        return  # of a grid before
    if not all(_near_whole(place, 1e-2).is_integer() for place in ~kept * (told.c, told.f)):
        raise SceneError(
            f"the array's GeoTransform begins at ({kept.c:.10g}, {kept.f:.10g}), its attribute transform at "
            f"({told.c:.10g}, {told.f:.10g}): write the right one with .rio.write_transform() and drop the attribute"
        )


def _of_centres(array: xr.DataArray, x: Axis, y: Axis) -> tuple[Affine | None, tuple[str, ...]]:
    """Return the transform of coordinates alone, and notes; attributes say how large a single row or column is."""
    width, height = _resolution(array)
    across = x.step if x.step is not None else width
    down = y.step if y.step is not None else None if height is None else -height
    if across is None or down is None:
        return None, ("a single row or column does not say how large its pixels are: the map has no position",)
    notes = list(_of_stackstac(array))
    for axis, step, name in ((x, across, "x"), (y, down, "y")):
        if axis.rounded > UNEVEN * abs(step):
            notes.append(f"the coordinate {name} is rounded to {axis.rounded:.2g}, and pixels are of {abs(step):.6g}")
    return Affine(across, 0, x.first - across / 2, 0, down, y.first - down / 2), tuple(notes)


def _of_stackstac(array: xr.DataArray) -> tuple[str, ...]:
    """Return a note where stackstac, by a coordinate of its, may have made corners, and nothing tells any more."""
    note = "the coordinates are taken for centres of pixels, which stackstac makes by xy_coords='center' alone"
    return (note,) if "epsg" in array.coords else ()


def _resolution(array: xr.DataArray) -> tuple[float | None, float | None]:
    """Return width and height of a pixel, as attributes tell them."""
    for name in ("res", "resolution"):
        with suppress(KeyError, TypeError, ValueError):
            values: list[float] = np.abs(np.asarray(array.attrs[name], dtype=np.float64)).ravel().tolist()
            if len(values) in (1, 2) and all(0 < value < np.inf for value in values):
                return values[0], values[-1]
    return None, None


def _axis(array: xr.DataArray, name: str, dim: str) -> Axis | None:
    """Return evenly spaced coordinates; None without any. Raises SceneError where they are not even."""
    if name not in array.coords or array.coords[name].dims != (dim,):
        return None
    raw = array.coords[name].values
    if raw.dtype.kind not in "iuf" or not np.isfinite(raw).all():
        raise SceneError(f"the coordinate {name} is not of finite numbers: a scene lies on a regular grid")
    unit = KILOMETRE if str(array.coords[name].attrs.get("units", "")).lower() in KILOMETRES else 1.0
    values = raw.astype(np.float64) * unit
    rounded = float(np.spacing(np.abs(raw).max())) / 2 * unit if raw.dtype.kind == "f" else 0.0
    if values.size == 1:
        return Axis(float(values[0]), None, rounded)
    number = np.arange(values.size)
    step = float(values[-1] - values[0]) / (values.size - 1)
    start = float(values[0])
    off = np.abs(values - start - step * number).max()
    if rounded > 1e-3 * abs(step) and off > 1e-6 * abs(step):  # each is off by up to `rounded`; together they say more
        slope, first = np.polyfit(number, values - start, 1)
        step, start = float(slope), float(first + start)
        off = np.abs(values - start - step * number).max()
    if not step or off > UNEVEN * abs(step) + 2 * rounded or rounded > abs(step) / 2:
        raise SceneError(f"the coordinate {name} is not evenly spaced: a scene lies on a regular grid")
    return Axis(start, step, rounded)
