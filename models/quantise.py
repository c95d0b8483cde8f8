"""Make the int8 graph of a bundle, by NNCF and tiles of a scene.

Post-training quantisation (Jacob et al. 2018, https://arxiv.org/abs/1712.05877) of weights by channel and activations
by tensor, with fast bias correction, as NNCF does it. Softmax and what follows stay float32.
"""

import contextlib
import io
import logging
import tempfile
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import EngineError
from .graph_form import check_side, fixed_shape
from .quantised import NO_NNCF, WEIGHTS, XML, QuantisedGraph, can_quantise

if TYPE_CHECKING:
    from .bundle import Bundle

_quantising = threading.Lock()


def quantise_network(bundle: "Bundle", tiles: Sequence[NDArray[Any]], spared: int = 0) -> QuantisedGraph:
    """Make the int8 graph of a bundle.

    Parameters
    ----------
    bundle
        Of the network.
    tiles
        Raw pixels `(band, y, x)` without NaN, by which the ranges of all layers are set. The same tiles give the same
        graph.
    spared
        How many convolutions at each end of the network stay float32.

    Returns
    -------
    QuantisedGraph

    Raises
    ------
    EngineError
        NNCF is not installed, or cannot quantise this network; or its answer is no number, which int8 would hide.
    """
    if not can_quantise():
        raise EngineError(NO_NNCF)
    from .engine_openvino import load_graph

    model = load_graph(bundle)
    side, batch = fixed_shape(bundle.metadata)
    for tile in tiles:
        check_side(side, (1, *tile.shape))
    # a graph that takes several at a time gets each in all its places
    given = [np.repeat(np.asarray(tile, np.float32)[None], batch or 1, axis=0) for tile in tiles]
    _refuse_no_number(model, given, bundle.metadata.name)
    try:
        with _quiet():
            made = _quantised(model, given, spared)
    except Exception as error:  # NNCF raises errors of its own, of OpenVINO and several builtin ones
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EngineError(
            f"NNCF cannot quantise {bundle.metadata.name}: {said}; use --precision bf16 or fp32"
        ) from error
    return _saved(made)


def _refuse_no_number(model: Any, tiles: list[NDArray[np.float32]], name: str) -> None:
    """Raise EngineError where a network overflows: ranges of int8 make numbers, and so classes, of what is none."""
    from .openvino_core import CORE

    compiled = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    if not all(np.isfinite(compiled(tile)[0]).all() for tile in tiles):
        raise EngineError(f"{name} cannot be int8: its answer is no number at some pixels; use --precision fp32")


def _quantised(model: Any, tiles: list[NDArray[np.float32]], spared: int) -> Any:
    import nncf

    convolutions = [op.get_friendly_name() for op in model.get_ordered_ops() if "Convolution" in op.get_type_name()]
    ends = {*convolutions[:spared], *convolutions[len(convolutions) - spared :]}
    ignored = nncf.IgnoredScope(names=sorted(ends)) if ends else None
    return nncf.quantize(model, nncf.Dataset(tiles), subset_size=len(tiles), ignored_scope=ignored)


def _saved(model: Any) -> QuantisedGraph:
    """Write a graph with names that are the same each time, so that its digest is."""
    from .openvino_core import ov

    for place, op in enumerate(model.get_ordered_ops()):
        op.set_friendly_name(f"{op.get_type_name()}_{place}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / XML
        ov.save_model(model, path, compress_to_fp16=False)
        return QuantisedGraph(path.read_bytes(), (path.parent / WEIGHTS).read_bytes())


@contextlib.contextmanager
def _quiet() -> Any:
    """Let NNCF show no progress and no warnings of the libraries it uses; one at a time, since that is global."""
    with _quantising, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # NNCF asks it for CUDA
        import nncf

        nncf.set_log_level(logging.ERROR)
        yield
