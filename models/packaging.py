"""A bundle's STAC Item as a file of its own, for catalogues: with sizes and checksums, and exported graphs as assets.

Knows bundles and exported files by their paths; what an item holds of facts is `mlm`'s.
"""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .bundle import ITEM, WEIGHTS, Bundle, _read_item
from .errors import BundleError
from .mlm import to_item

FILE_SCHEMA = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
SHA256 = "1220"  # what a multihash of SHA-256 begins with: the function's code, and 32 bytes

JSON = dict[str, Any]


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
    _check_target(bundle, target, overwrite=overwrite)
    item = _item(bundle, target.parent, [Path(name) for name in exported], href)
    text = json.dumps(item, indent=1, allow_nan=False) + "\n"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            part = Path(folder) / target.name
            part.write_text(text, encoding="utf-8")
            os.replace(part, target)
    except OSError as error:
        raise BundleError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def _check_target(bundle: Bundle, target: Path, *, overwrite: bool) -> None:
    if target.suffix.lower() != ".json" or ":/" in str(target):
        raise BundleError(f"{target} must end in .json and be a local path")
    if target.exists() and target.samefile(bundle.path / ITEM if bundle.path.is_dir() else bundle.path):
        raise BundleError(f"{target} is the bundle's own; choose another name")
    if target.exists() and not overwrite:
        raise BundleError(f"{target} exists; choose another name, or pass overwrite to replace it")


def _item(bundle: Bundle, folder: Path, exported: Sequence[Path], href: str) -> JSON:
    zipped = bundle.path.is_file()
    weights = bundle.path if zipped else bundle.path / WEIGHTS
    created = str(_read_item(bundle.path)["properties"]["datetime"])
    item = to_item(bundle.metadata, href or _relative(weights, folder), bundle.parameters, created)
    item["stac_extensions"].append(FILE_SCHEMA)
    asset = item["assets"]["weights"]
    asset |= _file(weights)
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
    digest = _digest_in(path)
    if digest != bundle.digest:
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
        **_file(path),
    }


def _digest_in(path: Path) -> str:
    """Read of which bundle an exported file says that it is. Empty where it says nothing."""
    try:
        if path.suffix.lower() == ".onnx":
            import onnx

            return str({entry.key: entry.value for entry in onnx.load(path).metadata_props}.get("digest", ""))
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("extra/swathe.json")]
            return str(json.loads(archive.read(names[0]))["digest"]) if names else ""
    except ImportError as error:
        raise BundleError("reading ONNX needs the package onnx: pip install 'swathe[export]'") from error
    except FileNotFoundError as error:
        raise BundleError(f"no such file: {path}") from error
    except Exception as error:  # protobuf's, zipfile's, json's
        raise BundleError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _file(path: Path) -> JSON:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file:size": path.stat().st_size, "file:checksum": SHA256 + digest}


def _relative(path: Path, folder: Path) -> str:
    """Give a reference from one place to another, with what a URL does not take written as `%..`."""
    from urllib.parse import quote

    try:
        return quote(Path(os.path.relpath(path, folder)).as_posix())
    except ValueError:  # another drive
        return path.absolute().as_uri()
