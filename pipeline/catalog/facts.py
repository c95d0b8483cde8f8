"""One scene opened for its facts, in a task: what reads it, where it lies, when it was acquired, what it holds."""

import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import hypot

from models.errors import SceneError

from ..grid.geobox import GeoBox
from ..io.array import ArraySource
from ..io.folder import DATE
from ..io.gdal import file_stamp
from ..io.listing import Listing
from ..io.places import allowing
from ..io.products import listing_of, product_of
from ..io.raster import RasterSource
from ..io.raster_files import join, join_files, open_rasters
from ..io.scene import open_source
from ..io.stac import open_item
from ..io.tiled import TiledSource, lie_apart
from .dates import Acquired, of_files, of_product, of_properties
from .footprint import bbox_of, footprint_of
from .found import FoundScene, stem
from .records import encode_source
from .stac_table import EARLIEST, Row, names_by_file
from .stamps import Stamps, digest_of, identity_of, stamps_of

CODES = ("SCL", "QA_PIXEL")  # classes of pixels, which a mosaic may mask by
Opener = Callable[[Sequence[str]], RasterSource]


@dataclass(frozen=True, slots=True)
class Facts:
    """What came of opening a scene: rows; or that it is as it was; or why it, or a part of it, is refused."""

    key: str
    rows: tuple[Row, ...] = ()
    unchanged: bool = False
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """How scenes are opened: alpha, see `open_scene`; and where they may lead, see `allowing`."""

    alpha: bool | None
    places: tuple[str, ...]


def read_batch(how: Reading, batch: Sequence[tuple[FoundScene, tuple[str, ...]]]) -> list[Facts]:
    """Read the facts of some scenes, each with the stamps that it has in an index that is there."""
    with allowing(how.places):
        return [_facts(scene, stamps, how.alpha) for scene, stamps in batch]


def _facts(scene: FoundScene, stamps: Sequence[str], alpha: bool | None) -> Facts:
    if stamps and all(Stamps.read(text).hold(scene.digest, scene.named) for text in stamps):
        return Facts(scene.key, unchanged=True)
    try:
        return _bands(scene, alpha) if scene.kind == "bands" else Facts(scene.key, tuple(_rows(scene, alpha)))
    except SceneError as error:
        return Facts(scene.key, refused=(_reason(scene, error),))


def _reason(scene: FoundScene, error: SceneError) -> str:
    text = str(error).partition("\n")[0]
    return text if any(path in text for path in (*scene.paths, scene.key)) else f"{scene.key}: {text}"


def _rows(scene: FoundScene, alpha: bool | None) -> list[Row]:
    if scene.kind == "item":
        content = json.loads(scene.item)
        acquired = of_properties(content["properties"], content["collection"] or "")
        named = [name for name in CODES if f'"{name.lower()}"' in scene.item.lower()]
        source = _with_codes(open_item(content, alpha=alpha), lambda names: open_item(content, names), named)
        return [_row(scene, scene.id, source, acquired)]
    if scene.kind == "product":
        listing = Listing(scene.folder, scene.paths, scene.folder)
        product = product_of(listing)
        if product is None:
            raise SceneError(f"{scene.key} has no band that was measured")
        source = _with_codes(product.open(), product.open)
        return [_row(scene, scene.id, source, of_product(scene.folder, scene.id, listing))]
    (path,) = scene.paths
    if path.lower().endswith((".safe", ".zip", ".tar", ".xml", ".txt", ".json")):
        return _product(scene, path, alpha)
    return [_row(scene, scene.id, open_rasters([path], alpha=alpha), of_files(path, path))]


def _product(scene: FoundScene, path: str, alpha: bool | None) -> list[Row]:
    listing = listing_of(path)
    product = None if listing is None else product_of(listing)
    if product is not None:
        source = _with_codes(product.open(), product.open)
        return [_row(scene, scene.id.removesuffix("_MTL"), source, of_product(path, scene.id, listing))]
    opened = open_source(path, alpha=alpha)
    if isinstance(opened, ArraySource):
        raise SceneError(f"{path} is an array file, which an index does not hold")
    if isinstance(opened, TiledSource):
        return [_row(scene, stem(tile.paths[0]), tile, of_files(tile.paths[0], path)) for _, tile in opened.tiles]
    assert isinstance(opened, RasterSource)
    return [_row(scene, scene.id, opened, of_files(opened.paths[0], path))]


def _bands(scene: FoundScene, alpha: bool | None) -> Facts:
    """Take files as bands of one scene where they are of one band each, of one place and day; else each as a scene."""
    opened, errors = dict[str, RasterSource](), dict[str, SceneError]()
    for path in scene.paths:
        try:
            opened[path] = open_rasters([path], alpha=alpha)
        except SceneError as error:
            errors[path] = error
    sources = list(opened.values())
    days = {tuple(DATE.findall(os.path.basename(path))) for path in scene.paths}
    if all(len(source.raster_bands) == 1 for source in sources) and len(days) == 1 and not lie_apart(sources):
        if errors:
            raise next(iter(errors.values()))
        with suppress(SceneError):  # they are of several places, or CRSs
            joined = join_files(scene.paths, sources)
            note = f"{len(sources)} files of one band each are the scene {scene.id}: {', '.join(joined.bands[:8])}"
            acquired = of_files(scene.paths[0], scene.paths[0])
            return Facts(scene.key, (_row(scene, scene.id, joined, acquired),), notes=(note,))
    refused = [_reason(scene, error) for error in errors.values()]
    rows = list[Row]()
    for path, source in opened.items():
        try:
            rows.append(_row(scene, stem(path), source, of_files(path, path)))
        except SceneError as error:
            refused.append(_reason(scene, error))
    note = f"the {len(scene.paths)} files of {scene.key} are a scene each"
    return Facts(scene.key, tuple(rows), refused=tuple(refused), notes=(note,))


def _with_codes(source: RasterSource, opened: Opener, names: Sequence[str] = CODES) -> RasterSource:
    """Add the bands of classes that come with a scene, of names that it may have, as the last of it."""
    known = {name.upper() for band in source.raster_bands for name in band.names}
    for name in names:
        if name not in known:
            try:
                codes = opened([name])
                source = replace(join([source, codes]), platform=source.platform, resampling=source.resampling)
            except SceneError:  # there is none
                continue
    return source


def _row(scene: FoundScene, name: str, source: RasterSource, acquired: Acquired) -> Row:
    grid = source.geobox
    _refuse_unplaced(source, grid)
    footprint = footprint_of(grid)
    files = [identity_of(path) for path in source.paths]
    stamps = Stamps(stamps_of(source.paths), [each for each in files if "url" in each], scene.digest, scene.described)
    return Row(
        id=name,
        wkb=footprint.wkb,
        bbox=bbox_of(footprint),
        datetime=acquired.datetime,
        start=EARLIEST,
        end=_written(stamps),
        cloud_cover=acquired.cloud_cover,
        source=encode_source(source, shared_crs=True),
        crs=grid.crs or "",
        resolution=(hypot(grid.affine.a, grid.affine.d), hypot(grid.affine.b, grid.affine.e)),
        bands=names_by_file(source),
        digest=digest_of(source, files),
        stamps=stamps.text(),
        key=scene.key,
        platform=acquired.platform,
        collection=acquired.collection,
    )


def _refuse_unplaced(source: RasterSource, grid: GeoBox) -> None:
    if not grid.georeferenced:
        what = "transform" if grid.transform is None else "CRS"
        raise SceneError(
            f"{source.paths[0]} has no {what}, so that nobody knows where it lies; give it one first, as with "
            "gdal_edit.py or gdalwarp"
        )


def _written(stamps: Stamps) -> str:
    """Return when the last of the local files was written, else now: a scene was acquired before."""
    times = [facts[0][1] for name, *_ in stamps.files for facts in [file_stamp(name)] if facts[0]]
    moment = datetime.fromtimestamp(max(times) / 1e9, UTC) if times else datetime.now(UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def describe_kinds(rows: Sequence[Row]) -> list[str]:
    """Say where scenes differ in what a mosaic takes of them: bands, type, meaning of values."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        kinds.setdefault((row.bands, *_values(row.source)), []).append(row.id)
    if len(kinds) < 2:
        return []
    shown = [
        f"{len(ids):,} of {bands.replace('|', ',')[:60]} as {dtypes}, scale {scales}, offset {offsets} (as {ids[0]})"
        for (bands, dtypes, scales, offsets), ids in [*kinds.items()][:4]
    ]
    return [f"scenes differ: {'; '.join(shown)}; a mosaic is of those that have the bands it is asked for"]


def _values(source: str) -> tuple[str, ...]:
    """Return the types, scales and offsets of the bands of a source that is JSON."""
    patterns = (r'"dtype":"(\w+)"', r'"scale":([^,}]+)', r'"offset":([^,}]+)')
    return tuple(", ".join(sorted(set(re.findall(pattern, source)))) for pattern in patterns)
