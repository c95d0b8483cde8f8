"""What a state dict tells of its network: channels in and out, and its architecture where its keys show that."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from .found import Found
from .match import matching_network
from .state_dict import read_state_dict


def read_weights(path: Path) -> Found:
    """Read what a file of weights tells. Raises NetworkError where it holds none, or more than weights.

    Parameters
    ----------
    path
        Safetensors or a checkpoint of torch, in which the state dict may be wrapped and its keys have a prefix.
    """
    return found_of_state(path, read_state_dict(path), "a state dict")


def found_of_state(path: Path, state: Mapping[str, Tensor], kind: str) -> Found:
    """Return what a state dict tells."""
    numbers = sum(tensor.numel() for tensor in state.values())
    kind = f"{kind} of {len(state):,} tensors, {numbers:,} numbers"
    matched = matching_network(state)
    if matched is None:
        note = f"its keys fit no network that is built here, the first are {', '.join(list(state)[:3])}"
        inputs, outputs = _channels(state)
        return Found(kind, "state", path, notes=(note,), inputs=inputs, outputs=outputs)
    facts = {"architecture": matched.architecture, "options": dict(matched.options)}
    return Found(kind, "state", path, facts, dict.fromkeys(facts, "its keys and shapes"), (), matched.bands,
                 matched.channels)  # fmt: skip


def _channels(state: Mapping[str, Tensor]) -> tuple[int | None, int | None]:
    """Guess channels in and out: of the first convolution and of the last."""
    kernels = [tensor for tensor in state.values() if tensor.ndim == 4]
    return (kernels[0].shape[1], kernels[-1].shape[0]) if len(kernels) > 1 else (None, None)
