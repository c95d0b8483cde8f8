"""What a STAC Item says of the values of an asset's bands: nodata, scale, offset and unit.

By the raster extension 1 (`raster:bands`), or STAC 1.1 and the raster extension 2 (`bands`, `raster:scale`,
`raster:offset`), for one band, for all of an asset, or for all of the Item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, isnan
from typing import Any

from .array_values import unit_of
from .raster import RasterBand

APPLIED = "earthsearch:boa_offset_applied"  # the offset that assets name has been added to their values already


@dataclass(frozen=True, slots=True)
class BandFacts:
    """What an Item says of a band's values; None: nothing."""

    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    unit: str = ""


def band_facts(properties: Mapping[str, Any], asset: Mapping[str, Any]) -> tuple[BandFacts, ...]:
    """Return what an Item's properties and an asset's fields say of each band; the last is for all that follow.

    What makes no sense is passed over.
    """
    listed = [value if isinstance(value, list) else [] for value in (asset.get("raster:bands"), asset.get("bands"))]
    found = []
    for number in range(max(map(len, listed)) + 1):
        entries = [one[number] for one in listed if number < len(one) and isinstance(one[number], Mapping)]
        named = [entry["name"] for entry in entries if isinstance(entry.get("name"), str)]
        fields = {**_shared(properties, named), **_told(asset)}
        for entry in entries:
            fields |= _told(entry)
        found.append(_facts(fields, applied=properties.get(APPLIED) is True))
    return tuple(found) if any(fact != BandFacts() for fact in found) else ()


def _shared(properties: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return what the Item says of all bands, and of those of these names."""
    fields, bands = _told(properties), properties.get("bands")
    for entry in bands if isinstance(bands, list) else []:
        if isinstance(entry, Mapping) and entry.get("name") in names:
            fields |= _told(entry)
    return fields


def _told(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of either version of the extension, under the names of the first."""
    names = {"nodata": "nodata", "unit": "unit", "scale": "scale", "offset": "offset"}
    names |= {"raster:scale": "scale", "raster:offset": "offset"}
    return {name: fields[key] for key, name in names.items() if fields.get(key) is not None}


def _facts(fields: Mapping[str, Any], *, applied: bool) -> BandFacts:
    scale, offset = _number(fields.get("scale")), _number(fields.get("offset"))
    return BandFacts(
        _number(fields.get("nodata")),
        scale if scale and isfinite(scale) else None,
        0.0 if applied and offset is not None else offset if offset is not None and isfinite(offset) else None,
        unit_of(fields),
    )


def _number(value: Any) -> float | None:
    """Return a number, also one of the texts that JSON has no numbers for: nan, inf, -inf."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def with_facts(band: RasterBand, facts: Sequence[BandFacts]) -> tuple[RasterBand, tuple[str, ...]]:
    """Give a band what its Item says and its file does not; what the file says counts, and a note tells of the other.

    A file's tags are written with its pixels, an Item often from a template. Codes have no scale.
    """
    if not facts:
        return band, ()
    fact = facts[min(band.index, len(facts)) - 1]
    notes = []
    if band.nodata is None:
        band = replace(band, nodata=fact.nodata)
    elif fact.nodata is not None and not _same(band.nodata, fact.nodata):
        notes.append(
            f"nodata of {band.names[0]} is {band.nodata:g} by its file, which counts, and {fact.nodata:g} by its Item"
        )
    told, own = (fact.scale or 1.0, fact.offset or 0.0), (band.scale, band.offset)
    if own == (1.0, 0.0) and not band.codes:
        band = replace(band, scale=told[0], offset=told[1], unit=band.unit or fact.unit)
    elif told not in ((1.0, 0.0), own) and not band.codes:
        notes.append(
            f"scale and offset of {band.names[0]} are {own[0]:g} and {own[1]:g} by its file, which count, and "
            f"{told[0]:g} and {told[1]:g} by its Item"
        )
    return band, tuple(notes)


def _same(one: float, other: float) -> bool:
    return one == other or (isnan(one) and isnan(other))
