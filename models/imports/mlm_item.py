"""STAC Items of the Machine Learning Model extension, 1.0 to 1.5, as other programs write them, and their weights.

The fields are read as they are: pystac's extension knows 1.4 on, and neither the addresses nor the scaling of those
before. Source: github.com/stac-extensions/mlm, README and json-schema of the tags v1.0.0 to v1.5.2.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..limits import MOST_BANDS
from ..metadata import MOST_CLASSES
from ..mlm import from_item
from ..redact import printable, redact_url
from .found import Found, Kept
from .item_scaling import scaling_of
from .own import settings_of
from .parts import KINDS, UNUSABLE, bundle_name, class_tables, description_of, file_in, names_of, number, read_table

SEGMENTS = {"semantic-segmentation", "segmentation"}
MODEL_ROLES = ("mlm:weights", "mlm:checkpoint", "mlm:model")
BANDS_FIELDS = ("bands", "raster:bands", "eo:bands")
CHANNELS = ("bands", "band", "channel", "channels", "class", "classes")
SHA256 = "1220"  # what a multihash of SHA-256 begins with
UNITS = ("reflectance", "radiance", "dB", "K")
LARGEST_PATCH = 65_536
SMP = "segmentation_models_pytorch."


def read_mlm_item(path: Path) -> Found | None:
    """Read what a STAC Item tells of a model; None: it is no such thing.

    Raises
    ------
    BundleError
        It describes no segmentation, is hostile, or names a file that lies elsewhere or is another one.
    """
    if not path.is_file():
        return None
    item = read_table(path)
    properties = None if item is None else item.get("properties")
    if (
        item is None
        or not isinstance(properties, Mapping)
        or not any(str(key).startswith("mlm:") for key in properties)
    ):
        return None
    try:
        return _found(path, item, properties)
    except UNUSABLE as error:
        raise BundleError(f"{path} is a STAC Item of a model with a field that cannot be used: {error}") from error


def _found(path: Path, item: Mapping[str, Any], properties: Mapping[str, Any]) -> Found:
    tasks = {str(task) for task in properties.get("mlm:tasks") or []}
    if tasks and not tasks & SEGMENTS:
        raise BundleError(f"{path} describes a network for {printable(', '.join(sorted(tasks)))[:100]}; "
                          "Swathe runs those of semantic-segmentation")  # fmt: skip
    weights, notes = _weights(path.parent, item, str(path))
    kept: Kept = "item" if weights is None else KINDS.get(weights.suffix.lower(), "state")
    if "swathe:activation" in properties:
        return _own(path, item, kept, weights, notes)
    taken, given = _one(properties, "mlm:input", path), _one(properties, "mlm:output", path)
    facts: dict[str, Any] = {"name": bundle_name(properties.get("mlm:name") or item.get("id"))}
    sources = {"name": "mlm:name"}
    for more, where in (_input(taken, item, properties, notes), _output(given, notes), _words(properties)):
        facts |= more
        sources |= where
    inputs = _channels(taken.get("input"))
    return Found("a STAC Item of a model", kept, weights or path, facts, sources, tuple(notes),
                 inputs or len(facts.get("bands", [])) or None, _channels(given.get("result")))  # fmt: skip


def _own(path: Path, item: Mapping[str, Any], kept: Kept, weights: Path | None, notes: list[str]) -> Found:
    """Return all that an Item tells which Swathe wrote."""
    facts = settings_of(from_item(item))
    return Found("a STAC Item of a bundle of Swathe", kept, weights or path, facts, dict.fromkeys(facts, "the Item"),
                 tuple(notes), len(facts["bands"]), len(facts["classes"]))  # fmt: skip


def _one(properties: Mapping[str, Any], field: str, path: Path) -> Mapping[str, Any]:
    entries = properties.get(field) or []
    if not isinstance(entries, Sequence) or len(entries) != 1 or not isinstance(entries[0], Mapping):
        count = len(entries) if isinstance(entries, Sequence) else 0
        raise BundleError(
            f"{path} describes a network of {count} in {field}; Swathe runs those of one, the pixels or classes"
        )
    return entries[0]


def _words(properties: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return architecture, options, description and origin."""
    facts: dict[str, Any] = {}
    named = str(properties.get("mlm:architecture", ""))
    if named.startswith(SMP):
        facts["architecture"] = f"smp:{printable(named.rpartition('.')[2])[:100]}"
    if description := description_of(properties.get("description")):
        facts["description"] = description
    origin = {"architecture": named, "framework": properties.get("mlm:framework"),
              "pretrained source": properties.get("mlm:pretrained_source"),
              "licence": properties.get("license")}  # fmt: skip
    facts["provenance"] = {
        key: printable(value)[:200] for key, value in origin.items() if isinstance(value, str) and value
    }
    return facts, dict.fromkeys(facts, "properties of the Item")


def _input(taken: Mapping[str, Any], item: Mapping[str, Any], properties: Mapping[str, Any],
           notes: list[str]) -> tuple[dict[str, Any], dict[str, str]]:  # fmt: skip
    facts: dict[str, Any] = {}
    said = [entry.get("name") if isinstance(entry, Mapping) else entry for entry in taken.get("bands") or []]
    names, described = names_of(said), _described(item, properties)
    entries = [described.get(name, {}) for name in names]
    if any(isinstance(entry, Mapping) and entry.get("expression") for entry in taken.get("bands") or []):
        notes.append("a band of its input is computed from others: give scenes that have it as a band")
    shown = [_band_name(name, entry) for name, entry in zip(names, entries, strict=True)]
    shown = shown if len(set(shown)) == len(shown) else names
    if len(set(shown)) < len(shown):
        notes.append(f"bands named twice ({', '.join(shown[:8])}): give each a name of its own, in that order")
    elif shown:
        facts["bands"] = shown
    types = {printable(str(entry["data_type"])) for entry in entries if entry.get("data_type")}
    if len(types) == 1:  # that of the input itself is of scaled pixels
        facts["dtype"] = types.pop()
    count = len(names) or _channels(taken.get("input")) or 1
    if scaling := scaling_of(taken, count, notes):
        facts["scaling"] = scaling
    if radiometry := _radiometry(entries):
        facts["radiometry"] = radiometry
    if side := _side(taken["input"]):
        facts["patch"] = side
    if resolution := _resolution(entries, properties):
        facts["resolution"] = resolution
    return facts, dict.fromkeys(facts, "mlm:input and its bands")


def _described(item: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what the Item and its assets say of each band."""
    assets = item.get("assets")
    places = [properties, *(assets.values() if isinstance(assets, Mapping) else ())]
    found: dict[str, dict[str, Any]] = {}
    for place in places[:MOST_BANDS]:
        for field in BANDS_FIELDS:
            for entry in (place.get(field) or [])[:MOST_BANDS] if isinstance(place, Mapping) else []:
                if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
                    found.setdefault(entry["name"], {}).update(entry)
    return dict(found)


def _band_name(name: str, entry: Mapping[str, Any]) -> str:
    common = entry.get("common_name") or entry.get("eo:common_name")
    return printable(common) if isinstance(common, str) and common else name


def _radiometry(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Return what raw values mean, where every band says its scale."""
    scales = [entry.get("raster:scale", entry.get("scale")) for entry in entries]
    if not entries or any(scale is None for scale in scales):
        return None
    offsets = [entry.get("raster:offset", entry.get("offset")) or 0 for entry in entries]
    units = [entry.get("unit") if entry.get("unit") in UNITS else "" for entry in entries]
    return [{"scale": number(scale), "offset": number(offset), "unit": unit}
            for scale, offset, unit in zip(scales, offsets, units, strict=True)]  # fmt: skip


def _resolution(entries: Sequence[Mapping[str, Any]], properties: Mapping[str, Any]) -> float | None:
    """Return metres per pixel: the Item's, or that which all bands have."""
    said = {number(value) for entry in entries if (value := entry.get("gsd") or entry.get("spatial_resolution"))}
    if properties.get("gsd"):
        said = {number(properties["gsd"])}
    return said.pop() if len(said) == 1 and min(said) > 0 else None


def _side(array: Mapping[str, Any]) -> int | None:
    sides = [size for name, size in zip(array["dim_order"], array["shape"], strict=False)
             if name in ("height", "width", "h", "w", "x", "y") and isinstance(size, int)]  # fmt: skip
    return sides[0] if len(sides) == 2 and sides[0] == sides[1] and 8 <= sides[0] <= LARGEST_PATCH else None


def _channels(array: object) -> int | None:
    if not isinstance(array, Mapping):
        return None
    found = [size for name, size in zip(array.get("dim_order") or [], array.get("shape") or [], strict=False)
             if name in CHANNELS and isinstance(size, int) and 0 < size <= MOST_BANDS]  # fmt: skip
    return found[0] if found else None


def _output(given: Mapping[str, Any], notes: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    entries = given.get("classification:classes") or given.get("classification_classes") or []
    if not isinstance(entries, Sequence) or len(entries) > MOST_CLASSES:
        raise ValueError(f"more than {MOST_CLASSES} classes")
    ordered = sorted(entries, key=lambda entry: number(entry["value"]))
    values = [int(number(entry["value"])) for entry in ordered]
    if values != list(range(len(values))):
        notes.append(
            f"its classes have the values {', '.join(map(str, values[:8]))}; here they count up from 0, in that order"
        )
    if not ordered:
        return {}, {}
    titles = [entry.get("title") or entry.get("name") for entry in ordered]
    classes = class_tables(titles, [_hint(entry.get("color_hint")) for entry in ordered])
    if given.get("post_processing_function"):
        notes.append(
            f"its answer goes through {_expression(given['post_processing_function'])} afterwards; here `activation`"
        )
    return {"classes": classes}, {"classes": "mlm:output"}


def _hint(value: object) -> str | None:
    """Return a colour, that is six hex digits or, in early Items, three numbers."""
    if isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value):
        return "".join(f"{part:02X}" for part in value)
    is_hex = isinstance(value, str) and len(value) == 6 and all(letter in "0123456789abcdefABCDEF" for letter in value)
    return str(value).upper() if is_hex else None


def _expression(value: object) -> str:
    first = value[0] if isinstance(value, list) and value else value
    said = first.get("expression") if isinstance(first, Mapping) else first
    return printable(str(said))[:100]


def _weights(folder: Path, item: Mapping[str, Any], whose: str) -> tuple[Path | None, list[str]]:
    """Return the local file of the model's asset, and what is to be said of those that lie elsewhere."""
    assets, notes = item.get("assets"), list[str]()
    entries = [
        entry for entry in (assets.values() if isinstance(assets, Mapping) else ()) if isinstance(entry, Mapping)
    ]
    chosen = [entry for role in MODEL_ROLES for entry in entries if role in (entry.get("roles") or [])]
    for entry in chosen:
        href = str(entry.get("href", ""))
        if "://" in href:
            notes.append(f"its weights are at {redact_url(printable(href))[:200]}: fetch them, put them beside the "
                         "Item, and let its asset's href name that file")  # fmt: skip
            continue
        weights = file_in(folder, href, whose)
        _check_sum(weights, entry)
        return weights, []
    return None, notes[:1]


def _check_sum(weights: Path, entry: Mapping[str, Any]) -> None:
    """Refuse a file that is not the one whose SHA-256 the asset states."""
    said = str(entry.get("file:checksum", "")).lower()
    if not said.startswith(SHA256):
        return
    with open(weights, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != said.removeprefix(SHA256):
        raise BundleError(
            f"{weights} is not the file that its Item describes: its SHA-256 is {found[:16]}...; fetch it again"
        )
