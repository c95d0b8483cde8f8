"""The int8 graph of a bundle: packed as one file, carried by a bundle or kept in the user's cache."""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BundleError, EngineError
from .files import keep_file
from .system import cache_folder

if TYPE_CHECKING:
    from .bundle import Bundle

XML, WEIGHTS = "int8.xml", "int8.bin"
LARGEST = 2**30  # bytes of either; what a hostile file says must not fill the memory
NO_NNCF = "int8 needs NNCF: pip install 'swathe[int8]', or a bundle that `swathe quantise` has written"


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


def keep_graph(graph: QuantisedGraph) -> None:
    """Keep a graph in the user's cache by its digest, for other processes of this machine."""
    keep_file(_kept_at(graph.digest), "the int8 graph", lambda part: part.write_bytes(graph.pack()))


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
