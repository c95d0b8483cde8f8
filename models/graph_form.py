"""What a bundle says of its ONNX graph: layout, fixed sides and batch, what its answer is. No files, no ONNX."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from .errors import BundleError, EngineError
from .metadata import BundleMetadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

ONNX = "onnx"  # the architecture of a bundle that holds a graph of its own
Layout = Literal["NCHW", "NHWC"]
OutputLayout = Literal["NCHW", "NHWC", "NHW"]
Output = Literal["logits", "probabilities", "classes"]
KEYS = ("layout", "side", "batch", "output", "output_layout", "output_name")
LARGEST_SIDE, LARGEST_BATCH = 8192, 1024


@dataclass(frozen=True, slots=True)
class GraphForm:
    """How pixels are given to an ONNX graph, and how its answer is read: the options of a bundle that holds one.

    Parameters
    ----------
    layout
        Axes of its input: N is the batch, C the bands, H and W rows and columns.
    side
        Rows and columns of its input where they are fixed, in pixels. None: any multiple of the stride.
    batch
        Tiles of its input where their number is fixed.
    output
        `logits`, `probabilities`, or `classes`: the number of the class at each pixel.
    output_layout
        Axes of its output. `NHW`: classes without an axis of their own.
    output_name
        Of the output that is meant, where there are several.
    """

    layout: Layout = "NCHW"
    side: int | None = None
    batch: int | None = None
    output: Output = "logits"
    output_layout: OutputLayout = "NCHW"
    output_name: str = ""

    def __post_init__(self) -> None:
        for value, kinds in ((self.layout, Layout), (self.output, Output), (self.output_layout, OutputLayout)):
            if value not in get_args(kinds):
                raise BundleError(f"an ONNX graph's option is {' or '.join(get_args(kinds))}; received {value!r}")
        for name, most in (("side", LARGEST_SIDE), ("batch", LARGEST_BATCH)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 1 <= value <= most):
                raise BundleError(f"an ONNX graph's {name} is a whole number up to {most}; received {value!r}")
        if not isinstance(self.output_name, str):
            raise BundleError(f"output_name is the name of an output; received {self.output_name!r}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "GraphForm":
        """Read the options of a bundle. Raises BundleError."""
        if unknown := sorted(set(options) - set(KEYS)):
            raise BundleError(f"an ONNX graph has no option {unknown[0][:100]!r}; it has {', '.join(KEYS)}")
        return cls(**options)

    @property
    def options(self) -> dict[str, Any]:
        """As `of` reads them."""
        named = {"output_name": self.output_name} if self.output_name else {}
        return {name: getattr(self, name) for name in KEYS[:-1]} | named


def fixed_shape(metadata: BundleMetadata) -> tuple[int | None, int | None]:
    """Return side and batch of a network's input where they are fixed."""
    if metadata.architecture != ONNX:
        return None, None
    form = GraphForm.of(metadata.options)
    return form.side, form.batch


def check_side(side: int | None, shape: tuple[int, ...]) -> None:
    """Refuse tiles `(n, band, y, x)` of other sides than a network's fixed ones. Raises EngineError."""
    if side is not None and shape[2:] != (side, side):
        raise EngineError(f"the network takes tiles of {side} x {side} pixels alone; received {shape[2]} x {shape[3]}")


def in_batches(
    answer: "Callable[[NDArray[Any]], list[NDArray[Any]]]", pixels: "NDArray[Any]", batch: int | None
) -> "list[NDArray[Any]]":
    """Give tiles in the number that a graph takes at a time; the last ones are given with copies of the first."""
    if batch is None or len(pixels) == batch:
        return answer(pixels)
    import numpy as np  # a plan must not wait for it

    found = []
    for begin in range(0, len(pixels), batch):
        part = pixels[begin : begin + batch]
        filled = part if len(part) == batch else np.concatenate([part, *[part[:1]] * (batch - len(part))])
        found.append([result[: len(part)] for result in answer(filled)])
    # of one part there is nothing to put together, and its answer may be large
    return found[0] if len(found) == 1 else [np.concatenate(results) for results in zip(*found, strict=True)]
