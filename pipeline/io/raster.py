"""Facts of rasters before any pixel is read: one file, or one file per band, into a RasterSource.

Grids, nodata, masks and alpha are sorted out here; `names` finds the files and names the bands; which of the bands are
wanted is `select`'s to say.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags

from models.errors import SceneError

from ..grid.geobox import GeoBox, is_position
from .gdal import open_raster, run_with_env
from .naming import band_names, names_from_files
from .source import RasterBand, RasterMask, RasterSource

if TYPE_CHECKING:
    from rasterio import DatasetReader

HUGE, SPARSE = 2**30, 50_000  # a declared size of over 1 GiB that is 50,000 times the file's: a mistake or an attack
MOST_PIXELS = 10**13  # the Earth at 10 m has 8e12
MOST_BANDS = 4096


def open_rasters(paths: Sequence[str]) -> RasterSource:
    """Open one raster of any number of bands, or several that hold one band each.

    Raises
    ------
    SceneError
        A file is missing, damaged or complex; files lie on different grids; nothing to read.
    """
    if not paths:
        raise SceneError("no files given")
    sources = [_open_one(path) for path in paths]
    if len(sources) == 1:
        return sources[0]
    for path, source in zip(paths, sources, strict=True):
        if len(source.layers) != 1:
            raise SceneError(f"{path} holds {len(source.layers)} bands; several files must hold one band each")
    layers = [replace(s.layers[0], name=name) for s, name in zip(sources, names_from_files(paths), strict=True)]
    return join([replace(source, layers=(layer,)) for source, layer in zip(sources, layers, strict=True)])


def join(sources: Sequence[RasterSource]) -> RasterSource:
    """Put the bands of sources into one, in their order. Raises SceneError where they lie on different grids."""
    first = sources[0]
    for source in sources:
        _refuse_other_grid(source.layers[0].path, source, first.layers[0].path, first)
    layers = [layer for source in sources for layer in source.layers]
    masks = dict.fromkeys(mask for source in sources for mask in source.masks)
    notes = dict.fromkeys(note for source in sources for note in source.notes)
    return RasterSource(first.geobox, tuple(layers), tuple(masks), tuple(notes))


def _refuse_other_grid(path: str, source: RasterSource, first_path: str, first: RasterSource) -> None:
    if not source.geobox.same_grid(first.geobox):
        raise SceneError(
            f"{path} lies on another grid than {first_path}: {source.geobox.describe()};\n"
            f"against {first.geobox.describe()}. Warp one onto the other's grid first, as with gdalwarp"
        )


def _open_one(path: str) -> RasterSource:
    return run_with_env(path, lambda: _source(open_raster(path, anew=True), path))


def _source(dataset: "DatasetReader", path: str) -> RasterSource:
    _refuse_unusable(dataset, path)
    _refuse_hollow(dataset, path)
    indexes = _data_bands(dataset)
    names = band_names(dataset, indexes)
    layers = tuple(_layer(dataset, path, index, name) for index, name in zip(indexes, names, strict=True))
    geobox = _geobox(dataset)
    return RasterSource(geobox, layers, tuple(_masks(dataset, path, indexes)), tuple(_notes(dataset, geobox)))


def _refuse_unusable(dataset: "DatasetReader", path: str) -> None:
    if not dataset.count or not dataset.width or not dataset.height:
        parts = dataset.subdatasets
        hint = f"; it holds {len(parts)} subdatasets, give one of them: {parts[0]}" if parts else ""
        raise SceneError(f"{path} holds no pixels of its own{hint}")
    if dataset.count > MOST_BANDS:
        raise SceneError(f"{path} declares {dataset.count:,} bands; at most {MOST_BANDS:,} are read")
    if dataset.width * dataset.height > MOST_PIXELS:
        raise SceneError(f"{path} declares {dataset.height:,} x {dataset.width:,} pixels; at most 1e13 are read")
    for dtype in dict.fromkeys(dataset.dtypes):
        if dtype.startswith(("complex", "cint")):
            raise SceneError(f"{path} holds complex numbers ({dtype}); take the amplitude or the parts first")


def _refuse_hollow(dataset: "DatasetReader", path: str) -> None:
    """Refuse a tiny file that declares a huge scene before anything is planned for it."""
    if not os.path.isfile(path) or dataset.driver in ("VRT", "GTI"):
        return
    declared = dataset.count * dataset.width * dataset.height * np.dtype(dataset.dtypes[0]).itemsize
    actual = os.path.getsize(path)
    if declared > HUGE and declared > SPARSE * actual:
        raise SceneError(
            f"{path} declares {dataset.height} x {dataset.width} pixels, {declared / 1e9:.1f} GB, but has only "
            f"{actual:,} bytes: it is damaged or almost empty. If it is meant so, make a VRT of it and give that"
        )


def _data_bands(dataset: "DatasetReader") -> list[int]:
    """Give the numbers of the bands that are not the mask: all, but for a last one that is alpha."""
    return list(dataset.indexes[:-1] if _has_alpha(dataset) else dataset.indexes)


def _has_alpha(dataset: "DatasetReader") -> bool:
    return bool(dataset.count > 1 and dataset.colorinterp[-1] == ColorInterp.alpha)


def _masks(dataset: "DatasetReader", path: str, indexes: Sequence[int]) -> list[RasterMask]:
    """Give what the file says of observed pixels apart from nodata: an alpha band, and masks of the file or of bands.

    GDAL takes alpha for a mask in files of two or four bands only, and not beside nodata; people mean it in any.
    """
    flags = [set(dataset.mask_flag_enums[index - 1]) for index in indexes]
    masks = []
    if _has_alpha(dataset):
        masks.append(RasterMask(path, (dataset.count,), alpha=True))
    if any(MaskFlags.per_dataset in of_band and MaskFlags.alpha not in of_band for of_band in flags):
        masks.append(RasterMask(path, (indexes[0],)))
    elif any(not of_band for of_band in flags):
        masks.append(RasterMask(path, tuple(indexes)))
    return masks


def _layer(dataset: "DatasetReader", path: str, index: int, name: str) -> RasterBand:
    place = index - 1
    nodata = dataset.nodatavals[place]
    return RasterBand(
        path=path,
        index=index,
        name=name,
        dtype=str(np.dtype(dataset.dtypes[place])),
        nodata=None if nodata is None else float(nodata),
        scale=float(dataset.scales[place]),
        offset=float(dataset.offsets[place]),
    )


def _geobox(dataset: "DatasetReader") -> GeoBox:
    crs = dataset.crs.to_wkt() if dataset.crs else None
    transform = dataset.transform if is_position(dataset.transform) else None
    return GeoBox(dataset.height, dataset.width, transform, crs or None)


def _notes(dataset: "DatasetReader", geobox: GeoBox) -> list[str]:
    """Say what of the file's position is not used."""
    if geobox.transform is not None:
        return []
    if not dataset.transform.is_identity:
        return ["the file's transform has no area or is not finite: it is not used, and the map has no position"]
    if dataset.gcps[0]:
        return [_unused(f"{len(dataset.gcps[0])} ground control points")]
    if dataset.rpcs is not None:
        return [_unused("rational polynomial coefficients (RPC)")]
    return []


def _unused(what: str) -> str:
    return f"the scene's position is given by {what} only, and is lost in the map: warp it first, as with gdalwarp"
