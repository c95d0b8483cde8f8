"""A bundle as ONNX for Deepness, the plugin of QGIS: with its metadata, and fed as it feeds tiles.

Deepness divides pixels by 255, subtracts `standardization_mean` and divides by `standardization_std`; takes square
tiles of one size; and of one channel, decides by `seg_thresh`. Of several channels it sets those below it to 0, and
takes the largest. Source: https://github.com/PUTvision/qgis-plugin-deepness, docs/source/creators, version 0.6.5.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle import Bundle
from .errors import BundleError, NetworkError, require_extra
from .exporting import OWN, describe, read_texts
from .files import local_path
from .limits import parse_json
from .metadata import BundleMetadata
from .tracing import Exported, Form, converting, difference, refuse_large, run_onnx, smallest_tile, write_onnx, writing

if TYPE_CHECKING:
    from torch import Tensor

BRIGHTEST = 255.0  # that Deepness divides by, whatever the type of the pixels
MOST_OVERLAP = 50  # percent of a tile; a tile and its neighbour after next would overlap beyond
UNBOUNDED = 8  # without an exact halo, the share of a tile's side, one in so many, that is cut off at each rim


def export_deepness(bundle: Bundle, path: str | os.PathLike[str], *, overwrite: bool = False) -> Exported:
    """Write a bundle as one ONNX file that Deepness opens, with all that it asks for filled in.

    Its input is `(batch, band, side, side)` of raw values, once Deepness' division by 255 is undone by the
    standardization that the file names; its output `(batch, class, side, side)` probabilities, of two classes the one
    that is not the background. The key `swathe` of `metadata_props` holds what `exporting.describe` returns.

    Parameters
    ----------
    path
        Ends in `.onnx`. Appears only when the file is whole and checked, fed as Deepness feeds it.
    overwrite
        Replace a file that is there. Otherwise it is refused, unless it is the very file that would be written.

    Raises
    ------
    NetworkError
        A package is missing, the network has no ONNX graph, or the file's probabilities differ from the bundle's.
    BundleError
        The path is taken, or its ending is another one.
    """
    require_extra("export", "ONNX", "onnx", "onnxscript", "onnxruntime", error=NetworkError)
    refuse_large(bundle)
    texts, form = deepness_texts(bundle), Form(tile(bundle)[0], _channel(bundle.metadata))
    path = local_path(path, error=BundleError)
    if not overwrite and _is_of(path, bundle):
        return Exported(Path(path), difference(bundle, _fed(run_onnx(Path(path)), bundle), form), notes(bundle))
    with writing(path, ".onnx", overwrite) as part, converting(bundle, "ONNX"):
        write_onnx(bundle, part, texts, form)
        found = difference(bundle, _fed(run_onnx(part), bundle), form)
    return Exported(Path(path), found, notes(bundle))


def deepness_texts(bundle: Bundle) -> dict[str, str]:
    """Return what Deepness reads of a file, by key, as JSON; and under `swathe` what only Swathe reads."""
    metadata = bundle.metadata
    side, overlap = tile(bundle)
    bands = len(metadata.bands)
    told = {
        "model_type": "Segmentor",
        "class_names": {str(value): name for value, name in enumerate(_names(metadata))},
        "tile_size": side,
        "tiles_overlap": overlap,
        "standardization_mean": [0.0] * bands,
        "standardization_std": [1 / BRIGHTEST] * bands,
        "seg_thresh": _threshold(metadata),
        "seg_small_segment": 0,  # what it would smooth away is the network's answer, too
        # in centimetres, of a range in metres the geometric middle
        **({"resolution": round(100 * math.sqrt(math.prod(metadata.resolution)), 2)} if metadata.resolution else {}),
        OWN: _in_order(describe(bundle), _channel(metadata)),
    }
    return {key: json.dumps(value) for key, value in told.items()}


def tile(bundle: Bundle) -> tuple[int, int]:
    """Choose the side of a tile in pixels, and the percent of it that neighbours overlap.

    Half the overlap is cut off at each rim: where the network has an exact halo it is no less, and tiles lie on the
    network's stride, so that tiles in Deepness give what the whole scene would.
    """
    field = bundle.metadata.receptive_field
    step = 2 * field.stride
    least = max(bundle.metadata.patch, smallest_tile(bundle), 4 * (field.halo or 0))
    side = -(-least // step) * step
    rim = side // UNBOUNDED if field.halo is None else field.halo
    fitting = (
        percent
        for percent in range(MOST_OVERLAP)
        if overlap_pixels(side, percent) >= 2 * rim and (side - overlap_pixels(side, percent)) % field.stride == 0
    )
    return side, next(fitting, MOST_OVERLAP)


def overlap_pixels(side: int, percent: int) -> int:
    """Return by how many pixels tiles overlap in Deepness, which halves after it has rounded down."""
    return int(side * percent / 100 * 2) // 2


def notes(bundle: Bundle) -> tuple[str, ...]:
    """Say what Deepness does otherwise than Swathe with a bundle, or asks of its user."""
    metadata, found = bundle.metadata, []
    if metadata.resolution is None:
        found.append("the bundle does not say its resolution: set it in Deepness by hand")
    if metadata.dtype != "uint8":
        found.append(
            f"its pixels are {metadata.dtype}, and Deepness documents uint8 alone: give it a raster of "
            f"{metadata.dtype} with one band for each input, whose values it passes on as they are"
        )
    if metadata.receptive_field.halo is None:
        found.append("the network has no exact halo: what Deepness shows depends on where its tiles lie")
    if not _decides_alike(metadata):
        found.append(
            "Deepness has one threshold, and takes the likeliest class above it, the first where none is: its map "
            "differs from Swathe's where another class is above its own threshold"
        )
    return tuple(found)


def _is_of(path: str | os.PathLike[str], bundle: Bundle) -> bool:
    """Whether a file is there that was written for Deepness from this very bundle."""
    if Path(path).suffix.lower() != ".onnx" or not Path(path).is_file():
        return False
    try:
        return parse_json(read_texts(Path(path))[OWN])["digest"] == bundle.digest  # type: ignore[no-any-return]
    except (BundleError, LookupError, TypeError, ValueError):  # none of ours
        return False


def _fed(run: "Callable[[Tensor], Tensor]", bundle: Bundle) -> "Callable[[Tensor], Tensor]":
    """Return what a graph makes of raw pixels that Deepness has scaled before."""
    texts = deepness_texts(bundle)

    def fed(pixels: "Tensor") -> "Tensor":
        import torch

        shape = (1, -1, 1, 1)
        mean, std = (torch.tensor(json.loads(texts[f"standardization_{key}"])) for key in ("mean", "std"))
        return run((pixels * (1 / BRIGHTEST) - mean.reshape(shape)) / std.reshape(shape))

    return fed


def _channel(metadata: BundleMetadata) -> int | None:
    """Return the class that is not the background, by value, where there are two classes."""
    return None if len(metadata.classes) > 2 else 1 - (metadata.background_value or 0)


def _in_order(described: dict[str, Any], channel: int | None) -> dict[str, Any]:
    """Return what describes a bundle with its classes as in the file, where one channel is the second class's."""
    return described | {"classes": described["classes"][::-1]} if channel == 0 else described


def _names(metadata: BundleMetadata) -> tuple[str, ...]:
    """Return classes by Deepness' numbers: of two, the background is the first."""
    return metadata.class_names[::-1] if _channel(metadata) == 0 else metadata.class_names


def _threshold(metadata: BundleMetadata) -> float:
    """Return one threshold for all classes: the highest, if there is any; 0 leaves the likeliest class."""
    return max(metadata.thresholds.values(), default=0.5 if len(metadata.classes) == 2 else 0.0)


def _decides_alike(metadata: BundleMetadata) -> bool:
    """Whether Deepness gives each pixel the class that Swathe does."""
    if len(metadata.classes) == 2 or not metadata.thresholds:
        return True
    # above one half a class is the likeliest, and a pixel without any falls to Deepness' first class
    alike = len(set(metadata.thresholds.values())) == 1 and _threshold(metadata) >= 0.5
    return alike and metadata.background_value == 0
