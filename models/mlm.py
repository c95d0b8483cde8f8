"""Bundle metadata to and from a STAC Item with the fields of the Machine Learning Model extension (MLM 1.5). No files.

Source: https://github.com/stac-extensions/mlm. What MLM has no field for goes under `swathe:`, and a name that the
schemas do not allow beside the one that they do.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import BundleError
from .graph_form import ONNX, GraphForm
from .metadata import Band, BundleMetadata, ClassInfo, Radiometry, ReceptiveField, Scaling, usual_background

MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
CLASSIFICATION_SCHEMA = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
MODEL_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]+[a-zA-Z0-9]")  # that MLM takes
CLASS_NAME = re.compile(r"[0-9A-Za-z_-]+")  # that the classification extension takes
QUANTILES_FIELD = "swathe:quantiles"  # of a band's raw training values
DIGEST_OF = "swathe:digest"  # what a bundle's digest is of; bundles without it were written by 0.1.0 or before
SCALING_FIELDS = {"z-score": ("mean", "stddev"), "min-max": ("minimum", "maximum"), "scale": (None, "value")}
LARGEST_STRIDE, LARGEST_RADIUS = 1024, 65536  # pixels; no network has more, and a plan must not be made of nonsense

JSON = dict[str, Any]

AS_WEIGHTS: JSON = {
    "type": "application/vnd.safetensors",
    "roles": ["mlm:model", "mlm:weights"],
    "mlm:artifact_type": "safetensors.torch.save_file",
}
AS_ONNX: JSON = {
    "type": "application/octet-stream; framework=onnx",
    "roles": ["mlm:model"],
    "mlm:artifact_type": "onnx.save",
}


def to_item(metadata: BundleMetadata, weights: str, parameters: int, created: str) -> JSON:
    """Describe a bundle as a STAC Item.

    Parameters
    ----------
    metadata
        Of the bundle.
    weights
        Name of the file of weights, or of the ONNX graph, relative to the item.
    parameters
        How many numbers the network holds.
    created
        Date and time, RFC 3339.
    """
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM_SCHEMA, CLASSIFICATION_SCHEMA],
        "id": metadata.name,
        "geometry": None,
        "properties": _properties(metadata, parameters, created),
        "links": [],
        "assets": {
            "weights": {
                "href": weights,
                **(AS_ONNX if metadata.architecture == ONNX else AS_WEIGHTS),
                "title": f"{'Graph' if metadata.architecture == ONNX else 'Weights'} of {metadata.name}",
                # STAC takes an item's bands only with an asset's
                "bands": [{"name": name} for name in metadata.band_names],
            }
        },
    }


def _properties(metadata: BundleMetadata, parameters: int, created: str) -> JSON:
    allowed = MODEL_NAME.fullmatch(metadata.name)
    return {
        **({"description": metadata.description} if metadata.description else {}),  # STAC takes no empty one
        "datetime": created,
        "bands": [_band(band) for band in metadata.bands],
        "mlm:name": metadata.name if allowed else f"model-{_plain(metadata.name)}-0",
        **({} if allowed else {"swathe:name": metadata.name}),
        "mlm:architecture": metadata.architecture,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "ONNX" if metadata.architecture == ONNX else "PyTorch",
        "mlm:total_parameters": parameters,
        **({"mlm:hyperparameters": dict(metadata.options)} if metadata.options else {}),
        "mlm:input": [_input(metadata)],
        "mlm:output": [_output(metadata)],
        "swathe:activation": metadata.activation,
        "swathe:footprint": {"stride": metadata.receptive_field.stride, "radius": metadata.receptive_field.radius},
        "swathe:background": metadata.background,
        **({"swathe:thresholds": dict(metadata.thresholds)} if metadata.thresholds else {}),
        "swathe:resolution": list(metadata.resolution) if metadata.resolution else None,
        "swathe:provenance": dict(metadata.provenance),
        "swathe:metrics": dict(metadata.metrics),
        DIGEST_OF: "contract and weights",
    }


def _band(band: Band) -> JSON:
    """Describe a band, with scale and offset as in the STAC raster extension 2.0."""
    found: JSON = {"name": band.name, "statistics": {"mean": band.mean}}
    if band.radiometry is not None:
        found |= {"raster:scale": band.radiometry.scale, "raster:offset": band.radiometry.offset}
        found |= {"unit": band.radiometry.unit} if band.radiometry.unit else {}
    return found | ({QUANTILES_FIELD: list(band.quantiles)} if band.quantiles else {})


def _plain(name: str) -> str:
    """Replace the characters that the schemas do not take by `_`."""
    return re.sub(r"[^0-9A-Za-z-]+", "_", name)


def _input(metadata: BundleMetadata) -> JSON:
    scaling = metadata.scaling
    first, second = SCALING_FIELDS[scaling.kind]
    pairs = zip(scaling.first, scaling.second, strict=True)
    return {
        "name": "pixels",
        "bands": list(metadata.band_names),
        "input": {
            "shape": [-1, len(metadata.bands), metadata.patch, metadata.patch],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": metadata.dtype,
        },
        "value_scaling": [{"type": scaling.kind, **({first: a} if first else {}), str(second): b} for a, b in pairs],
        "resize_type": None,
    }


def _output(metadata: BundleMetadata) -> JSON:
    return {
        "name": "probabilities",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, len(metadata.classes), metadata.patch, metadata.patch],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": describe_classes(metadata.classes),
    }


def to_program_metadata(metadata: BundleMetadata, parameters: int, torch_version: str) -> JSON:
    """Describe a program of raw pixels in, probabilities out, as `stac_model` does in the `mlm-metadata` of a `.pt2`.

    Its fields are MLM's without the prefix. There is no `value_scaling`: the program holds it.

    Parameters
    ----------
    metadata
        Of the bundle whose program it is.
    parameters
        How many numbers the network holds.
    torch_version
        With which the program was written.
    """
    result = _output(metadata)
    pixels = {**_input(metadata)["input"], "shape": [-1, len(metadata.bands), -1, -1], "data_type": "float32"}
    result["result"]["shape"] = [-1, len(metadata.classes), -1, -1]
    # its classes take these four fields alone
    fields = ("value", "name", "description", "color_hint")
    result["classification:classes"] = [
        {field: info[field] for field in fields} for info in result["classification:classes"]
    ]
    return {
        "$schema": MLM_SCHEMA,
        "properties": {
            "name": metadata.name,
            "architecture": metadata.architecture,
            "tasks": ["semantic-segmentation"],
            "framework": "PyTorch",
            "framework_version": torch_version,
            "total_parameters": parameters,
            "pretrained": True,
            **({"hyperparameters": dict(metadata.options)} if metadata.options else {}),
            "input": [{"name": "pixels", "bands": list(metadata.band_names), "input": pixels}],
            "output": [{**result, "bands": []}],
        },
    }


def describe_classes(classes: Sequence[ClassInfo]) -> list[JSON]:
    """Describe classes, by value, as STAC's classification extension does."""
    # both names and titles, for versions 1.1 of the classification extension, which MLM cites, and 2.0
    return [
        {
            "value": value,
            "name": info.name if CLASS_NAME.fullmatch(info.name) else f"{_plain(info.name)}_{value}",
            "title": info.name,
            "description": info.name,
            "color_hint": info.color.upper(),
        }
        for value, info in enumerate(classes)
    ]


def from_item(item: object) -> BundleMetadata:
    """Read the metadata from a STAC Item that `to_item` could have made.

    Raises
    ------
    BundleError
        A field is missing or makes no sense; the message names it.
    """
    if not isinstance(item, Mapping) or not isinstance(item.get("properties"), Mapping):
        raise BundleError("it is not a STAC Item with properties")
    try:
        found = _metadata(item["properties"])
        if found.architecture == ONNX:
            GraphForm.of(found.options)
        return found
    except KeyError as error:
        raise BundleError(f"the field {error} is missing") from error
    except (TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise BundleError(f"a field has a value that cannot be used: {error}") from error


def _metadata(properties: Mapping[str, Any]) -> BundleMetadata:
    given, result = properties["mlm:input"][0], properties["mlm:output"][0]
    bands = {band["name"]: _read_band(band) for band in properties["bands"]}
    classes, resolution = _classes(result["classification:classes"]), properties.get("swathe:resolution")
    background, metrics = _background(properties, classes), dict(properties.get("swathe:metrics") or {})
    return BundleMetadata(
        name=str(properties.get("swathe:name", properties["mlm:name"])),
        architecture=str(properties["mlm:architecture"]),
        options=dict(properties.get("mlm:hyperparameters") or {}),
        bands=tuple(bands[name] for name in given["bands"]),
        dtype=str(given["input"]["data_type"]),
        scaling=_scaling(given["value_scaling"]),
        classes=classes,
        receptive_field=_receptive_field(properties["swathe:footprint"]),
        activation=properties["swathe:activation"],
        resolution=(float(resolution[0]), float(resolution[1])) if resolution else None,
        patch=int(given["input"]["shape"][2]),
        background=background,
        thresholds=_thresholds(properties, classes, background, metrics),
        description=str(properties.get("description", "")),
        provenance=dict(properties.get("swathe:provenance") or {}),
        metrics=metrics,
    )


def _read_band(entry: JSON) -> Band:
    radiometry = None
    if "raster:scale" in entry:
        unit = str(entry.get("unit", ""))
        radiometry = Radiometry(float(entry["raster:scale"]), float(entry.get("raster:offset", 0)), unit)
    quantiles = tuple(float(value) for value in entry.get(QUANTILES_FIELD) or ())
    return Band(str(entry["name"]), float(entry["statistics"]["mean"]), radiometry, quantiles)


def _background(properties: Mapping[str, Any], classes: tuple[ClassInfo, ...]) -> str | None:
    """Return the background; of a bundle that was written before it was said, what is usual."""
    if "swathe:background" in properties:
        named = properties["swathe:background"]
        return None if named is None else str(named)
    return usual_background([info.name for info in classes])


def _thresholds(
    properties: Mapping[str, Any], classes: tuple[ClassInfo, ...], background: str | None, metrics: JSON
) -> dict[str, float]:
    """Return the decision; bundles that were written before had one threshold for all, among their metrics."""
    if "swathe:thresholds" in properties:
        return {str(name): float(value) for name, value in properties["swathe:thresholds"].items()}
    one = metrics.get("threshold")
    if one is None or background is None:
        return {}
    return {info.name: float(one) for info in classes if info.name != background}


def _scaling(entries: list[JSON]) -> Scaling:
    kinds = {entry["type"] for entry in entries}
    if len(kinds) != 1 or not kinds <= set(SCALING_FIELDS):
        raise BundleError(f"value_scaling is of one type, {', '.join(SCALING_FIELDS)}; received {sorted(kinds)}")
    kind = kinds.pop()
    first, second = SCALING_FIELDS[kind]
    firsts = tuple(float(entry[first]) if first else 0.0 for entry in entries)
    return Scaling(kind, firsts, tuple(float(entry[second]) for entry in entries))


def _classes(entries: list[JSON]) -> tuple[ClassInfo, ...]:
    values = [entry["value"] for entry in entries]
    if values != list(range(len(entries))):
        raise BundleError(f"class values count up from 0; received {values[:8]}")
    return tuple(ClassInfo(str(entry.get("title", entry["name"])), str(entry["color_hint"])) for entry in entries)


def _receptive_field(entry: Mapping[str, Any]) -> ReceptiveField:
    stride, radius = int(entry["stride"]), entry["radius"]
    radius = None if radius is None else int(radius)
    if not 1 <= stride <= LARGEST_STRIDE or not 0 <= (radius or 0) <= LARGEST_RADIUS:
        raise BundleError(f"stride {stride} and radius {radius} make no receptive field")
    return ReceptiveField(stride, radius)
