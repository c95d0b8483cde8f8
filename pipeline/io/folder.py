"""Scenes of several raster files: of one band each, or tiles side by side; as a list, a folder, an archive, an index.

What files are is told from what they hold: single bands that lie on each other are bands of a scene, rasters that lie
beside each other its tiles. Anything else in a folder is refused, with what was found.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from models.errors import SceneError, SeveralScenesError

from .alpha import NO_MASK
from .gdal import is_remote, open_raster, printable, run_with_env
from .listing import Listing
from .places import reach
from .products import product_of_files
from .raster import SIDECARS, RasterSource
from .raster_files import join_files, open_rasters
from .tiled import TiledSource, join_tiles, lie_apart

RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg")
INDEXES = (".gti.gpkg", ".gti.fgb", ".gpkg", ".fgb", ".shp", ".geojson", ".parquet")  # vector files of tiles' outlines
LOCATION = "location"  # the field of such a file that names a tile
BESIDE = (*SIDECARS, ".msk", ".xml", ".json", ".md", ".html", ".csv", ".pdf")
DATE = re.compile(r"(?<!\d)(?:19|20)\d\d[-_]?(?:0[1-9]|1[0-2])[-_]?(?:0[1-9]|[12]\d|3[01])(?!\d)")
SHOWN = 4


def open_files(paths: Sequence[str], *, alpha: bool | None = None) -> RasterSource | TiledSource:
    """Open one raster, several of one band each, the band files of a product, or tiles side by side.

    Raises
    ------
    SceneError
        A file cannot be read; they are neither.
    """
    if not paths:
        raise SceneError("no files given")
    if (product := product_of_files(paths)) is not None:
        return product.open([file.names[0] for file in product.files])
    return _assemble(paths, [open_rasters([path], alpha=alpha) for path in paths], alpha)


def _assemble(paths: Sequence[str], sources: Sequence[RasterSource], alpha: bool | None) -> RasterSource | TiledSource:
    if alpha is None and len({len(source.bands) for source in sources}) > 1:  # alpha of one that is a band in another
        # all 0 may be near infrared of water, or alpha of a tile beside the scene: other tiles tell
        masks = not any(NO_MASK in source.refuted_alpha for source in sources)
        again = [open_rasters([path], alpha=masks) for path in paths]
        if len({source.bands for source in again}) == 1:
            said = (
                "masks in all files, as they look in some; --alpha no" if masks else "bands in all files; --alpha yes"
            )
            note = f"bands tagged as alpha are {said} decides otherwise"
            sources = [replace(source, file_notes=(*source.file_notes, note)) for source in again]
    counts = [len(source.bands) for source in sources]
    if len(sources) == 1:
        return sources[0]
    apart = lie_apart(sources)
    if set(counts) == {1} and not apart:
        return join_files(paths, sources)
    other = next((place for place, count in enumerate(counts) if count != counts[0]), None)
    if other is not None or not apart:
        place = next(place for place, count in enumerate(counts) if count != 1)
        raise SeveralScenesError(
            f"{paths[place]} holds {counts[place]} bands; several files must hold one band each, or be tiles"
        )
    return join_tiles(sources)


def open_folder(listing: Listing, *, alpha: bool | None = None) -> RasterSource | TiledSource:
    """Open the rasters of a folder or archive as one scene.

    Raises
    ------
    SceneError
        There are none, or they are no one scene.
    """
    names = _rasters(listing)
    index = [name for name in names if name.lower().endswith(".vrt")] or _indexes(listing, names)
    if len(index) > 1:
        raise SceneError(f"{listing.path} holds several indexes of tiles: {_listed(index)}; give one of them")
    if index:
        return _open_index(listing.place(index[0]), alpha)
    if not names:
        raise SceneError(_nothing(listing))
    paths = [listing.place(name) for name in names]
    sources = [open_rasters([path], alpha=alpha) for path in paths]
    _refuse_dates(listing, names, sources)
    try:
        return _assemble(paths, sources, alpha)
    except SceneError as error:
        kinds: dict[str, list[str]] = {}
        for name, source in zip(names, sources, strict=True):
            kind = f"{len(source.bands)} x {source.dtype}, {source.geobox.height} x {source.geobox.width} pixels"
            kinds.setdefault(kind, []).append(name)
        found = "; ".join(f"{len(of_kind)} of {kind} ({_listed(of_kind)})" for kind, of_kind in kinds.items())
        if len(kinds) == 1:
            raise
        reason = str(error).partition("\n")[0]
    raise SeveralScenesError(
        f"{listing.path} is not one scene: {found[:600]}.\nName the files of one, or a pattern ({reason})"
    )


def _rasters(listing: Listing) -> list[str]:
    """Return the rasters on top, else of the one folder that has any, else the one file that there is."""
    kept = [name for name in listing.names if not name.lower().endswith(BESIDE)]
    rasters = [name for name in kept if name.lower().endswith(RASTERS)]
    folders = sorted({str(PurePosixPath(name).parent) for name in rasters})
    if "." in folders:
        return [name for name in rasters if "/" not in name]
    if len(folders) > 1:
        raise SeveralScenesError(
            f"{listing.path} has rasters in {len(folders)} folders: {_listed(folders)}; give one of them"
        )
    return rasters or (kept if len(kept) == 1 else [])


def _indexes(listing: Listing, rasters: Sequence[str]) -> list[str]:
    """Return the vector files beside rasters that name tiles."""
    if not os.path.isdir(listing.path):
        return []
    vectors = [name for name in listing.names if "/" not in name and name.lower().endswith(INDEXES)]
    if explicit := [name for name in vectors if ".gti." in name.lower()]:
        return explicit
    return [name for name in vectors if rasters and locations_of(listing.place(name)) is not None]


def _nothing(listing: Listing) -> str:
    if not listing.names:
        return f"{listing.path} is empty"
    return f"{listing.path} holds no rasters; it holds {len(listing.names)} files: {_listed(list(listing.names))}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(printable(name)[:60] for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _refuse_dates(listing: Listing, names: Sequence[str], sources: Sequence[RasterSource]) -> None:
    """Refuse bands of several days, which only look like a scene of many bands."""
    dates = {tuple(re.sub(r"\D", "", date) for date in DATE.findall(name)) for name in names}
    if len(dates) > 1 and all(dates) and not lie_apart(sources):
        shown = _listed(sorted({date for several in dates for date in several}))
        raise SeveralScenesError(
            f"{listing.path} holds files of several dates: {shown}; name those of one, or a pattern"
        )


# --- indexes of tiles -------------------------------------------------------------------------------------------------


def index_of(name: str) -> str | None:
    """Return the vector file that GDAL's name of a tile index leads to, None where it names something else."""
    path = name.removeprefix("GTI:")
    if path == name and not path.lower().endswith((".gti.gpkg", ".gti.fgb")):
        return None
    return path if path.lower().endswith(INDEXES) and not is_remote(path) and os.path.isfile(path) else None


def open_index(path: str, *, alpha: bool | None = None) -> RasterSource | TiledSource:
    """Open the tiles that a vector file names in its field `location`, which may be relative to it.

    Raises
    ------
    SceneError
        It names none, or one that is not there; they are no one scene.
    """
    locations = locations_of(path)
    if not locations:
        raise SceneError(f"{path} names no tiles: an index of tiles has them in its field {LOCATION!r}")
    folder = os.path.dirname(os.path.abspath(path))
    tiles = []
    for location in locations:
        near = os.path.join(folder, location)
        tiles.append(near if os.path.isfile(near) else location)
        reach(tiles[-1], path)
    return open_files(tiles, alpha=alpha)


def _open_index(path: str, alpha: bool | None) -> RasterSource | TiledSource:
    """Open a virtual raster's files as tiles where they are what it shows, else itself; or a vector file's tiles."""
    if not path.lower().endswith(".vrt"):
        return open_index(path, alpha=alpha)
    whole = open_rasters([path], alpha=alpha)
    files: list[str] = run_with_env(path, lambda: list(open_raster(path).files))
    parts = [name for name in files if name != path and not name.lower().endswith(BESIDE)]
    if len(parts) < 2:
        return whole
    tiles = open_files(parts, alpha=alpha)
    same = tiles.geobox.same_grid(whole.geobox) and len(tiles.bands) == len(whole.bands)
    return tiles if same else whole


def locations_of(path: str) -> list[str] | None:
    """Return the tiles that a vector file names; None where it has no such field or cannot be read."""
    import pyogrio

    try:
        fields = pyogrio.raw.read(path, columns=[LOCATION], read_geometry=False)
    except Exception:  # whatever is wrong with a file that may be none
        return None
    columns: list[Any] = list(fields[0]["fields"])
    return [str(value) for value in fields[3][columns.index(LOCATION)]] if LOCATION in columns else None
