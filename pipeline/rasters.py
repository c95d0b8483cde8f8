"""Facts of rasters before any pixel is read: one file, or one file per band, into a RasterSource.

Band names, grids, nodata, masks and alpha are sorted out here; which of the bands are wanted is `select`'s to say.
"""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags

from models.errors import SceneError

from .geobox import GeoBox
from .source import RasterBand, RasterSource, gdal_settings, is_remote, open_raster

if TYPE_CHECKING:
    from rasterio import DatasetReader

COLOURS = {
    ColorInterp.red: "red",
    ColorInterp.green: "green",
    ColorInterp.blue: "blue",
}
HUGE, SPARSE = (
    2**30,
    50_000,
)  # a declared size of over 1 GiB that is 50,000 times the file's is a mistake or an attack
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
        if source.geobox != sources[0].geobox:
            raise SceneError(
                f"{path} lies on another grid than {paths[0]}: {source.geobox.describe()}; "
                f"against {sources[0].geobox.describe()}"
            )
    names = _names_from_files(paths)
    layers = tuple(_renamed(source.layers[0], name) for source, name in zip(sources, names, strict=True))
    return RasterSource(sources[0].geobox, layers, tuple(p for s in sources for p in s.masks))


def expand(pattern: str) -> list[str]:
    """Give the files that a path or pattern names, in alphabetical order.

    Raises
    ------
    SceneError
        Nothing there, or a folder.
    """
    if is_remote(pattern) or os.path.isfile(pattern) or _is_gdal_name(pattern):
        return [pattern]
    if os.path.isdir(pattern):
        rasters = sorted(p.name for p in Path(pattern).iterdir() if p.suffix.lower() in (".tif", ".tiff", ".jp2"))
        example = f", as '{os.path.join(pattern, '*' + Path(rasters[0]).suffix)}'" if rasters else ""
        raise SceneError(f"{pattern} is a folder; give a file, a list of files or a pattern{example}")
    found = sorted(glob.glob(pattern))
    if not found:
        folder = Path(pattern).parent
        why = "no file matches the pattern" if glob.has_magic(pattern) else "no such file"
        raise SceneError(f"{why}: {pattern}" + ("" if folder.exists() else f" (and no folder {folder})"))
    return found


def _is_gdal_name(name: str) -> bool:
    prefix, colon, rest = name.partition(":")
    return bool(colon) and len(prefix) > 1 and rest != "" and not os.path.exists(name) and prefix.isalnum()


def _open_one(path: str) -> RasterSource:
    with gdal_settings(path):
        dataset = open_raster(path)
        _refuse_unusable(dataset, path)
        _refuse_hollow(dataset, path)
        indexes = _data_bands(dataset)
        names = _names(dataset, indexes)
        layers = tuple(_layer(dataset, path, index, name) for index, name in zip(indexes, names, strict=True))
        flags = {flag for index in indexes for flag in dataset.mask_flag_enums[index - 1]}
        masks = (path,) if flags & {MaskFlags.per_dataset, MaskFlags.alpha} and MaskFlags.nodata not in flags else ()
        return RasterSource(_geobox(dataset), layers, masks)


def _refuse_unusable(dataset: "DatasetReader", path: str) -> None:
    if not dataset.count or not dataset.width or not dataset.height:
        parts = dataset.subdatasets
        hint = f"; it holds {len(parts)} subdatasets, give one of them: {parts[0]}" if parts else ""
        raise SceneError(f"{path} holds no pixels of its own{hint}")
    if dataset.count > MOST_BANDS:
        raise SceneError(f"{path} declares {dataset.count} bands; at most {MOST_BANDS} are read")
    for dtype in set(dataset.dtypes):
        if "complex" in dtype or dtype == "cint16":
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
    """Give the numbers of the bands that are not alpha; the alpha band is the mask."""
    alpha = [i for i, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind == ColorInterp.alpha]
    data = [i for i in dataset.indexes if i not in alpha[-1:]]
    return data or list(dataset.indexes)


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
    transform = None if dataset.transform.is_identity else dataset.transform
    crs = dataset.crs.to_wkt() if dataset.crs else None
    return GeoBox(dataset.height, dataset.width, transform, crs or None)


def _names(dataset: "DatasetReader", indexes: Sequence[int]) -> list[str]:
    """Name bands by their descriptions, else red, green and blue by colour interpretation, else by number."""
    described = [(dataset.descriptions[i - 1] or "").strip() for i in indexes]
    if all(described) and len(set(described)) == len(described):
        return described
    coloured = [COLOURS.get(dataset.colorinterp[i - 1], f"band_{i}") for i in indexes]
    return coloured if len(set(coloured)) == len(coloured) else [f"band_{i}" for i in indexes]


def _names_from_files(paths: Sequence[str]) -> list[str]:
    """Name each file's band by what tells its name from the others': `scene_B02.tif`, `scene_B03.tif` give B02, B03."""
    stems = [Path(p).name.split(".")[0] for p in paths]
    words = [stem.replace("-", "_").split("_") for stem in stems]
    if len({len(w) for w in words}) == 1:
        differing = [place for place in range(len(words[0])) if len({w[place] for w in words}) > 1]
        names = ["_".join(w[place] for place in differing) for w in words]
    else:
        names = stems
    if any(n > 1 for n in Counter(names).values()) or not all(names):
        return [f"band_{n + 1}" for n in range(len(paths))]
    return names


def _renamed(layer: RasterBand, name: str) -> RasterBand:
    fields: dict[str, Any] = {field: getattr(layer, field) for field in RasterBand.__dataclass_fields__}
    return RasterBand(**{**fields, "name": name})
