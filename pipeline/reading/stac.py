"""A STAC Item as a scene: the bands that its assets hold, by name. Opens files for their facts, reads no pixels.

Items of STAC 1.0 and 1.1 (stacspec.org), with their `bands`, or the `eo:bands` of the extension for electro-optical
imagery. A band answers to its common name, to its own name, and, where it is the asset's only one, to the asset's key.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import fsspec

from models.errors import SceneError

from .handles import fsspec_options, is_remote, printable
from .names import LONGEST_NAME
from .rasters import check_same_grid, open_rasters
from .source import RasterBand, RasterSource

if TYPE_CHECKING:
    import pystac

ENDINGS = (".json", ".geojson")
RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg")
MEDIA = ("image/tiff", "image/jp2", "image/png", "image/jpeg", "image/vnd.stac.geotiff")
ROLES = {"data", "reflectance"}  # what holds measured values; without any, whatever is not one of the others
OTHER_ROLES = {"thumbnail", "overview", "visual", "metadata", "cloud", "cloud-shadow", "snow-ice", "water-mask",
               "saturation", "data-mask"}  # fmt: skip
MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class ItemBand:
    """One band of one asset: where it lies, counted from 1, and the names that it answers to, the best first."""

    href: str
    index: int
    names: tuple[str, ...]


def is_item(path: str) -> bool:
    """Whether a path or URL may be a STAC Item's, by its ending."""
    return path.partition("?")[0].lower().endswith(ENDINGS)


def open_item(path: str, bands: Sequence[str | int] | None = None) -> RasterSource:
    """Open a STAC Item.

    Parameters
    ----------
    path
        Of its JSON, or its URL. Relative addresses in it are relative to it.
    bands
        Names or numbers of bands, whose files alone are opened then. None: all that lie on the finest grid; a note
        names the others. Where several assets hold a band of one name, as a GeoTIFF and a JPEG 2000 of it, the first.

    Raises
    ------
    SceneError
        No STAC Item; no such bands; files that cannot be opened, or lie on different grids.
    """
    found = _bands(_item(path), path)
    if bands is None:
        return _on_finest_grid(_first_of_each_name(found))
    wanted = [bands] if isinstance(bands, str | int) else bands
    return _joined([_layer(_find(found, band, path)) for band in wanted])


def _item(path: str) -> "pystac.Item":
    import pystac  # here, for the tenth of a second that it takes

    place = path if is_remote(path) else os.path.abspath(os.path.expanduser(path.removeprefix("file://")))
    try:
        with fsspec.open(place, "rb", **fsspec_options(place)) as file:
            content = json.load(file)
        return pystac.Item.from_dict(content, href=place)
    except FileNotFoundError as error:
        raise SceneError(f"no such file: {printable(path)}") from error
    except ValueError as error:
        raise SceneError(f"{printable(path)} is not JSON: {printable(str(error))[:100]}") from error
    except (pystac.STACError, pystac.STACTypeError, KeyError, TypeError, AttributeError) as error:
        raise SceneError(
            f"{printable(path)} is JSON, but no STAC Item; give an Item, or the files themselves"
        ) from error
    except Exception as error:  # each kind of server has its own errors
        raise SceneError(f"{printable(path)} cannot be read: {printable(str(error))[:200]}") from error


def _bands(item: "pystac.Item", path: str) -> list[ItemBand]:
    """Give all bands of the assets that hold measured values."""
    rasters = {key: asset for key, asset in item.assets.items() if _is_raster(asset)}
    measured = {key: asset for key, asset in rasters.items() if ROLES & set(asset.roles or ())}
    others = {key: asset for key, asset in rasters.items() if not OTHER_ROLES & set(asset.roles or ())}
    found = [band for key, asset in (measured or others).items() for band in _asset_bands(key, asset)]
    if not found:
        keys = ", ".join(printable(key)[:LONGEST_NAME] for key in list(item.assets)[:MOST_SHOWN])
        raise SceneError(
            f"{printable(path)} has no asset that is a raster of measured values; it has: {keys or 'none'}"
        )
    return found


def _is_raster(asset: "pystac.Asset") -> bool:
    if asset.media_type:
        return asset.media_type.partition(";")[0].strip().lower() in MEDIA
    return asset.href.partition("?")[0].lower().endswith(RASTERS)


def _asset_bands(key: str, asset: "pystac.Asset") -> list[ItemBand]:
    href = asset.get_absolute_href() or asset.href
    told = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or [{}]
    return [ItemBand(href, number, _names(key, band, number, len(told))) for number, band in enumerate(told, 1)]


def _names(key: str, band: Any, number: int, count: int) -> tuple[str, ...]:
    told = band if isinstance(band, dict) else {}
    common = told.get("eo:common_name") or told.get("common_name")
    own = key if count == 1 else f"{key}_{number}"
    names = [printable(str(name))[:LONGEST_NAME] for name in (common, told.get("name"), own) if name]
    return tuple(dict.fromkeys(names))


def _first_of_each_name(found: Sequence[ItemBand]) -> list[ItemBand]:
    """Leave out bands that are there already under one of their names, from an asset before."""
    taken: set[str] = set()
    first = []
    for band in found:
        if band.names[0] not in taken:
            taken.add(band.names[0])
            first.append(band)
    return first


def _find(found: Sequence[ItemBand], band: str | int, path: str) -> ItemBand:
    if isinstance(band, str):
        for fold in (str, str.lower):  # exact first: B8a and B8A may be two bands
            for place in range(max(len(one.names) for one in found)):  # common names before others
                named = [one for one in found if fold(band) in map(fold, one.names[place : place + 1])]
                if named:
                    return replace(named[0], names=(band, *named[0].names))
    if str(band).isdecimal() and 1 <= int(band) <= len(found):
        return found[int(band) - 1]
    shown = ", ".join(one.names[0] for one in _first_of_each_name(found)[:MOST_SHOWN])
    raise SceneError(f"{printable(path)} has no band {band!r}; it has: {shown}")


def _layer(band: ItemBand) -> RasterSource:
    """Open the file of a band, and take that band alone."""
    source = open_rasters([band.href])
    if band.index > len(source.layers):
        raise SceneError(f"{band.href} has {len(source.layers)} bands; its Item speaks of band {band.index}")
    layer = replace(source.layers[band.index - 1], name=band.names[0], also=band.names[1:])
    return replace(source, layers=(layer,))


def _on_finest_grid(bands: Sequence[ItemBand]) -> RasterSource:
    opened = [_layer(band) for band in bands]
    finest = max(opened, key=lambda source: source.geobox.height * source.geobox.width)
    kept = [source for source in opened if source.geobox.same_grid(finest.geobox)]
    left = [source.bands[0] for source in opened if not source.geobox.same_grid(finest.geobox)]
    joined = _joined(kept)
    if not left:
        return joined
    return replace(joined, notes=(*joined.notes, f"left out, for they lie on other grids: {', '.join(left)}"))


def _joined(sources: Sequence[RasterSource]) -> RasterSource:
    """Put bands of one grid into one source."""
    if not sources:
        raise SceneError("no bands asked for")
    for source in sources:
        check_same_grid(source.layers[0].path, source, sources[0].layers[0].path, sources[0])
    layers: list[RasterBand] = [layer for source in sources for layer in source.layers]
    masks = dict.fromkeys(mask for source in sources for mask in source.masks)
    notes = dict.fromkeys(note for source in sources for note in source.notes)
    return RasterSource(sources[0].geobox, tuple(layers), tuple(masks), tuple(notes))
