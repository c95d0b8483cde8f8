"""What was recognised in a foreign file or folder, and what it tells of its network; facts alone, nothing is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kept = Literal["state", "onnx", "program", "item"]


@dataclass(frozen=True)
class Found:
    """What was recognised in a file or folder, and what it tells of the network.

    Parameters
    ----------
    kind
        In words, as "a folder of segmentation-models-pytorch".
    network
        How its network is kept: `state`, a state dict or safetensors; `onnx`, a graph; `program`, what `torch.export`
        saves; `item`, not at all: facts alone.
    path
        Of the weights, the graph or the program itself; of an item, of that.
    facts
        Settings that were found, with the keys of an import's TOML (`models.imports.settings.KEYS`).
    sources
        By key of `facts`: where it was found, in a few words.
    notes
        What a user should know, one line each.
    inputs, outputs
        Channels in and out. None: not known before the network is built.
    """

    kind: str
    network: Kept
    path: Path
    facts: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inputs: int | None = None
    outputs: int | None = None


Reader = Callable[[Path], Found | None]  # None: it is no such thing. Runs nothing, unpickles tensors and plain values
