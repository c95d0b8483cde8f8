"""What a file is by its first bytes and its directory; what is no network is refused in a line that names it."""

import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ..errors import BundleError
from ..limits import MOST_MEMBERS
from .onnx_outline import is_onnx

Kind = Literal["safetensors", "checkpoint", "onnx", "program", "json", "zip"]
HEAD = 4096  # bytes that are looked at
LARGEST_HEADER = 10**8  # bytes; of safetensors, as the library has it

_KERAS = (
    'in Python, keras.saving.load_model("{path}").export("model.onnx", format="onnx") makes ONNX of it; import that'
)
_TFLITE = "convert it with `python -m tf2onnx.convert --tflite {path} --output model.onnx`, and import that"
_RASTER = "it is a scene, not a network: see `swathe segment`"
_UNPACK = "unpack it, and give what was in it"
MAGIC: tuple[tuple[int, bytes, str, str], ...] = (  # place, bytes, what it is, what to do
    (0, b"GGUF", "GGUF, weights of a language model", "no image goes through it; give a network of segmentation"),
    *((0, magic, f"a raster ({kind})", _RASTER) for magic, kind in (
        (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "BigTIFF"), (b"MM\0+", "BigTIFF"), (b"\x89PNG", "PNG"),
        (b"\xff\xd8\xff", "JPEG"), (b"\0\0\0\x0cjP  ", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"GIF8", "GIF"), (b"CDF", "NetCDF"))),
    (4, b"TFL3", "TensorFlow Lite", _TFLITE),
    (0, b"\x93NUMPY", "an array of NumPy", "give a state dict, as torch.save or safetensors write it"),
    *((0, magic, f"packed with {program}", _UNPACK) for magic, program in (
        (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"7z\xbc\xaf", "7-zip"), (b"Rar!", "RAR"))),
    (257, b"ustar", "a tar", _UNPACK),
    (0, b"%PDF", "a PDF", "give the file of the network"),
    (0, b"PAR1", "a table (Parquet)", "give the file of the network"),
)  # fmt: skip
TEXTS: tuple[tuple[str, str, str], ...] = (  # how it begins, in small letters; what it is; what to do
    ("version https://git-lfs", "a pointer of Git LFS and not the file itself",
     "run `git lfs pull` there, or download the file"),
    ("<!doctype html", "a page of HTML, as servers send instead of a file", "download the file itself"),
    ("<html", "a page of HTML, as servers send instead of a file", "download the file itself"),
    ("<?xml", "XML", "of OpenVINO's IR, give the ONNX file that it was made of"),
    ("<net ", "OpenVINO's IR", "give the ONNX file that it was made of"),
)  # fmt: skip
FOLDERS: tuple[tuple[str, str, str], ...] = (  # what it holds, what it is, what to do
    ("bundle.json", "a bundle of Swathe already", "use it as it is: `swathe segment SCENE -m {path}`"),
    ("saved_model.pb", "a SavedModel of TensorFlow",
     "convert it with `python -m tf2onnx.convert --saved-model {path} --output model.onnx`, and import that"),
    ("keras_metadata.pb", "a SavedModel of Keras",
     "convert it with `python -m tf2onnx.convert --saved-model {path} --output model.onnx`, and import that"),
    ("Manifest.json", "a package of Core ML", "give the ONNX file or the weights that it was made of"),
    ("zarr.json", "a Zarr store, which is a scene or holds maps", "see `swathe info`"),
    (".zgroup", "a Zarr store, which is a scene or holds maps", "see `swathe info`"),
    ("manifest.safe", "a scene (.SAFE)", "see `swathe segment`"),
)  # fmt: skip
READ = ("ONNX, safetensors, a state dict or checkpoint of torch, a folder of segmentation-models-pytorch, a program of "
        "torch.export (.pt2), .dlpk or .emd, a STAC Item of a model")  # fmt: skip


def content_kind(path: Path) -> Kind:
    """Tell what a file is by its content. Nothing is unpickled or run.

    Raises
    ------
    BundleError
        It is empty, cut, or of a kind that holds no network which can be read; the line names it and says what to do.
    """
    try:
        with open(path, "rb") as file:
            head, size = file.read(HEAD), path.stat().st_size
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if not head.strip(b"\0"):
        raise refusal(path, "empty" if not size else "nothing but zeros", "it was cut off; copy or download it again")
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return _kind_of_zip(path)
    for place, magic, what, todo in MAGIC:
        if head[place:].startswith(magic):
            raise refusal(path, what, todo)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        raise _hdf5(path)
    if _is_safetensors(path, head, size):
        return "safetensors"
    if head[0] == 0x80 and 2 <= head[1] <= 5:  # a pickle, of torch before 1.6 or of anything else
        return "checkpoint"
    if is_onnx(path):
        return "onnx"
    return _kind_of_text(path, head)


def refusal(path: Path, what: str, todo: str) -> BundleError:
    """Return the line that names what a file or folder is, and says what to do."""
    return BundleError(f"{path} is {what}: {todo.replace('{path}', str(path))}")


def refuse_folder(path: Path) -> BundleError:
    """Return the line for a folder in which no reader has found a network."""
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        return BundleError(f"{path} cannot be read: {error.strerror}")
    if not names:
        return refusal(path, "an empty folder", "give a file or a folder that holds a network")
    for name, what, todo in FOLDERS:
        if name in names:
            return refusal(path, what, todo)
    files = [name for name in names if name.lower().endswith((".onnx", ".safetensors", ".pth", ".pt", ".ckpt", ".pt2"))]
    if files:
        return refusal(path, f"a folder without a description of its network, with {', '.join(files[:4])}",
                       f"give one of its files, as {path / files[0]}")  # fmt: skip
    return refusal(
        path, f"a folder of {len(names):,} files without a network ({', '.join(names[:4])})", f"read are {READ}"
    )


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            begins: int = min((member.header_offset for member in archive.infolist()), default=0)
            if begins:
                raise zipfile.BadZipFile("its end is that of a zip within it")
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise refusal(
            path, "a zip without its end, as a checkpoint of torch that was cut off", "copy or download it again"
        ) from error
    if len(names) > MOST_MEMBERS:
        raise refusal(path, f"a zip of {len(names):,} files", f"at most {MOST_MEMBERS:,} are read")
    ends = {name.partition("/")[2]: name for name in names}
    if any(name.startswith("code/") or name == "constants.pkl" for name in ends) and "data.pkl" in ends:
        raise refusal(path, "TorchScript, which is code",
                      "where its class is at hand, save weights by torch.save(network.state_dict(), 'weights.pth'), "
                      "or export it by torch.onnx.export(network, pixels, 'model.onnx')")  # fmt: skip
    if any(name.startswith("data/aotinductor/") for name in ends):
        raise refusal(path, "a program compiled by AOTInductor, which is machine code",
                      "give what torch.export.save writes of the same network, or ONNX")  # fmt: skip
    if "models/model.json" in ends or "serialized_exported_program.json" in {*ends, *names}:
        return "program"
    if "data.pkl" in ends:
        return "checkpoint"
    if "model.weights.h5" in names:
        raise refusal(path, "a Keras model (.keras)", _KERAS)
    if "bundle.json" in names:
        raise refusal(path, "a bundle of Swathe already", "use it as it is: `swathe segment SCENE -m {path}`")
    if names and all(name.endswith(".npy") for name in names):
        raise refusal(path, "arrays of NumPy (.npz)", "give a state dict, as torch.save or safetensors write it")
    return "zip"


def refuse_zip(path: Path) -> BundleError:
    """Return the line for a zip in which no reader has found a network."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    shown = ", ".join(names[:3])
    return refusal(path, f"a zip of {len(names):,} files without a network ({shown})", f"unpack it; read are {READ}")


def _hdf5(path: Path) -> BundleError:
    """Return the line for HDF5, which may be Keras's."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            keys = {*file.attrs, *file}
    except (OSError, RuntimeError) as error:
        return refusal(path, f"damaged or cut HDF5 ({' '.join(str(error).split())[:80]})", "copy or download it again")
    if "model_config" in keys:
        return refusal(path, "a Keras model (.h5)", _KERAS)
    if {"layer_names", "model_weights", "keras_version", "layers", "_layer_checkpoint_dependencies"} & keys:
        return refusal(path, "weights of Keras without their model (.h5)",
                       "load them into it, and export it: model.export('model.onnx', format='onnx')")  # fmt: skip
    return refusal(path, "HDF5, as NetCDF-4 or arrays", _RASTER)


def _is_safetensors(path: Path, head: bytes, size: int) -> bool:
    """Tell whether a file is safetensors, and whole. Raises BundleError where its end is missing."""
    length = struct.unpack("<Q", head[:8])[0] if len(head) > 9 else 0
    if head[8:9] != b"{" or not 2 <= length <= LARGEST_HEADER:
        return False
    with open(path, "rb") as file:
        file.seek(8)
        text = file.read(length)
    try:
        header = json.loads(text)
        ends = [int(entry["data_offsets"][1]) for key, entry in header.items() if key != "__metadata__"]
    except (ArithmeticError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if len(text) == length:
            raise refusal(path, "damaged safetensors: its header is no table", "copy or download it again") from error
        ends = [size]
    if len(text) < length or 8 + length + max(ends, default=0) > size:
        raise refusal(path, "safetensors that were cut off", "copy or download the file again")
    return True


def _kind_of_text(path: Path, head: bytes) -> Kind:
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < HEAD else "ignore").lstrip("\ufeff").lstrip()
        printable = all(letter.isprintable() or letter.isspace() for letter in text)
    except ValueError:
        printable, text = False, ""
    if not printable:
        raise refusal(
            path, f"no network of a kind that is known (it begins with {head[:8].hex(' ')})", f"read are {READ}"
        )
    if text.startswith("{"):
        return "json"
    for start, what, todo in TEXTS:
        if text.lower().startswith(start):
            raise refusal(path, what, todo)
    if path.suffix == ".toml":
        raise refusal(path, "a text (TOML)", "settings are given with --config, beside the file of the network")
    if path.suffix == ".py":
        raise refusal(path, "Python's source, of which none is run",
                      "give the weights, and the class by --factory package.module:function")  # fmt: skip
    raise refusal(path, f"a text file ({' '.join(text.split())[:40]!r})", f"read are {READ}")


def refuse_json(path: Path, content: object) -> BundleError:
    """Return the line for JSON in which no reader has found a network."""
    keys = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
    return refusal(path, f"JSON that describes no network (it holds {keys})",
                   "a STAC Item with mlm: fields and ArcGIS's .emd are read")  # fmt: skip
