"""The OpenVINO engine, the fastest on most CPUs. The converted network stays in the user's cache between runs."""

import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

# its converter would fork a process that reports to a server on the network; without it, a stub takes its place
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino as ov
from numpy.typing import NDArray

from .errors import EngineError
from .system import cache_folder, usable_cpus

if TYPE_CHECKING:
    from .bundle import Bundle

logger = logging.getLogger("swathe")

GRAPH = 2  # counts up when the graph that is made of a bundle changes, so that no older one is taken from the cache
PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
# raw types that the compiled graph takes as they are; others are made float32 on the host first
NATIVE = {np.dtype(t) for t in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32")}


class OpenVINOEngine:
    """An `Engine` with one compiled graph per raw dtype, for tiles of any size."""

    batch = 1

    def __init__(self, bundle: "Bundle", precision: str, threads: int | None) -> None:
        self._core = ov.Core()
        self._model = _converted(self._core, bundle)
        self._config = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or usable_cpus(),
            "ENABLE_CPU_PINNING": False,  # workers share cores with those that read and write
        }
        self._compiled: dict[np.dtype[Any], ov.CompiledModel] = {}

    def predict(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities `(n, class, y, x)` float32 of raw pixels `(n, band, y, x)`."""
        if pixels.dtype not in NATIVE or not pixels.dtype.isnative:
            pixels = pixels.astype(np.float32)
        compiled = self._compiled.get(pixels.dtype) or self._compile(pixels.dtype)
        try:
            return np.asarray(compiled(np.ascontiguousarray(pixels), share_inputs=True)[0])
        except RuntimeError as error:
            hint = "; use a smaller --tile" if "alloc" in str(error).lower() else ""
            raise EngineError(
                f"OpenVINO could not run a tile of {pixels.shape[2]} x {pixels.shape[3]} pixels{hint}: {_first(error)}"
            ) from error

    def _compile(self, dtype: np.dtype[Any]) -> "ov.CompiledModel":
        steps = ov.preprocess.PrePostProcessor(self._model.clone())
        steps.input().tensor().set_element_type(ov.Type(dtype))
        self._compiled[dtype] = self._core.compile_model(steps.build(), "CPU", self._config)
        return self._compiled[dtype]


def _converted(core: "ov.Core", bundle: "Bundle") -> "ov.Model":
    """Load the graph from float32 pixels to probabilities from the cache, else convert and keep it."""
    path = cache_folder("openvino") / f"{bundle.digest}-{GRAPH}-{ov.__version__.split('-')[0]}.xml"
    kept = _read(core, path)
    if kept is None:
        model = _convert(bundle)
        _keep(model, path)
        # read back, since a graph that was kept is rounded a little otherwise than one just converted
        kept = _read(core, path) or model
    return kept


def _read(core: "ov.Core", path: Path) -> "ov.Model | None":
    if not path.exists() or not path.with_suffix(".bin").exists():
        return None
    try:
        return core.read_model(path)
    except RuntimeError as error:
        logger.info("the cached network %s cannot be read and is made anew: %s", path, error)
        return None


def _convert(bundle: "Bundle") -> "ov.Model":
    import torch  # only here: a network from the cache must not wait for torch

    metadata = bundle.metadata
    side = 2 * max(64, metadata.receptive_field.stride)
    shape = ov.PartialShape([-1, len(metadata.bands), -1, -1])
    segmenter = bundle.segmenter()  # whose errors are the bundle's, not OpenVINO's
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of tracing
            example = torch.zeros(1, len(metadata.bands), side, side)
            return ov.convert_model(segmenter, example_input=example, input=[(shape, ov.Type.f32)])
    except Exception as error:
        raise EngineError(
            f"OpenVINO cannot take {metadata.architecture}; use --engine torch ({_first(error)})"
        ) from error


def _keep(model: "ov.Model", path: Path) -> None:
    """Keep the graph for later runs; the .xml is put in place last, since it is what later runs look for."""
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            ov.save_model(model, part, compress_to_fp16=False)
            os.replace(part.with_suffix(".bin"), path.with_suffix(".bin"))
            os.replace(part, path)
    except (OSError, RuntimeError) as error:
        logger.info("the converted network is not kept: %s", error)


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
