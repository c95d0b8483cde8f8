"""Checkpoints of torch as tensors and plain values; of what else they hold only the names are kept, and nothing runs.

Torch's own unpickler for weights alone does the reading: it makes nothing but tensors, lists, tables, texts and
numbers, and stops at any other class. Training scripts save such classes beside their weights, as settings of
OmegaConf or argparse. Here each is read as an object that does nothing, and settings in it become plain values.
"""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ..errors import BundleError
from ..limits import MOST_MEMBERS, MOST_SHRUNK

LARGEST_PICKLE = 2**26  # bytes of names and structure; those of a network have a thousandth
MOST_CLASSES = 1_000  # of other classes in one file
MOST_VALUES, DEEPEST, LONGEST_TEXT, LARGEST_TENSOR = 100_000, 32, 10_000, 4096  # of plain values
# what only a file that wants to run code asks for
CODE = {"os", "posix", "nt", "sys", "subprocess", "importlib", "runpy", "shutil", "socket", "pty", "ctypes", "code",
        "marshal", "pickle", "webbrowser", "multiprocessing", "commands", "popen2", "imp"}  # fmt: skip
TYPES = {
    "bool",
    "int",
    "float",
    "complex",
    "str",
    "bytes",
    "bytearray",
    "list",
    "tuple",
    "dict",
    "set",
    "frozenset",
    "slice",
    "range",
    "object",
    "type",
    "getattr",
}  # of builtins; enumerations of Python 3.11 use getattr
TABLES = {"lightning.fabric.utilities.data.AttributeDict", "lightning_fabric.utilities.data.AttributeDict",
          "pytorch_lightning.utilities.parsing.AttributeDict",
          "lightning.pytorch.utilities.parsing.AttributeDict"}  # fmt: skip
NAMESPACES = ("argparse.Namespace", "types.SimpleNamespace")


class StandIn:
    """Stands for an object of a class that is not loaded: it keeps what it was made of, and does nothing."""

    name = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "StandIn":
        """Keep what it was made of."""
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __init__(self, *args: Any) -> None:
        """Take the same as `__new__`, which keeps it."""

    def __setstate__(self, state: Any) -> None:
        """Keep what was saved of it."""
        self.state = state


def read_checkpoint(path: Path) -> Any:
    """Read what `torch.save` wrote, without any class of the file's: these are `StandIn`.

    Tensors are mapped to memory, and read only as they are used.

    Raises
    ------
    BundleError
        It is damaged, larger than what it is packed in allows, or asks for code.
    """
    check_packed(path)
    try:
        names = get_unsafe_globals_in_checkpoint(path)
        _refuse_code(names, path)
        with safe_globals([(_stand_in(name), name) for name in names]), as_checkpoint(path) as given:
            return torch.load(given, map_location="cpu", weights_only=True, mmap=given is path)
    except BundleError:
        raise
    except Exception as error:  # of torch, of its C++, of pickle and of zip
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BundleError(f"{path} cannot be read as tensors and plain values: {reason}. {HOW}") from error


@contextmanager
def as_checkpoint(path: Path) -> Iterator[Any]:
    """Yield what `torch.load` is to be given; one that is called `.safetensors` would be read as such by its path."""
    if path.suffix != ".safetensors":
        yield path
        return
    with open(path, "rb") as file:
        yield file


HOW = "Save its weights alone: torch.save(network.state_dict(), 'weights.pth')"


def is_checkpoint(path: Path) -> bool:
    """Whether a file is what `torch.save` writes, by its directory."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    inside = {name.partition("/")[2] for name in names}
    return "data.pkl" in inside and "constants.pkl" not in inside


def check_packed(path: Path) -> None:
    """Refuse by its directory a file that is larger unpacked than any checkpoint. Raises BundleError."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise BundleError(f"{path} is no checkpoint of torch, or cut off: {error}") from error
    if len(members) > 10 * MOST_MEMBERS:
        raise BundleError(f"{path} holds {len(members):,} files; at most {10 * MOST_MEMBERS:,} are read")
    if sum(member.compress_size for member in members) > path.stat().st_size:
        raise BundleError(f"{path} is packed like a zip bomb: its members lie over each other")
    for member in members:
        if member.file_size > MOST_SHRUNK * max(1, member.compress_size):
            raise BundleError(
                f"{path} is packed like a zip bomb: {member.filename} has {member.file_size:,} bytes unpacked"
            )
        if member.filename.endswith("/data.pkl") and member.file_size > LARGEST_PICKLE:
            raise BundleError(
                f"{path} has {member.file_size:,} bytes of structure; at most {LARGEST_PICKLE:,} are read"
            )


def _refuse_code(names: list[str], path: Path) -> None:
    if len(names) > MOST_CLASSES:
        raise BundleError(f"{path} asks for {len(names):,} classes; at most {MOST_CLASSES:,} are passed over")
    for name in sorted(names):
        module, _, rest = name.partition(".")
        if module in CODE or (module == "builtins" and rest not in TYPES):
            raise BundleError(
                f"{path} asks for {name[:100]}, which runs code as the file is read, and is refused. {HOW}"
            )


def _stand_in(name: str) -> Any:
    if name in TABLES:
        return dict
    if name == "collections.defaultdict":
        return _table
    return type("StandIn", (StandIn,), {"name": name})


def _table(*_: Any) -> dict[Any, Any]:
    """Make a table of what had a value for missing keys."""
    return {}


class PlainValues:
    """Makes plain values of what was read, and keeps the names of what could not be.

    A few bytes can hold a list of lists of the same list, so values are counted as they are met.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self.left_out: dict[str, str] = {}

    def table(self, value: Any) -> dict[str, Any]:
        """Return a table of plain values; empty where it is none. Raises BundleError where it is endless."""
        found = self._plain(value, "", 0)
        return found if isinstance(found, dict) else {}

    def _plain(self, value: Any, where: str, depth: int) -> Any:
        self.count += 1
        if self.count > MOST_VALUES or depth > DEEPEST:
            raise BundleError(f"{self.path} has settings without end, or nested too deeply; {HOW}")
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return value[:LONGEST_TEXT]
        if isinstance(value, Mapping):
            found = {
                str(key): self._plain(item, f"{where}.{key}".lstrip("."), depth + 1) for key, item in value.items()
            }
            return {key: item for key, item in found.items() if item is not LEFT_OUT}
        if isinstance(value, list | tuple | set):
            items = [self._plain(item, where, depth + 1) for item in value]
            return LEFT_OUT if any(item is LEFT_OUT for item in items) else items
        if isinstance(value, torch.Tensor):
            return self._tensor(value, where)
        if isinstance(value, StandIn):
            return self._object(value, where, depth)
        return self._leave_out(where, type(value).__name__)

    def _tensor(self, value: torch.Tensor, where: str) -> Any:
        is_plain = value.layout is torch.strided and not value.is_quantized and not value.is_complex()
        if not is_plain or value.numel() > LARGEST_TENSOR:
            return self._leave_out(where, f"a tensor of {value.numel():,} numbers")
        return value.tolist()

    def _object(self, value: StandIn, where: str, depth: int) -> Any:
        """Return the plain value of an object whose class says what it is: settings, paths, enumerations."""
        state = value.state if isinstance(value.state, Mapping) else {}
        if value.name.startswith("omegaconf."):
            inner = state.get("_content", state.get("_val", LEFT_OUT))
            return self._leave_out(where, value.name) if inner is LEFT_OUT else self._plain(inner, where, depth + 1)
        if value.name in NAMESPACES:
            return self._plain(state, where, depth + 1)
        texts = [item for item in value.args if isinstance(item, str)]
        if value.name.startswith("pathlib.") and len(texts) == len(value.args):
            return "/".join(texts).replace("//", "/")
        if value.name == "builtins.getattr" and len(value.args) == 2 and texts:
            return texts[-1]
        if value.state is None and len(value.args) == 1 and isinstance(value.args[0], str | int):
            return value.args[0]  # a member of an enumeration, by its value
        return self._leave_out(where, value.name)

    def _leave_out(self, where: str, what: str) -> Any:
        if len(self.left_out) < 20:
            self.left_out[where] = what
        return LEFT_OUT


LEFT_OUT: Any = type("LeftOut", (), {"__repr__": lambda self: "left out"})()
