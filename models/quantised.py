"""The int8 graph of a bundle: made by NNCF of tiles of a scene, packed as one file, kept in the user's cache.

Post-training quantisation (Jacob et al. 2018, https://arxiv.org/abs/1712.05877) of weights by channel and activations
by tensor, with fast bias correction, as NNCF does it. Softmax and what follows stay float32.
"""

import contextlib
import hashlib
import io
import logging
import os
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError, EngineError
from .system import cache_folder

if TYPE_CHECKING:
    from .bundle import Bundle

logger = logging.getLogger("swathe")

XML, WEIGHTS = "int8.xml", "int8.bin"
LARGEST = 2**30  # bytes of either; what a hostile file says must not fill the memory
NO_NNCF = "int8 needs NNCF: pip install 'swathe[int8]', or a bundle that `swathe quantise` has written"
_quantising = threading.Lock()


@dataclass(frozen=True, slots=True)
class QuantisedGraph:
    """An OpenVINO graph in int8: float32 raw pixels to probabilities.

    Parameters
    ----------
    xml, weights
        As OpenVINO writes them.
    """

    xml: bytes
    weights: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the content, however it is packed."""
        parts = b"".join(hashlib.sha256(part).digest() for part in (self.xml, self.weights))
        return hashlib.sha256(parts).hexdigest()

    def pack(self) -> bytes:
        """Return it as one zip; the same bytes each time."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in ((XML, self.xml), (WEIGHTS, self.weights)):
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return file.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> "QuantisedGraph":
        """Read what `pack` gives. Raises EngineError."""
        try:
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                if max(archive.getinfo(name).file_size for name in (XML, WEIGHTS)) > LARGEST:
                    raise EngineError(f"the int8 graph has more than {LARGEST:,} bytes")
                return cls(archive.read(XML), archive.read(WEIGHTS))
        except (zipfile.BadZipFile, KeyError, OSError, ValueError) as error:
            raise EngineError(f"the int8 graph is damaged: {error}") from error


def can_quantise() -> bool:
    """Whether NNCF is installed."""
    return find_spec("nncf") is not None


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
        NNCF is not installed, or cannot quantise this network.
    """
    if not can_quantise():
        raise EngineError(NO_NNCF)
    import openvino as ov

    from .engine_openvino import load_graph

    model = load_graph(ov.Core(), bundle)
    try:
        with _quiet():
            made = _quantised(model, [np.ascontiguousarray(tile, np.float32)[None] for tile in tiles], spared)
    except Exception as error:  # NNCF raises errors of its own, of OpenVINO and several builtin ones
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EngineError(
            f"NNCF cannot quantise {bundle.metadata.name}: {said}; use --precision bf16 or fp32"
        ) from error
    return _saved(made)


def _quantised(model: Any, tiles: list[NDArray[np.float32]], spared: int) -> Any:
    import nncf

    convolutions = [op.get_friendly_name() for op in model.get_ordered_ops() if "Convolution" in op.get_type_name()]
    ends = {*convolutions[:spared], *convolutions[len(convolutions) - spared :]}
    ignored = nncf.IgnoredScope(names=sorted(ends)) if ends else None
    return nncf.quantize(model, nncf.Dataset(tiles), subset_size=len(tiles), ignored_scope=ignored)


def _saved(model: Any) -> QuantisedGraph:
    """Write a graph with names that are the same each time, so that its digest is."""
    import openvino as ov

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
        import nncf

        nncf.set_log_level(logging.ERROR)
        yield


def keep_graph(graph: QuantisedGraph) -> None:
    """Keep a graph in the user's cache by its digest, for other processes of this machine."""
    path = _kept_at(graph.digest)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            part.write_bytes(graph.pack())
            os.replace(part, path)
    except OSError as error:
        logger.info("the int8 graph is not kept: %s", error)


def graph_of(bundle: "Bundle", digest: str, packed: bytes = b"") -> QuantisedGraph:
    """Return the graph of a digest: what is given, else that of the bundle, or of the user's cache.

    Raises
    ------
    EngineError
        It is nowhere, or none is named and the bundle carries none.
    """
    given = QuantisedGraph.unpack(packed) if packed else None
    for found in (given, bundle.int8, kept_graph(digest) if digest else None):
        if found is not None and digest in ("", found.digest):
            return found
    which = f"the int8 graph {digest[:12]}" if digest else "an int8 graph"
    raise EngineError(
        f"{bundle.metadata.name} has not got {which} here; `swathe quantise` writes a bundle that carries one"
    )


def kept_graph(digest: str) -> QuantisedGraph | None:
    """Return a graph from the user's cache; None: it is not there, or is another."""
    try:
        graph = QuantisedGraph.unpack(_kept_at(digest).read_bytes())
    except (OSError, EngineError):
        return None
    return graph if graph.digest == digest else None


def _kept_at(digest: str) -> Path:
    return cache_folder("int8") / f"{digest}.zip"


def check_graph(model: Any, bundle: "Bundle") -> None:
    """Refuse a graph that is not from a bundle's bands to its classes. Raises BundleError."""
    shapes = [port.get_partial_shape() for port in (*model.inputs, *model.outputs)]
    wanted = [len(bundle.metadata.bands), len(bundle.metadata.classes)]
    found = [shape[1].get_length() if len(shape) == 4 and shape[1].is_static else None for shape in shapes]
    if found != wanted:
        raise BundleError(f"{bundle.path}: the int8 graph has channels {found}, the bundle {wanted}")
