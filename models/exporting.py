"""A bundle for other programs and catalogues: ONNX, a `torch.export` program, a STAC Item with sizes and checksums.

A graph takes raw pixels and returns probabilities. It is run after it is written and compared with the bundle; only a
file that agrees gets its name.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .bundle import ITEM, Bundle
from .errors import BundleError, NetworkError, require_extra
from .files import local_path
from .limits import parse_json
from .mlm import JSON, to_item, to_program_metadata
from .tracing import Exported, converting, difference, refuse_large, run_onnx, trace, write_onnx, writing

FILE_SCHEMA = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
SHA256 = "1220"  # what a multihash of SHA-256 begins with: the function's code, and 32 bytes
OWN = "swathe"  # the key of what only Swathe reads, in a file whose other keys are another program's


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
    path = local_path(path, error=BundleError)
    if not overwrite and _is_of(path, ".onnx", bundle):
        return Exported(Path(path), difference(bundle, run_onnx(Path(path))))
    with writing(path, ".onnx", overwrite) as part, converting(bundle, "ONNX"):
        described = describe(bundle)
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in described.items()}
        write_onnx(bundle, part, texts)
        found = difference(bundle, run_onnx(part))
    return Exported(Path(path), found)


def export_program(bundle: Bundle, path: str | os.PathLike[str], *, overwrite: bool = False) -> Exported:
    """Write a bundle as a program of `torch.export`, as `export_onnx`.

    The extra file `swathe.json` holds `describe`, and `mlm-metadata` the fields of the STAC extension for models in
    YAML, as the library `stac_model` embeds them.

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
    import yaml

    path = local_path(path, error=BundleError)
    if not overwrite and _is_of(path, ".pt2", bundle):
        return Exported(Path(path), difference(bundle, torch.export.load(path).module()))
    with writing(path, ".pt2", overwrite) as part, converting(bundle, "torch.export"):
        content = io.BytesIO()  # torch's own writer ends the process where a disk is full (2.15)
        told = to_program_metadata(bundle.metadata, bundle.parameters, str(torch.__version__))
        extra = {"swathe.json": json.dumps(describe(bundle)), "mlm-metadata": yaml.safe_dump(told, allow_unicode=True)}
        torch.export.save(trace(bundle), content, extra_files=extra)
        part.write_bytes(content.getbuffer())
        found = difference(bundle, torch.export.load(part).module())
    return Exported(Path(path), found)


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
        "background": metadata.background,
        "thresholds": dict(metadata.thresholds),
        "dtype": metadata.dtype,
        "scaling": {name: getattr(metadata.scaling, name) for name in ("kind", "offset", "divisor")},
        "activation": metadata.activation,
        "stride": metadata.receptive_field.stride,
        "radius": metadata.receptive_field.radius,
        "resolution": metadata.resolution,
    }


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
    target = local_path(path, error=BundleError)
    if target.exists() and target.samefile(bundle.path / ITEM if bundle.path.is_dir() else bundle.path):
        raise BundleError(f"{target} is the bundle's own; choose another name")
    item = _item(bundle, target.parent, [Path(name) for name in exported], href)
    text = json.dumps(item, indent=1, allow_nan=False) + "\n"
    if target.is_file() and target.read_bytes() == text.encode():
        return target
    with writing(path, ".json", overwrite) as part:
        part.write_text(text, encoding="utf-8")
    return target


def _item(bundle: Bundle, folder: Path, exported: Sequence[Path], href: str) -> JSON:
    zipped = bundle.path.is_file()
    weights = bundle.path if zipped else bundle.path / bundle.network_file
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
    """Whether a file is there that was exported from this very bundle, and not for one program alone."""
    if Path(path).suffix.lower() != ending or not Path(path).is_file():
        return False
    try:
        return _digest_in(Path(path)) == bundle.digest and (ending != ".onnx" or OWN not in read_texts(Path(path)))
    except BundleError:  # none of ours
        return False


def _digest_in(path: Path) -> str:
    """Read the digest of the bundle that an exported file was made of. Empty where the file holds none."""
    try:
        if path.suffix.lower() == ".onnx":
            texts = read_texts(path)
            return texts.get("digest", "") or str(parse_json(texts.get(OWN, "{}")).get("digest", ""))
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("extra/swathe.json")]
            return str(parse_json(archive.read(names[0]))["digest"]) if names else ""
    except BundleError:
        raise
    except FileNotFoundError as error:
        raise BundleError(f"no such file: {path}") from error
    except Exception as error:  # zipfile's, json's
        raise BundleError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def read_texts(path: Path) -> Mapping[str, str]:
    """Read the `metadata_props` of an ONNX file by key. Raises BundleError where it is none, or cannot be read."""
    require_extra("export", "reading ONNX", "onnx", error=BundleError)
    import onnx

    try:
        return {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    except FileNotFoundError as error:
        raise BundleError(f"no such file: {path}") from error
    except Exception as error:  # protobuf's
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
