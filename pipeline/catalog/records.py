"""A raster source as a line of JSON and back, so that an index holds all that reading a scene takes."""

import base64
import json
from dataclasses import fields
from typing import Any

from affine import Affine

from models.limits import parse_json

from ..grid.geobox import GeoBox
from ..io.palette import Palette
from ..io.raster import RasterBand, RasterMask, RasterSource

PARTS = {"raster_bands": RasterBand, "masks": RasterMask}
ABSENT: tuple[Any, ...] = (None, (), "", b"")
SHARED = '"crs":"@"'  # stands for the CRS of a scene, of which an index has a column


def encode_source(source: RasterSource, *, shared_crs: bool = False) -> str:
    """Return all facts of a source as JSON; what is empty is left out.

    Parameters
    ----------
    source
        The source.
    shared_crs
        Leave out the WKT of its CRS, which `decode_source` must be given then.
    """
    text = json.dumps(_plain(source), separators=(",", ":"))
    return text.replace(_crs_of(source.geobox.crs), SHARED) if shared_crs and source.geobox.crs else text


def with_crs(text: str, crs: str | None) -> str:
    """Return JSON of a source with its CRS written out."""
    return text.replace(SHARED, _crs_of(crs)) if crs else text


def decode_source(text: str, crs: str | None = None) -> RasterSource:
    """Return the source that `encode_source` wrote down, given its CRS as WKT where that was left out."""
    values = parse_json(with_crs(text, crs))
    bands, masks = ([_part(kind, one) for one in values.pop(name, ())] for name, kind in PARTS.items())
    grid, palette = _geobox(values.pop("geobox")), values.pop("palette", None)
    rest = {name: _tuples(value) for name, value in values.items()}
    shown = palette and Palette(_bytes_of(palette["colors"]), base64.b64decode(palette["seen"]))
    return RasterSource(grid, tuple(bands), tuple(masks), palette=shown, **rest)


def _crs_of(crs: str | None) -> str:
    return f'"crs":{json.dumps(crs)}'


def _plain(value: Any) -> Any:
    if isinstance(value, Affine):
        return list(value)[:6]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: _plain(one) for name, one in held.items() if one not in ABSENT}
    return value


def _part(kind: type[Any], values: dict[str, Any]) -> Any:
    grid, table = values.pop("geobox", None), values.pop("table", "")
    rest = {name: _tuples(value) for name, value in values.items()}
    return kind(**rest, geobox=grid and _geobox(grid), table=base64.b64decode(table))


def _geobox(values: dict[str, Any]) -> GeoBox:
    transform = values.get("transform")
    return GeoBox(values["height"], values["width"], transform and Affine(*transform), values.get("crs"))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def _bytes_of(texts: list[str]) -> tuple[bytes, bytes, bytes]:
    red, green, blue = (base64.b64decode(text) for text in texts)
    return red, green, blue
