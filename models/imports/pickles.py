"""What a pickle is of, told by its opcodes: nothing in it is run. Files of torch are pickles, of tensors or of more."""

import io
import pickletools
import zipfile
import zlib
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

LARGEST = 2**26  # bytes of a pickle that are looked at
MOST = 5_000_000  # opcodes
PICKLES, SAVED = 5, 3  # of torch before 1.6, which wrote several in turn: a number, a version, a table, what was saved
HARMLESS = ("torch._utils.", "torch.storage.", "collections.OrderedDict", "torch.serialization.", "builtins.set",
            "__builtin__.set")  # fmt: skip
STATES = ("state_dict", "model_state_dict", "model")  # keys under which a training keeps weights


@dataclass
class Held:
    """What a pickle names: classes and functions, texts, and whether it is a table."""

    names: list[str] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)
    is_table: bool = False


def describe_pickle(path: Path) -> str:
    """Say of which classes a file is that `torch.load(weights_only=True)` has refused, and what to do.

    Two lines of Python save its weights alone; where no class of torch is in it, there are none.
    """
    try:
        pickles = _held(_pickle_of(path))
    except (OSError, ValueError, IndexError, zipfile.BadZipFile, StopIteration, NotImplementedError, RuntimeError,
            EOFError, zlib.error):  # fmt: skip
        return f"{path} cannot be read as weights alone, and no code in it is run: it is damaged, cut, or no checkpoint"
    named = list(dict.fromkeys(name for each in pickles for name in each.names))
    classes = [word for word in named if not _is_harmless(word)]
    if not classes:
        return f"{path} cannot be read as weights alone, and no code in it is run: it is damaged or cut"
    held = ", ".join(classes[:3]) + (f" and {len(classes) - 3} more" if len(classes) > 3 else "")
    if not any(word.startswith("torch.") for word in named):
        return f"{path} is a pickle of {held}, not of a network of torch; no code in it is run"
    saved = pickles[SAVED if len(pickles) > SAVED else 0]
    key = next((key for key in STATES if key in saved.texts), None)
    of_table = key is not None and saved.is_table
    return (
        f"{path} is a pickle that holds {held}{' beside weights' if of_table else ''}; no code in it is run. "
        "Save its weights alone, where it was made:\n"
        f"  loaded = torch.load({str(path)!r}, weights_only=False)\n"
        f"  torch.save({f'loaded[{key!r}]' if of_table else 'loaded.state_dict()'}, 'weights.pth')"
    )


def _pickle_of(path: Path) -> bytes:
    """Return the pickle in a file of torch: of its zip, else the file itself."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(name) as file:
                return file.read(LARGEST)
    with open(path, "rb") as file:
        return file.read(LARGEST)


def _held(content: bytes) -> list[Held]:
    """Read what pickles name that follow each other. Raises ValueError or IndexError where not even one is whole."""
    file, found = io.BytesIO(content), list[Held]()
    while len(found) < PICKLES:
        try:
            found.append(_held_by_one(file))
        except (ValueError, IndexError):
            if not found:
                raise
            break  # tensors follow
    return found


def _held_by_one(file: io.BytesIO) -> Held:
    held, recent, kept, first = Held(), list[str | None](), dict[int, str | None](), ""
    for code, argument, _ in islice(pickletools.genops(file), MOST):
        value: Any = argument
        if code.name not in ("PROTO", "FRAME") and not first:
            first, held.is_table = code.name, code.name == "EMPTY_DICT"
        if "UNICODE" in code.name:
            recent.append(value)
            held.texts.add(value)
        elif code.name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
            kept[len(kept) if code.name == "MEMOIZE" else int(value)] = recent[-1] if recent else None
        elif code.name in ("BINGET", "LONG_BINGET", "GET"):
            recent.append(kept.get(int(value)))
        elif code.name == "GLOBAL":
            held.names.append(value.replace(" ", "."))
        elif code.name == "STACK_GLOBAL":
            held.names.append(".".join(word or "?" for word in recent[-2:]))
        del recent[:-2]
    return held


def _is_harmless(word: str) -> bool:
    return word.startswith(HARMLESS) or (word.startswith("torch.") and word.endswith(("Storage", "Size", "device")))
