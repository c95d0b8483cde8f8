"""A bundle as a deep learning package of ArcGIS (`.dlpk`): a zip of a model definition, an ONNX graph and a function.

The package needs no arcgis to be made: its specification asks for a definition (`.emd`, JSON), a model file, and, where
ArcGIS has no function of its own for it, one in Python. Sources: https://pro.arcgis.com, "Share a deep learning model
package"; https://github.com/Esri/raster-deep-learning, docs/writing_model_definition.md. It was not run in ArcGIS.
"""

import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from . import arcgis_function
from .arcgis_function import SwatheClassifier
from .bundle import Bundle
from .encoding import decision
from .errors import BundleError
from .exporting import OWN, describe, export_onnx
from .exporting_deepness import UNBOUNDED, tile
from .files import local_path
from .limits import LARGEST_JSON, parse_json
from .tracing import Exported, writing

GRAPH, FUNCTION = "network.onnx", f"{SwatheClassifier.__name__}.py"
MADE = (1980, 1, 1, 0, 0, 0)  # of what is in the package: the same network makes the same bytes
BESIDE = ("it was not run in ArcGIS here: its function was called as Esri documents it",)


def export_arcgis(bundle: Bundle, path: str | os.PathLike[str], *, overwrite: bool = False) -> Exported:
    """Write a bundle as a `.dlpk` for ArcGIS' tool "Classify Pixels Using Deep Learning".

    Parameters
    ----------
    path
        Ends in `.dlpk`. Appears only when it is whole, and its graph checked with ONNX Runtime.
    overwrite
        Replace a file that is there. Otherwise it is refused, unless it is of this very bundle.

    Raises
    ------
    NetworkError
        As of `export_onnx`.
    BundleError
        The path is taken, or its ending is another one.
    """
    path = target = local_path(path, error=BundleError)
    with tempfile.TemporaryDirectory() as folder:
        if not overwrite and _is_of(target, bundle):
            made = export_onnx(bundle, _unpacked(target, Path(folder)))
            return Exported(target, made.difference, BESIDE)
        with writing(path, ".dlpk", overwrite) as part:
            made = export_onnx(bundle, Path(folder) / GRAPH)
            contents = {
                f"{bundle.metadata.name}.emd": json.dumps(definition(bundle), indent=1).encode(),
                GRAPH: made.path.read_bytes(),
                FUNCTION: Path(arcgis_function.__file__).read_bytes(),
            }
            with zipfile.ZipFile(part, "w") as archive:
                for name, content in contents.items():
                    archive.writestr(zipfile.ZipInfo(name, MADE), content, zipfile.ZIP_STORED)
    return Exported(target, made.difference, BESIDE)


def definition(bundle: Bundle) -> dict[str, Any]:
    """Return Esri's model definition of a bundle; what only our function reads is under `Swathe`."""
    metadata = bundle.metadata
    side, field = tile(bundle)[0], metadata.receptive_field
    # a multiple of the stride, as the tile without it, so that blocks lie on the network's stride
    padding = side // UNBOUNDED // field.stride * field.stride if field.halo is None else field.halo
    bands, named = len(metadata.bands), metadata.thresholds
    bounds = decision(named, metadata.class_names, metadata.background_value) if named else ()
    return {
        "Framework": "ONNX",
        "ModelConfiguration": metadata.architecture,
        "ModelFile": GRAPH,
        "ModelType": "ImageClassification",
        "InferenceFunction": FUNCTION,
        "ModelName": metadata.name,
        **({"Description": metadata.description} if metadata.description else {}),
        "ImageHeight": side,
        "ImageWidth": side,
        "Padding": padding,
        "BatchSize": 1,
        "ExtractBands": list(range(bands)),
        "Bands": list(metadata.band_names),
        # that the graph takes values as they are, in arcgis.learn's words
        "NormalizationStats": {
            "band_min_values": [0.0] * bands,
            "band_max_values": [1.0] * bands,
            "scaled_mean_values": [0.0] * bands,
            "scaled_std_values": [1.0] * bands,
        },
        "Classes": [
            {"Value": value, "Name": info.name, "Color": list(info.rgb)} for value, info in enumerate(metadata.classes)
        ],
        OWN.capitalize(): {**describe(bundle), "bounds": list(bounds)},
    }


def _is_of(path: Path, bundle: Bundle) -> bool:
    """Whether a package is there that was made of this very bundle."""
    if path.suffix.lower() != ".dlpk" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".emd"))
            with archive.open(name) as file:
                told = parse_json(file.read(LARGEST_JSON + 1))
        return told[OWN.capitalize()]["digest"] == bundle.digest  # type: ignore[no-any-return]
    except Exception:  # whatever else lies there under that name: it is refused as taken
        return False


def _unpacked(package: Path, folder: Path) -> Path:
    """Write a package's graph to a folder."""
    try:
        with zipfile.ZipFile(package) as archive:
            (folder / GRAPH).write_bytes(archive.read(GRAPH))
    except (OSError, KeyError, zipfile.BadZipFile, RuntimeError) as error:
        raise BundleError(f"{package} is damaged: {error}; pass --overwrite to replace it") from error
    return folder / GRAPH
