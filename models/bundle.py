"""A bundle: one network, ready for inference, as a folder or one zip of `bundle.json` and `weights.safetensors`.

A network that came as ONNX is kept as it is, in `network.onnx` instead of weights. A bundle is immutable once written,
named by the digest of its content. Nothing in it is code and nothing is unpickled. Whether a bundle fits a scene is
checked in `pipeline.inference.plan`.
"""

import hashlib
import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .errors import BundleError, NetworkError, SwatheError
from .files import keep_file, local_path, put_in_place, refuse_existing, write_digest, write_missing_digest
from .graph_form import ONNX
from .limits import LARGEST_CHUNK, MOST_MEMBERS, MOST_SHRUNK, parse_json, refuse_special
from .metadata import BundleMetadata
from .mlm import DIGEST_OF, QUANTILES_FIELD, from_item, to_item
from .quantised import LARGEST, QuantisedGraph
from .quantised import WEIGHTS as INT8_WEIGHTS
from .quantised import XML as INT8_XML
from .system import bundles_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .segmenter import Segmenter

ITEM, WEIGHTS, NETWORK = "bundle.json", "weights.safetensors", "network.onnx"
MEMBERS = {ITEM, WEIGHTS, NETWORK, INT8_XML, INT8_WEIGHTS}
# of the item: digest of the graph in int8, its errors by scene, and the digest of what it was asked to be made of
INT8, INT8_SCORES, INT8_OF = "swathe:int8", "swathe:int8_scores", "swathe:int8_of"
# what is not hashed
DATES = {"datetime", "created", "updated"}
FOR_PEOPLE = DATES | {"description", "swathe:provenance", "swathe:metrics", INT8_SCORES, INT8_OF}
LARGEST_ITEM = 4 * 2**20  # bytes; a hostile file must not fill the memory
PIN = "@sha256:"
SHIPPED = Path(__file__).parent / "bundles"


@dataclass(frozen=True)
class Bundle:
    """A saved bundle: its metadata, its path, and the digest of its content.

    Weights are read only by `segmenter`; a bundle can be planned with, listed and sent by path without torch.
    """

    metadata: BundleMetadata
    path: Path
    digest: str

    def __repr__(self) -> str:
        return f"<Bundle {self.digest[:12]}: {self.metadata!r}; {self.path}>"

    @cached_property
    def item(self) -> dict[str, Any]:
        """The STAC Item in `bundle.json`."""
        return _read_item(self.path)

    @cached_property
    def int8(self) -> QuantisedGraph | None:
        """The graph in int8 that the bundle carries; None: it carries none.

        Raises
        ------
        BundleError
            It is missing or damaged.
        """
        said = self.item["properties"].get(INT8)
        if said is None:
            return None
        graph = QuantisedGraph(*(_read_member(self.path, name) for name in (INT8_XML, INT8_WEIGHTS)))
        if graph.digest != said:
            raise BundleError(f"{self.path}: the int8 graph is not the one that {ITEM} names; it is damaged")
        return graph

    @property
    def int8_scores(self) -> Mapping[str, Mapping[str, float]]:
        """What the int8 graph was measured to change, by scene; empty: there is none."""
        return dict(self.item["properties"].get(INT8_SCORES) or {})

    @property
    def int8_of(self) -> str:
        """The digest of what the int8 graph was asked to be made of; empty: there is none, or it is not said."""
        return str(self.item["properties"].get(INT8_OF) or "")

    @property
    def parameters(self) -> int:
        """How many numbers the network holds, as the item says."""
        said = self.item["properties"].get("mlm:total_parameters", 0)
        return said if isinstance(said, int) else 0

    @property
    def network_file(self) -> str:
        """Name of the file that holds the network: its weights, or an ONNX graph."""
        return NETWORK if self.metadata.architecture == ONNX else WEIGHTS

    def onnx(self) -> bytes:
        """Return the ONNX graph that the bundle holds, as it is. Raises BundleError where it holds none."""
        return _read_member(self.path, NETWORK, LARGEST_CHUNK)

    def segmenter(self) -> "Segmenter":
        """Build the network with its weights, in evaluation mode: raw pixels in, probabilities out.

        Raises
        ------
        BundleError
            The weights do not fit the network that the metadata describes.
        """
        from .segmenter import Segmenter

        return Segmenter(self.network(), self.metadata.scaling, self.metadata.activation).eval()

    def network(self) -> "nn.Module":
        """Build the network alone, with its weights: scaled pixels in, logits out."""
        if self.metadata.architecture == ONNX:
            raise BundleError(f"{self.metadata.name} holds an ONNX graph, of which there is no network in torch")
        try:
            empty = _without_numbers(self.metadata)
            state = _read_weights(self.path, expected=sum(t.nbytes for t in empty.state_dict().values()))
            difference = _compare(empty, state)
            if difference:
                raise BundleError(
                    f"{self.path}: the weights do not fit the network that {ITEM} describes: {difference}"
                )
            network = _build(self.metadata)
        except NetworkError as error:
            raise BundleError(f"{self.path}: {error}") from error
        _refuse_not_finite(state, os.fspath(self.path))
        network.load_state_dict(state)
        return network.eval()


def save_bundle(
    path: str | os.PathLike[str], network: "nn.Module", metadata: BundleMetadata, *, overwrite: bool = False
) -> Bundle:
    """Write a bundle; the folder or zip appears only when it is whole.

    Parameters
    ----------
    path
        Ends in `.zip` for one file, else a folder.
    network
        The network that `metadata` describes: scaled pixels in, logits out.
    metadata
        Of the network: bands, scaling, classes and the rest.
    overwrite
        Replace what is there. Otherwise an existing path is refused.

    Raises
    ------
    BundleError
        The path exists, or what is to be replaced is no bundle; metadata and network do not agree; writing fails.
    """
    target = _free(path, overwrite=overwrite)
    difference = _compare(_without_numbers(metadata), network.state_dict())
    if difference:
        raise BundleError(f"the network is not the {metadata.architecture} that the metadata describes: {difference}")
    _refuse_not_finite(network.state_dict(), "the network")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return _write(target, lambda: {ITEM: _item_text(metadata, WEIGHTS, parameters), WEIGHTS: _weights_of(network)})


def save_onnx(
    path: str | os.PathLike[str], content: bytes, parameters: int, metadata: BundleMetadata, *, overwrite: bool = False
) -> Bundle:
    """Write a bundle that holds an ONNX graph instead of weights, as `save_bundle`.

    Parameters
    ----------
    content
        The graph, with all its data. `metadata` has the architecture `onnx`, and `GraphForm` as its options.
    parameters
        How many numbers the graph holds.

    Raises
    ------
    BundleError
        As `save_bundle`.
    """
    target = _free(path, overwrite=overwrite)
    return _write(target, lambda: {ITEM: _item_text(metadata, NETWORK, parameters), NETWORK: content})


def _free(path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Return where a bundle may be written. Raises BundleError where it may not."""
    target = local_path(path, error=BundleError)
    if target.exists() and not overwrite:
        refuse_existing(target, error=BundleError)
    check_replaced(target)
    return target


def _write(target: Path, contents: Callable[[], Mapping[str, bytes]]) -> Bundle:
    """Write a folder or a zip of files by their names, whole or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            whole = Path(folder) / "bundle"
            if target.suffix == ".zip":
                with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
                    for name, content in contents().items():
                        archive.writestr(name, content)  # stored: weights do not compress
            else:
                whole.mkdir()
                for name, content in contents().items():
                    (whole / name).write_bytes(content)
            with write_digest(target, _by_name(whole, target.name)):
                put_in_place(whole, target)
    except OSError as error:
        raise BundleError(f"{target} cannot be written: {error.strerror or error}") from error
    except (TypeError, ValueError) as error:
        raise BundleError(f"{target} cannot hold this metadata: {error}; give text or finite numbers") from error
    return load_bundle(target)


def add_metrics(path: str | os.PathLike[str], metrics: Mapping[str, Any]) -> Bundle:
    """Write metrics into a bundle, beside those it has."""
    bundle = load_bundle(path)
    int8, scores, made_of = bundle.int8, bundle.int8_scores, bundle.int8_of
    metadata = replace(bundle.metadata, metrics={**bundle.metadata.metrics, **metrics})
    if metadata.architecture == ONNX:
        saved = save_onnx(path, bundle.onnx(), bundle.parameters, metadata, overwrite=True)
    else:
        saved = save_bundle(path, bundle.network(), metadata, overwrite=True)
    return saved if int8 is None else add_int8(saved, path, int8, scores, made_of)


def add_int8(
    bundle: Bundle,
    path: str | os.PathLike[str],
    graph: QuantisedGraph,
    scores: Mapping[str, Mapping[str, float]],
    made_of: str = "",
) -> Bundle:
    """Write a bundle anew, with an int8 graph and what that was measured to change, by scene; see `save_bundle`.

    Its digest is another one: it holds the graph's. `made_of` tells what the graph was asked to be made of.
    """
    target = local_path(path, error=BundleError)
    check_replaced(target)
    added = {INT8: graph.digest, INT8_SCORES: dict(scores)} | ({INT8_OF: made_of} if made_of else {})
    item = {**bundle.item, "properties": {**bundle.item["properties"], **added}}
    contents = {
        ITEM: _text_of(item).encode(),
        bundle.network_file: _read_network(bundle),
        INT8_XML: graph.xml,
        INT8_WEIGHTS: graph.weights,
    }
    return _write(target, lambda: contents)


def _read_network(bundle: Bundle) -> bytes:
    return _read_member(bundle.path, bundle.network_file, LARGEST_CHUNK)


def finish_bundle(target: Path) -> Bundle:
    """Load a bundle that is whole, and write its digest where that is missing: see `write_missing_digest`."""
    bundle = load_bundle(target)
    write_missing_digest(target, _by_name(target, target.name))
    return bundle


def _by_name(whole: Path, name: str) -> dict[str, Path]:
    """Return the files of a new bundle by the names that they get, from where it will lie."""
    return {name: whole} if whole.is_file() else {f"{name}/{part.name}": part for part in sorted(whole.iterdir())}


def check_replaced(target: Path) -> None:
    """Refuse to replace anything but a bundle. Raises BundleError."""
    if not target.exists():
        return
    if target.is_dir():
        names = [path.name for path in target.iterdir()]
    elif target.suffix == ".zip" and zipfile.is_zipfile(target):
        with zipfile.ZipFile(target) as archive:
            names = archive.namelist()
    else:
        raise BundleError(f"{target} is a file, and no bundle; give the name of a folder, or one that ends in .zip")
    foreign = sorted(set(names) - MEMBERS)
    if foreign:
        raise BundleError(
            f"{target} also holds {', '.join(foreign[:5])}; only a bundle is replaced, so choose another name"
        )
    if names and ITEM not in names:  # as weights of the user's own; a kill leaves no bundle without it
        raise BundleError(
            f"{target} is no bundle (it has no {ITEM}); only a bundle is replaced, so choose another name"
        )


def load_bundle(name: str | os.PathLike[str]) -> Bundle:
    """Load a bundle's metadata and check that it is whole. Weights are not read into memory, nor torch imported.

    Parameters
    ----------
    name
        A shipped bundle's name, or the path or URL of a folder or zip (a URL: zip only). `NAME@sha256:DIGEST`: one of
        this digest, and no other.

    Raises
    ------
    BundleError
        No such bundle, or it is damaged, or not the one that is asked for.
    """
    return check_pin(_load(find_bundle(os.fspath(name))), os.fspath(name))


def check_pin(bundle: Bundle, name: str) -> Bundle:
    """Return a bundle that was found by its name. Raises BundleError where the name has another digest."""
    pinned = split_pin(name)[1]
    if pinned and bundle.digest != pinned:
        raise BundleError(f"the bundle {bundle.path} has the digest {bundle.digest}, and {pinned} is asked for")
    return bundle


def _load(path: Path) -> Bundle:
    try:
        item = _read_item(path)
        metadata = from_item(item)
    except BundleError as error:
        raise BundleError(f"{path} is not a usable bundle: {error}") from error
    return Bundle(metadata, path, _digest(path, item, NETWORK if metadata.architecture == ONNX else WEIGHTS))


def bundle_at(path: str, digest: str) -> Bundle:
    """Load the bundle of a digest: from its path, else what `keep_bundle` has kept.

    Raises
    ------
    BundleError
        It is nowhere, or the path has another one.
    """
    try:
        found = load_bundle(Path(path))
    except BundleError:
        if (kept := kept_bundle(digest)) is None:
            raise
        return kept
    if found.digest == digest:
        return found
    if (kept := kept_bundle(digest)) is None:
        raise BundleError(f"the bundle at {path} is another one here: digest {found.digest[:12]}, not {digest[:12]}")
    return kept


def pack_bundle(bundle: Bundle) -> bytes:
    """Return a bundle as one zip, for machines that have not got it."""
    names = [ITEM, *([INT8_XML, INT8_WEIGHTS] if INT8 in bundle.item["properties"] else [])]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(bundle.network_file, _read_network(bundle))
        for name in names:
            archive.writestr(name, _read_member(bundle.path, name))
    return packed.getvalue()


def keep_bundle(packed: bytes, digest: str) -> None:
    """Keep a packed bundle in the user's cache by its digest."""
    keep_file(_kept_at(digest), "the bundle", lambda part: part.write_bytes(packed))


def kept_bundle(digest: str) -> Bundle | None:
    """Return a bundle from the user's cache; None: it is not there, or is another."""
    try:
        bundle = load_bundle(_kept_at(digest))
    except BundleError:
        return None
    return bundle if bundle.digest == digest else None


def _kept_at(digest: str) -> Path:
    from .system import cache_folder

    return cache_folder("bundles") / f"{digest}.zip"


def shipped_bundles() -> list[Bundle]:
    """Load every bundle that comes with Swathe, in the order of their names."""
    return [load_bundle(item.parent) for item in sorted(SHIPPED.glob(f"*/{ITEM}"))]


def find_bundle(name: str, *, decode: bool = True) -> Path:
    """Return where a bundle lies, which may be in the cache of downloads. Raises BundleError.

    `decode`: one that is fetched is read, to see that it came whole; else nothing of it is.
    """
    name, pinned = split_pin(name)
    if "://" in name:
        from .fetching import fetch_bundle

        return fetch_bundle(name, (lambda path: _load(path).digest) if decode else None, pinned)
    path, shipped = Path(name), SHIPPED / name
    # a folder here without an item merely has the name of a shipped bundle
    if (shipped / ITEM).exists() and (not path.exists() or (path.is_dir() and not (path / ITEM).exists())):
        return shipped
    if path.exists():
        return path
    if (own := _own_bundle(name)) is not None:
        return own
    names = ", ".join(sorted(item.parent.name for item in SHIPPED.glob(f"*/{ITEM}"))) or "none"
    yours = bundles_folder()
    raise BundleError(
        f"no bundle {name!r}: neither a path here, nor a shipped bundle (shipped: {names}), nor in {yours}"
    )


def _own_bundle(name: str) -> Path | None:
    """Return the bundle of a name in the user's own folder."""
    if os.path.basename(name) != name or name in ("", ".", ".."):
        return None
    return next((path for path in (bundles_folder() / name, bundles_folder() / f"{name}.zip") if path.exists()), None)


def is_bundle(name: str) -> bool:
    """Whether a name, or a path, is that of a bundle. A URL is not looked at."""
    try:
        path = find_bundle(name) if "://" not in name else None
        if path is None or path.is_dir():
            return path is not None and (path / ITEM).exists()
        with zipfile.ZipFile(path) as archive:
            return ITEM in archive.namelist()
    except (SwatheError, OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def split_pin(name: str) -> tuple[str, str]:
    """Split `NAME@sha256:DIGEST`; without a pin, the digest is empty. Raises BundleError where it is no digest."""
    place, found, digest = name.rpartition(PIN)
    if not found:
        return name, ""
    if not re.fullmatch("[0-9a-f]{64}", digest.lower()):
        raise BundleError(f"{PIN}{digest[:80]} is no digest: 64 hexadecimal digits follow, see `swathe bundles BUNDLE`")
    return place, digest.lower()


@contextmanager
def _member(path: Path, name: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open one member of a folder or zip by its exact name, with its size. Nothing is ever extracted."""
    if path.is_dir() and not (path / name).resolve().is_relative_to(path.resolve()):
        raise BundleError(f"{path / name} is a link to elsewhere: put the file there itself")
    refuse_special(path / name if path.is_dir() else path, BundleError)
    try:
        if path.is_dir():
            with open(path / name, "rb") as file:
                yield file, os.fstat(file.fileno()).st_size
        else:
            with zipfile.ZipFile(path) as archive, archive.open(name) as file:
                info = archive.getinfo(name)
                if len(archive.infolist()) > MOST_MEMBERS:
                    raise BundleError(f"{path} is a zip of {len(archive.infolist()):,} files, and no bundle")
                if info.file_size > MOST_SHRUNK * max(1, info.compress_size):
                    raise BundleError(f"{path}: {name} is packed like a zip bomb, {info.file_size:,} bytes unpacked")
                yield file, info.file_size  # type: ignore[misc]
    except SwatheError:
        raise
    except (FileNotFoundError, KeyError) as error:
        raise BundleError(f"{path} holds no {name}; a bundle is {ITEM} and {WEIGHTS}, or {NETWORK}") from error
    except Exception as error:  # a damaged zip raises errors of zipfile, zlib, lzma, struct and several builtin ones
        raise BundleError(f"{path} cannot be read as a bundle: {error}") from error


def _read_member(path: Path, name: str, most: int = LARGEST) -> bytes:
    with _member(path, name) as (file, size):
        if size > most:
            raise BundleError(f"{path}: {name} has {size:,} bytes; at most {most:,} are read")
        return file.read(size + 1)  # no more: so much is held at once


def _read_item(path: Path) -> dict[str, Any]:
    with _member(path, ITEM) as (file, size):
        if size > LARGEST_ITEM:
            raise BundleError(f"{ITEM} has {size:,} bytes; at most {LARGEST_ITEM:,} are read")
        content = file.read(LARGEST_ITEM + 1)
    try:
        item = parse_json(content)
    except ValueError as error:
        raise BundleError(f"{ITEM} is not JSON: {error}") from error
    if not isinstance(item, dict):
        raise BundleError(f"{ITEM} is not a JSON object")
    return item


def _digest(path: Path, item: Mapping[str, Any], network: str) -> str:
    """Hash what decides the network's answers: contract and weights; no dates, provenance, scores or quantiles.

    The same content as folder or zip has the same digest, and so have the same weights imported or trained twice.
    """
    total = hashlib.sha256()
    if DIGEST_OF in item["properties"]:
        properties = {key: value for key, value in item["properties"].items() if key not in FOR_PEOPLE}
        contract = json.dumps(_without_quantiles({**item, "properties": properties}), sort_keys=True)
        total.update(hashlib.sha256(contract.encode()).digest())
    elif (before := _without_quantiles(item)) != item:  # written by 0.1.0 or before, and quantiles added since
        total.update(hashlib.sha256(_text_of(before).encode()).digest())
    else:  # written by 0.1.0 or before: of the file itself, as stores have it
        with _member(path, ITEM) as (file, _):
            total.update(hashlib.file_digest(file, "sha256").digest())  # type: ignore[arg-type]
    with _member(path, network) as (file, _):
        total.update(hashlib.file_digest(file, "sha256").digest())  # type: ignore[arg-type]
    return total.hexdigest()


def _without_quantiles(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item without the quantiles of its bands, which only warn."""
    properties = dict(item["properties"])
    properties["bands"] = [
        {key: value for key, value in band.items() if key != QUANTILES_FIELD} for band in properties["bands"]
    ]
    return {**item, "properties": properties}


def _text_of(item: Mapping[str, Any]) -> str:
    """Return an item as it is written."""
    return json.dumps(item, indent=1, allow_nan=False) + "\n"


def _build(metadata: BundleMetadata) -> "nn.Module":
    from .build import build

    return build(metadata.architecture, len(metadata.bands), metadata.channels, **metadata.options)


def _without_numbers(metadata: BundleMetadata) -> "nn.Module":
    """Build the network without numbers; see `build_empty`."""
    from .build import build_empty

    return build_empty(metadata.architecture, len(metadata.bands), metadata.channels, **metadata.options)


def _compare(network: "nn.Module", state: "Mapping[str, Tensor]") -> str:
    from .build import compare

    return compare(network, state)


def _refuse_not_finite(state: "Mapping[str, Tensor]", whose: str) -> None:
    from .build import refuse_not_finite

    refuse_not_finite(state, whose)


def _read_weights(path: Path, expected: int) -> "Mapping[str, Tensor]":
    import safetensors.torch

    with _member(path, WEIGHTS) as (file, size):
        if size > 2 * expected + 2**24:
            raise BundleError(f"{path}: {WEIGHTS} has {size:,} bytes, the network needs {expected:,}")
        content = file.read()
    try:
        return safetensors.torch.load(content)
    except Exception as error:  # safetensors raises its own and several builtin errors
        raise BundleError(f"{path}: {WEIGHTS} is damaged: {error}") from error


def check_content(bundle: Bundle) -> None:
    """Read weights and graph as they are read when they are used, without torch. Raises BundleError, or the library's.

    Of use in a process that may die of them.
    """
    content = _read_network(bundle)
    try:
        if bundle.metadata.architecture == ONNX:
            from .onnx_file import check_whole, parse

            check_whole(parse(content, bundle.network_file), bundle.network_file)
            if find_spec("openvino") is not None:
                from .openvino_core import CORE  # alone: an engine takes a second to import

                CORE.read_model(io.BytesIO(content))
        else:
            import_module("safetensors").deserialize(content)
    except Exception as error:  # of OpenVINO and of safetensors, and several builtin ones
        raise BundleError(f"{bundle.path} cannot be read as a bundle: {error}") from error
    if (graph := bundle.int8) is not None and find_spec("openvino") is not None:
        from .openvino_core import CORE

        CORE.read_model(graph.xml, graph.weights)


def _item_text(metadata: BundleMetadata, network: str, parameters: int) -> bytes:
    item = to_item(metadata, network, parameters, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    return _text_of(item).encode()


def _weights_of(network: "nn.Module") -> bytes:
    import safetensors.torch

    return safetensors.torch.save(
        {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    )
