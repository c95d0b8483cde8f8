"""Metadata of a bundle as the settings from which an import makes it again; the inverse of `settings.metadata_of`."""

from typing import Any

from ..metadata import BundleMetadata

FIELDS = {"z-score": ("mean", "stddev"), "min-max": ("minimum", "maximum"), "scale": ("", "divisor")}


def settings_of(metadata: BundleMetadata) -> dict[str, Any]:
    """Return settings, with the keys of `models.imports.settings.KEYS`."""
    first, second = FIELDS[metadata.scaling.kind]
    scaling = {first: list(metadata.scaling.first), second: list(metadata.scaling.second)}
    scaling["means"] = [band.mean for band in metadata.bands]
    found: dict[str, Any] = {
        "name": metadata.name,
        "architecture": metadata.architecture,
        "options": dict(metadata.options),
        "bands": list(metadata.band_names),
        "dtype": metadata.dtype,
        "scaling": {key: values for key, values in scaling.items() if key},
        "classes": [{"name": info.name, "color": info.color} for info in metadata.classes],
        "activation": metadata.activation,
        "patch": metadata.patch,
        "background": metadata.background or False,
        "thresholds": dict(metadata.thresholds),
        "description": metadata.description,
        "provenance": dict(metadata.provenance),
        "metrics": dict(metadata.metrics),
    }
    if metadata.resolution:
        found["resolution"] = list(metadata.resolution)
    meanings = [band.radiometry for band in metadata.bands]
    if all(meaning is not None for meaning in meanings):
        found["radiometry"] = [{"scale": meaning.scale, "offset": meaning.offset, "unit": meaning.unit}
                               for meaning in meanings if meaning is not None]  # fmt: skip
    if any(band.quantiles for band in metadata.bands):
        found["quantiles"] = [list(band.quantiles) for band in metadata.bands]
    return {key: value for key, value in found.items() if value not in ("", {}, [])}
