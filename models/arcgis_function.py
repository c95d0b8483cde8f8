"""A Python raster function that classifies pixels in ArcGIS: it travels in a `.dlpk`, and knows nothing of Swathe.

ArcGIS calls its methods, in this order: initialize, getParameterInfo, getConfiguration, updateRasterInfo, and
updatePixels for each block. Sources: https://github.com/Esri/raster-functions/wiki/PythonRasterFunction and
https://github.com/Esri/raster-deep-learning, docs. It needs numpy and ONNX Runtime, which ArcGIS' libraries for deep
learning bring.
"""

import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIELDS = {"OID": "OID", "Value": "Integer", "Class": "String", "Red": "Integer", "Green": "Integer", "Blue": "Integer"}
INHERITED = 2 | 4 | 8  # of the input raster, in ArcGIS' numbers: nodata, dimensions, resampling


class SwatheClassifier:
    """Raw pixels to classes, by a graph in ONNX and thresholds in the model definition."""

    def __init__(self) -> None:
        self.name = "Swathe"
        self.description = "Classifies pixels with a network that Swathe has exported."
        self.session: Any = None

    def initialize(self, **kwargs: Any) -> None:
        """Read the model definition: `model` is its path, or its text; `device` a GPU's number, or less than 0."""
        if "model" not in kwargs:
            return
        model, folder = kwargs["model"], os.path.dirname(os.path.abspath(__file__))
        if os.path.isfile(model):
            folder = os.path.dirname(os.path.abspath(model))
            with open(model, encoding="utf-8") as file:
                self.definition = json.load(file)
        else:
            self.definition = json.loads(model)
        self.own = self.definition["Swathe"]
        self.graph = os.path.join(folder, self.definition["ModelFile"])
        self.device = kwargs.get("device")
        self.padding = int(self.definition["Padding"])

    def getParameterInfo(self) -> list[dict[str, Any]]:
        """Name what the tool asks for."""
        return [
            _parameter("raster", "raster", None, "Raster", "Input raster"),
            _parameter("model", "string", None, "Model definition", "Esri model definition (.emd)"),
            _parameter("device", "numeric", -1, "Device", "Number of the GPU; less than 0: the CPU", required=False),
            _parameter("padding", "numeric", self.padding, "Padding",
                       "Pixels at each rim of a tile that are thrown away", required=False),
        ]  # fmt: skip

    def getConfiguration(self, **scalars: Any) -> dict[str, Any]:
        """Say which bands and blocks are wanted: with their padding, as large as the definition's tile."""
        self.padding = int(scalars.get("padding", self.padding))
        return {
            "extractBands": tuple(self.definition["ExtractBands"]),
            "padding": self.padding,
            "tx": self.definition["ImageWidth"] - 2 * self.padding,
            "ty": self.definition["ImageHeight"] - 2 * self.padding,
            "inheritProperties": INHERITED,
            "inputMask": True,
        }

    def updateRasterInfo(self, **kwargs: Any) -> dict[str, Any]:
        """Describe the result: one band of classes, with their names and colours."""
        rows = [
            {"OID": number + 1, "Value": info["Value"], "Class": info["Name"],
             **dict(zip(("Red", "Green", "Blue"), info["Color"], strict=True))}
            for number, info in enumerate(self.definition["Classes"])
        ]  # fmt: skip
        table = {
            "displayFieldName": "",
            "fieldAliases": {name: name for name in FIELDS},
            "fields": [{"name": name, "type": f"esriFieldType{kind}", "alias": name} for name, kind in FIELDS.items()],
            "features": [{"attributes": row} for row in rows],
        }
        kwargs["output_info"] |= {"bandCount": 1, "pixelType": "u1", "rasterAttributeTable": json.dumps(table)}
        return kwargs

    def updatePixels(self, tlc: Any, shape: Any, props: Any, **pixelBlocks: Any) -> dict[str, Any]:
        """Classify a block `(band, y, x)` with its padding; return classes `(1, y, x)` without it, and their mask."""
        pixels = np.asarray(pixelBlocks["raster_pixels"]).astype(np.float32)
        mask = np.broadcast_to(np.asarray(pixelBlocks.get("raster_mask", 1)), pixels.shape) != 0
        observed = mask & np.isfinite(pixels)
        fill = np.array([band["fill"] for band in self.own["bands"]], np.float32)[:, None, None]
        classes = self._decide(self._run(np.where(observed, pixels, fill)))
        inside = slice(self.padding, -self.padding or None)
        pixelBlocks["output_pixels"] = classes[None, inside, inside].astype("u1")
        pixelBlocks["output_mask"] = observed.any(axis=0)[None, inside, inside].astype("u1")
        return pixelBlocks

    def _run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities `(class, y, x)` of a block of any size: the graph takes multiples of its stride."""
        if self.session is None:
            import onnxruntime

            gpu = ["CUDAExecutionProvider"] if self.device is not None and self.device >= 0 else []
            known = [name for name in gpu if name in onnxruntime.get_available_providers()]
            self.session = onnxruntime.InferenceSession(self.graph, providers=[*known, "CPUExecutionProvider"])
        stride, (height, width) = self.own["stride"], pixels.shape[1:]
        missing = [max(2 * stride, -(-side // stride) * stride) - side for side in (height, width)]
        whole = np.pad(pixels, [(0, 0), *((0, more) for more in missing)], mode="edge")
        found: NDArray[np.float32] = self.session.run(None, {"pixels": whole[None]})[0]
        return found[0, :, :height, :width]

    def _decide(self, probabilities: NDArray[np.float32]) -> NDArray[Any]:
        """Return the likeliest class; where classes have thresholds, of those but the background, if above its own."""
        bounds = self.own["bounds"]
        if not bounds:
            return np.asarray(probabilities.argmax(axis=0))
        background = next(value for value, bound in enumerate(bounds) if bound is None)
        others = probabilities.copy()
        others[background] = -1
        best = others.argmax(axis=0)
        least = np.array([1.0 if bound is None else bound for bound in bounds], np.float32)[best]
        return np.where(others.max(axis=0) > least, best, background)


def _parameter(name: str, kind: str, value: Any, title: str, description: str, required: bool = True) -> dict[str, Any]:
    """Describe a parameter of the tool."""
    return {"name": name, "dataType": kind, "value": value, "required": required, "displayName": title,
            "description": description}  # fmt: skip
