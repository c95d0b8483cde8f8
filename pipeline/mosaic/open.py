"""A mosaic opened: an index of scenes, a grid chosen for it, an order, masks and an area, all checked."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from models.errors import ArgumentError, SceneError
from models.metadata import some_of

from ..catalog.index import IndexedScene, SceneIndex, is_index, read_index
from ..grid.geobox import GeoBox, describe_crs, same_crs
from ..io.resample import RESAMPLINGS, Resampling
from ..io.scene import SceneLike, open_source
from .area import Area, place_area, read_area
from .footprints import grids_of, outlines_of
from .masking import SceneMask, parse_masks
from .order import COMPOSITES, Composite, order_of
from .source import MosaicSource
from .target import (
    Bounds,
    SceneGrids,
    aligned_geobox,
    common_corner,
    common_crs,
    common_resolution,
    window_grid,
)

# what differs between scenes of one kind, in the JSON of `catalog.records`
OWN = (r'"path":"(?:[^"\\]|\\.)*"', r'"geobox":\{[^}]*\}', r'"file_notes":\[[^\]]*\]')
MosaicLike = MosaicSource | SceneIndex
BOUNDS_POINTS = 21  # on each side, where an area's bounds are brought into another CRS


def open_mosaic(
    index: str | os.PathLike[str] | SceneIndex,
    *,
    crs: Any = None,
    resolution: float | tuple[float, float] | None = None,
    bounds: Bounds | None = None,
    like: SceneLike | None = None,
    area: str | os.PathLike[str] | None = None,
    composite: Composite = "first",
    mask: Mapping[str, Any] | Sequence[str] | None = None,
    resampling: Resampling = "nearest",
    harmonise: Literal["moments", "histogram"] | None = None,
    show: bool = False,
) -> MosaicSource:
    """Open many scenes as one, on one grid. Only facts are read, no pixels but for `harmonise`.

    Two mosaics of one resolution share one grid, wherever they lie: corners of pixels lie at whole multiples of the
    resolution, or, where all scenes of that CRS and resolution lie on one grid, on theirs.

    Parameters
    ----------
    index
        An index of scenes that `swathe index` wrote.
    crs
        Of the grid, whatever pyproj takes. Default: that of most scenes.
    resolution
        Side of a pixel in units of the CRS, or its width and height. Default: that of most scenes of the CRS.
    bounds
        West, south, east and north in the CRS, which the grid covers. Default: of the area, else of all scenes.
    like
        A scene whose grid is taken, instead of CRS and resolution; with `bounds` what continues it.
    area
        A vector file of polygons, in any CRS. Pixels outside are missing, and blocks that touch none are not planned.
        A network sees what lies around an area all the same, so that inside the map is that without an area.
    composite
        What a pixel is where several scenes observed it. Scenes of higher priority come first. `first`: the first
        scene's that observed it, the oldest first; `latest`, `least-cloudy`: the newest's, or least cloudy one's;
        `median`, `mean`: of each band, over all scenes.
    mask
        Values of a band that are not taken, as `{"SCL": [3, 8, 9, 10]}`, or classes of a map that Swathe made, as
        `{"clouds/{id}.zarr": ["cloud"]}`, where `{id}` is the scene's name; also texts as `SCL=3,8,9,10`.
    resampling
        How scenes that do not lie on the grid are brought onto it: `nearest`, `bilinear`, `cubic`.
    harmonise
        Bring scenes to one radiometry by a sample of what they hold where they overlap: `moments`, a gain and an offset
        for each scene and band; `histogram`, a curve. See `pipeline.mosaic.harmonise`.
    show
        Show the progress of that.

    Returns
    -------
    MosaicSource
        For `run` and `plan`; as a lazy array by its `to_xarray`.

    Raises
    ------
    SwatheError
        The index is empty or not one; scenes have other bands, types or scales, or no CRS; the area or the bounds
        touch none of them; the grid has more than 10^15 pixels; options make no sense.
    """
    if composite not in COMPOSITES:
        raise ArgumentError(f"composite is {', '.join(COMPOSITES)}; received {composite!r}")
    if resampling not in RESAMPLINGS:
        raise ArgumentError(f"resampling is {', '.join(RESAMPLINGS)}; received {resampling!r}")
    scenes = index if isinstance(index, SceneIndex) else read_index(index)
    if not len(scenes):
        raise SceneError(f"{scenes.path} holds no scenes; add some with `swathe index SCENES... -o {scenes.path}`")
    order = order_of(scenes, composite)
    grids = SceneGrids(*grids_of(scenes, order))
    frame = None if area is None else read_area(os.fspath(area))
    geobox = _choose_grid(grids, crs, resolution, bounds, like, frame)
    placed = None if frame is None else place_area(frame, geobox)
    used = _touching(scenes, order, geobox, placed)
    masks = parse_masks(mask)
    kinds = one_of_each(scenes, used)
    _check_alike([scenes.scene(number) for number in kinds], masks)
    scenes.check_unchanged(used)
    said = tuple(_describe(scenes, used, geobox, composite))
    mosaic = MosaicSource(scenes, geobox, tuple(used.tolist()), composite=composite, resampling=resampling, kinds=kinds,
                          area=placed, scene_masks=masks, file_notes=said)  # fmt: skip
    if harmonise is None:
        return mosaic
    from .harmonise import harmonise as bring_together

    return bring_together(mosaic, harmonise, show=show)


def as_mosaic(scene: Any, resampling: Resampling = "nearest") -> MosaicSource | None:
    """Return a mosaic, or what an index or the path of one opens as; None for other scenes. See `open_mosaic`."""
    if isinstance(scene, MosaicSource):
        return scene
    if isinstance(scene, list | tuple) and len(scene) == 1:
        scene = scene[0]
    if isinstance(scene, SceneIndex) or (isinstance(scene, str | os.PathLike) and is_index(scene)):
        return open_mosaic(scene, resampling=resampling)
    return None


def _choose_grid(
    grids: SceneGrids,
    crs: Any,
    resolution: float | tuple[float, float] | None,
    bounds: Bounds | None,
    like: SceneLike | None,
    area: Any,
) -> GeoBox:
    common = common_crs(grids)  # refuses scenes without one
    if like is not None:
        if crs is not None or resolution is not None:
            raise ArgumentError("--like brings its own CRS and resolution; leave out --crs and --resolution")
        whole = open_source(like).geobox
        if not whole.georeferenced:
            raise SceneError("--like names a scene without CRS or position")
        return whole if bounds is None else window_grid(whole, bounds)
    wkt = common if crs is None else _wkt(crs)
    pixel = common_resolution(grids, wkt) if resolution is None else _pair(resolution)
    if bounds is None:
        bounds = grids.bounds(wkt)
        if area is not None:
            bounds = _shared(bounds, _area_bounds(area, wkt))
    return aligned_geobox(wkt, pixel, bounds, common_corner(grids, wkt, pixel))


def _wkt(crs: Any) -> str:
    from pyproj import CRS
    from pyproj.exceptions import CRSError
    from rasterio.crs import CRS as FileCRS

    try:
        return str(FileCRS.from_wkt(CRS.from_user_input(crs).to_wkt()).to_wkt())  # a text as files have it
    except CRSError as error:
        raise ArgumentError(f"--crs {crs}: not a CRS that is known; give it as EPSG:32633") from error


def _pair(resolution: float | tuple[float, float]) -> tuple[float, float]:
    sides = np.ravel(np.asarray(resolution, np.float64)).tolist()
    if len(sides) not in (1, 2):
        raise ArgumentError(f"--resolution is a positive number, or two; received {resolution}")
    return sides[0], sides[-1]


def _area_bounds(area: Any, wkt: str) -> Bounds:
    from pyproj import CRS, Transformer

    west, south, east, north = map(float, area.total_bounds)
    bounds = west, south, east, north
    if not CRS.from_wkt(wkt).equals(area.crs, ignore_axis_order=True):
        there = Transformer.from_crs(area.crs, wkt, always_xy=True)
        bounds = there.transform_bounds(west, south, east, north, densify_pts=BOUNDS_POINTS)
    if not np.isfinite(bounds).all():
        raise SceneError(f"the area lies where {describe_crs(wkt)} does not reach; give another --crs")
    return bounds


def _shared(scenes: Bounds, area: Bounds) -> Bounds:
    """Return what two bounds share. Raises SceneError where that is nothing."""
    if area[0] > area[2]:  # across the antimeridian: as wide as the scenes
        area = scenes[0], area[1], scenes[2], area[3]
    west, south = max(scenes[0], area[0]), max(scenes[1], area[1])
    east, north = min(scenes[2], area[2]), min(scenes[3], area[3])
    if west >= east or south >= north:
        raise SceneError(f"no scene lies in the area: scenes cover {_words(scenes)}; the area {_words(area)}")
    return west, south, east, north


def _words(bounds: Bounds) -> str:
    return f"{bounds[0]:.10g} to {bounds[2]:.10g}, {bounds[1]:.10g} to {bounds[3]:.10g}"


def _touching(index: SceneIndex, order: NDArray[np.intp], geobox: GeoBox, area: Area | None) -> NDArray[np.intp]:
    """Return the scenes that touch the grid and the area. Raises SceneError where there are none."""
    shapes = outlines_of(index, order, geobox)
    near = shapely.intersects(shapes, shapely.box(0, 0, geobox.width, geobox.height))
    if area is not None:
        near &= shapely.intersects(area.shape, shapes)
    if not near.any():
        where = "the area" if area is not None else f"the grid {geobox.describe()}"
        raise SceneError(f"none of the {len(index):,} scenes of {index.path} touches {where}")
    return np.asarray(order[near])


def _check_alike(kinds: Sequence[IndexedScene], masks: tuple[SceneMask, ...]) -> None:
    """Refuse scenes whose bands, type or scale are not those of the first, or that a mask does not fit."""
    for scene in kinds[1:]:
        for what, mine, theirs in zip(("bands", "type", "scale"), _facts(kinds[0]), _facts(scene), strict=True):
            if mine != theirs:
                raise SceneError(
                    f"scenes of one mosaic have the same {what}: {kinds[0].id} has {mine}; {scene.id} has {theirs}. "
                    "Make an index of those that belong together"
                )
    for mask in masks:
        for scene in kinds:
            mask.check(scene)


def _facts(scene: IndexedScene) -> tuple[str, str, str]:
    source = scene.source
    told = {f"{one.scale:g}, offset {one.offset:g} {one.unit}".strip() if one else "none" for one in source.radiometry}
    return some_of(source.bands), str(source.dtype), ", ".join(sorted(told))


def one_of_each(index: SceneIndex, used: NDArray[np.intp]) -> tuple[int, ...]:
    """Return one scene of each kind, in their order: scenes of a kind differ in files and grids alone."""
    import pyarrow.compute as pc

    texts = index.columns.sources.take(used)
    for pattern in OWN:
        texts = pc.replace_substring_regex(texts, pattern, "")
    _, first = np.unique(texts.to_numpy(zero_copy_only=False).astype(str), return_index=True)
    return tuple(used[np.sort(first)].tolist())


def _describe(index: SceneIndex, used: NDArray[np.intp], geobox: GeoBox, composite: Composite) -> list[str]:
    """Say which scenes a mosaic is made of."""
    what = f"{len(used):,} of {len(index):,} scenes of {os.path.basename(index.path)}, composite {composite}"
    columns = index.columns
    kinds = [columns.crs[number] for number in np.unique(columns.crs_numbers[used])]
    warped = [describe_crs(crs) for crs in kinds if not same_crs(crs, geobox.crs)]
    notes = [what, *([f"warped from {', '.join(warped[:5])}"] if warped else [])]
    moments = index.datetimes[used]
    known = moments[~np.isnat(moments)]
    if len(known) and (known.max() - known.min()) > np.timedelta64(1, "D"):
        first, last = (str(moment.astype("datetime64[D]")) for moment in (known.min(), known.max()))
        notes.append(f"scenes of several dates, {first} to {last}")
    return notes
