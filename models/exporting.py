"""A bundle for other programs and catalogues: ONNX, a `torch.export` program, a STAC Item with sizes and checksums.

A graph takes raw pixels and returns probabilities. It is run after it is written and compared with the bundle; only a
file that agrees gets its name.
"""

import hashlib
import io
import json
import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .bundle import ITEM, WEIGHTS, Bundle
from .errors import BundleError, NetworkError, SwatheError, require_extra
from .files import check_output, whole_file
from .limits import parse_json
from .mlm import JSON, to_item

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LARGEST_ONNX = 2**31 - 2**20  # bytes; protobuf takes no message of 2 GiB
CLOSE = 1e-5  # of a probability; what two libraries' orders of adding up may differ by
NOISE = 4  # times that float32 itself may be off, where a network magnifies rounding by more
SIDES = ((1, 1, 2), (3, 2, 1))  # batch, height and width of what is checked, sides in multiples of a tile
FILE_SCHEMA = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
SHA256 = "1220"  # what a multihash of SHA-256 begins with: the function's code, and 32 bytes
NOISY = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written and checked.

    Parameters
    ----------
    path
        Of the file.
    difference
        The largest difference of any probability from the bundle's, on random pixels of several sizes.
    """

    path: Path
    difference: float


def export_onnx(bundle: Bundle, path: str | os.PathLike[str], *, overwrite: bool = False) -> Exported:
    """Write a bundle as one ONNX file: scaling, network, softmax or sigmoid.

    Its input `pixels` is `(batch, band, height, width)` float32 of raw values, height and width any multiples of the
    stride from twice on; its output `probabilities` is `(batch, class, height, width)` float32. `metadata_props` holds
    what `describe` returns.

    Parameters
    ----------
    path
        Ends in `.onnx`. Appears only when the file is whole and checked with ONNX Runtime.
    overwrite
        Replace a file that is there. Otherwise it is refused.

    Raises
    ------
    NetworkError
        A package is missing, the network has no ONNX graph, or the file's probabilities differ from the bundle's.
    BundleError
        The path is taken, or its ending is another one.
    """
    require_extra("export", "ONNX", "onnx", "onnxscript", "onnxruntime", error=NetworkError)
    if 4 * bundle.parameters > LARGEST_ONNX:
        raise NetworkError(
            f"{bundle.metadata.name} has {bundle.parameters:,} parameters, too many for ONNX: write a .pt2"
        )
    if not overwrite and _is_of(path, ".onnx", bundle):
        return Exported(Path(path), _difference(bundle, _run_onnx(Path(path))))
    with _writing(path, ".onnx", overwrite) as part, _converting(bundle, "ONNX"):
        _write_onnx(bundle, part)
        difference = _difference(bundle, _run_onnx(part))
    return Exported(Path(path), difference)


def export_program(bundle: Bundle, path: str | os.PathLike[str], *, overwrite: bool = False) -> Exported:
    """Write a bundle as a program of `torch.export`, as `export_onnx`. The extra file `swathe.json` holds `describe`.

    Parameters
    ----------
    path
        Ends in `.pt2`; read it with `torch.export.load`.
    overwrite
        Replace a file that is there.

    Raises
    ------
    NetworkError
        The network cannot be exported, or the file's probabilities differ from the bundle's.
    BundleError
        The path is taken, or its ending is another one.
    """
    import torch

    if not overwrite and _is_of(path, ".pt2", bundle):
        return Exported(Path(path), _difference(bundle, torch.export.load(path).module()))
    with _writing(path, ".pt2", overwrite) as part, _converting(bundle, "torch.export"):
        content = io.BytesIO()  # torch's own writer ends the process where a disk is full (2.15)
        torch.export.save(_program(bundle), content, extra_files={"swathe.json": json.dumps(describe(bundle))})
        part.write_bytes(content.getbuffer())
        difference = _difference(bundle, torch.export.load(part).module())
    return Exported(Path(path), difference)


def describe(bundle: Bundle) -> dict[str, Any]:
    """Describe a bundle for an exported file: bands, classes, scaling (which its graph holds), stride, digest."""
    metadata = bundle.metadata
    return {
        "name": metadata.name,
        "description": metadata.description,
        "digest": bundle.digest,
        "architecture": metadata.architecture,
        "bands": [{"name": band.name, "fill": band.mean} for band in metadata.bands],
        "classes": [{"name": info.name, "color": info.color.upper()} for info in metadata.classes],
        "dtype": metadata.dtype,
        "scaling": {name: getattr(metadata.scaling, name) for name in ("kind", "offset", "divisor")},
        "activation": metadata.activation,
        "stride": metadata.receptive_field.stride,
        "radius": metadata.receptive_field.radius,
        "resolution": metadata.resolution,
    }


@contextmanager
def _writing(path: str | os.PathLike[str], ending: str, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path in the folder of the target, which takes the target's name at the end."""
    if Path(path).suffix.lower() != ending:
        raise BundleError(f"{os.fspath(path)} must end in {ending}")
    with whole_file(check_output(path, overwrite=overwrite, error=BundleError), error=BundleError) as part:
        yield part


@contextmanager
def _converting(bundle: Bundle, what: str) -> Iterator[None]:
    """Keep the exporters' chatter from the terminal, and turn what they raise into one line."""
    loggers = [logging.getLogger(name) for name in NOISY]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (OSError, SwatheError):
        raise
    except Exception as error:  # of tracing, of operators that are missing, of constraints that do not hold
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise NetworkError(f"{bundle.metadata.architecture} cannot be exported by {what}: {reason}") from error
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _program(bundle: Bundle) -> "torch.export.ExportedProgram":
    import torch

    stride = bundle.metadata.receptive_field.stride
    # two of each, since one of anything would be taken for a constant
    example = torch.zeros(2, len(bundle.metadata.bands), 2 * _tile(bundle), 2 * _tile(bundle))
    # a side of one stride is one pixel in the depth of the network, which would be a case of its own
    rows, columns = (torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    sizes = {0: torch.export.Dim("batch", min=1), 2: stride * rows, 3: stride * columns}
    with torch.no_grad():
        return torch.export.export(bundle.segmenter().requires_grad_(False), (example,), dynamic_shapes=(sizes,))


def _tile(bundle: Bundle) -> int:
    """Side in pixels of a small tile for the network; pyramid pooling and the like need more than their stride."""
    stride = bundle.metadata.receptive_field.stride
    return stride * max(2, -(-64 // stride))


def _write_onnx(bundle: Bundle, part: Path) -> None:
    import torch

    made = torch.onnx.export(
        _program(bundle),
        input_names=["pixels"],
        output_names=["probabilities"],
        dynamo=True,
        verbose=False,
        external_data=False,
    )
    assert made is not None  # only None where a file is written at once
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in describe(bundle).items()}
    made.model.metadata_props.update(texts)
    made.save(part, external_data=False)


def _run_onnx(part: Path) -> "Callable[[Tensor], Tensor]":
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal; what goes wrong is raised too
    session = onnxruntime.InferenceSession(str(part), options, providers=["CPUExecutionProvider"])
    return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])


def _difference(bundle: Bundle, exported: "Callable[[Tensor], Tensor]") -> float:
    """Run an exported graph and the bundle on random pixels; return the largest difference of a probability."""
    import torch

    segmenter, exact = bundle.segmenter(), bundle.segmenter().double()
    random = torch.Generator().manual_seed(0)
    largest = allowed = 0.0
    for batch, rows, columns in SIDES:
        shape = (batch, len(bundle.metadata.bands), rows * _tile(bundle), columns * _tile(bundle))
        pixels = (torch.randn(shape, generator=random) + 0.5) * segmenter.divisor + segmenter.offset
        with torch.inference_mode():
            right = segmenter(pixels)
            allowed = max(CLOSE, allowed, NOISE * float((right - exact(pixels)).abs().max()))
            largest = max(largest, float((exported(pixels) - right).abs().nan_to_num(torch.inf).max()))
    if largest > allowed:
        raise NetworkError(f"the exported {bundle.metadata.name} differs from the bundle by {largest:.2g}: not written")
    return largest


def write_item(
    bundle: Bundle,
    path: str | os.PathLike[str],
    exported: Sequence[str | os.PathLike[str]] = (),
    *,
    href: str = "",
    overwrite: bool = False,
) -> Path:
    """Write a bundle's STAC Item, valid for STAC 1.1 and MLM 1.5.

    Parameters
    ----------
    bundle
        Whose weights the item points to, relative to itself.
    path
        A `.json` file. Appears only when it is whole.
    exported
        Files that `exporting` has made of this bundle, `.onnx` and `.pt2`: further assets.
    href
        Where others find the weights, or the zip of a zipped bundle. Empty: where they are here.
    overwrite
        Replace a file that is there. Otherwise it is refused.

    Raises
    ------
    BundleError
        The path is taken, or an exported file is missing or of another bundle.
    """
    target = Path(path)
    if target.exists() and target.samefile(bundle.path / ITEM if bundle.path.is_dir() else bundle.path):
        raise BundleError(f"{target} is the bundle's own; choose another name")
    item = _item(bundle, target.parent, [Path(name) for name in exported], href)
    text = json.dumps(item, indent=1, allow_nan=False) + "\n"
    if target.is_file() and target.read_bytes() == text.encode():
        return target
    with _writing(path, ".json", overwrite) as part:
        part.write_text(text, encoding="utf-8")
    return target


def _item(bundle: Bundle, folder: Path, exported: Sequence[Path], href: str) -> JSON:
    zipped = bundle.path.is_file()
    weights = bundle.path if zipped else bundle.path / WEIGHTS
    created = str(bundle.item["properties"]["datetime"])
    item = to_item(bundle.metadata, href or _relative(weights, folder), bundle.parameters, created)
    item["stac_extensions"].append(FILE_SCHEMA)
    asset = item["assets"]["weights"]
    asset |= _size_and_checksum(weights)
    if zipped:
        asset |= {
            "type": "application/zip",
            "mlm:artifact_type": "swathe bundle",
            "title": f"{bundle.metadata.name}, zipped",
        }
    for path in exported:
        kind = path.suffix.lower().removeprefix(".")
        if kind in item["assets"]:
            raise BundleError(f"two files of the kind .{kind}: an item has one")
        item["assets"][kind] = _exported_asset(bundle, path, folder)
    return item


def _exported_asset(bundle: Bundle, path: Path, folder: Path) -> JSON:
    known = {
        ".onnx": ("ONNX", "onnx.save", "application/octet-stream; framework=onnx"),
        ".pt2": ("PyTorch", "torch.export.save", "application/octet-stream; framework=pytorch"),
    }
    if path.suffix.lower() not in known:
        raise BundleError(f"{path} is neither .onnx nor .pt2; make one by `swathe export-model`")
    if _digest_in(path) != bundle.digest:
        raise BundleError(f"{path} was not made of this bundle, {bundle.metadata.name} {bundle.digest[:12]}")
    framework, artifact, media = known[path.suffix.lower()]
    return {
        "href": _relative(path, folder),
        "title": f"{bundle.metadata.name} as {framework} graph: raw pixels in, probabilities out",
        "type": media,
        "roles": ["mlm:model", "mlm:compiled"],
        "mlm:artifact_type": artifact,
        "mlm:framework": framework,
        "bands": [{"name": name} for name in bundle.metadata.band_names],
        **_size_and_checksum(path),
    }


def _is_of(path: str | os.PathLike[str], ending: str, bundle: Bundle) -> bool:
    """Whether a file is there that was exported from this very bundle."""
    try:
        return Path(path).suffix.lower() == ending and _digest_in(Path(path)) == bundle.digest
    except BundleError:  # none, or none of ours
        return False


def _digest_in(path: Path) -> str:
    """Read the digest of the bundle that an exported file was made of. Empty where the file holds none."""
    if path.suffix.lower() == ".onnx":
        require_extra("export", "reading ONNX", "onnx", error=BundleError)
    try:
        if path.suffix.lower() == ".onnx":
            import onnx

            return str({entry.key: entry.value for entry in onnx.load(path).metadata_props}.get("digest", ""))
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("extra/swathe.json")]
            return str(parse_json(archive.read(names[0]))["digest"]) if names else ""
    except FileNotFoundError as error:
        raise BundleError(f"no such file: {path}") from error
    except Exception as error:  # protobuf's, zipfile's, json's
        raise BundleError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _size_and_checksum(path: Path) -> JSON:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file:size": path.stat().st_size, "file:checksum": SHA256 + digest}


def _relative(path: Path, folder: Path) -> str:
    """Path of a file relative to a folder, percent-encoded as in a URL."""
    try:
        return quote(Path(os.path.relpath(path, folder)).as_posix())
    except ValueError:  # another drive
        return path.absolute().as_uri()
