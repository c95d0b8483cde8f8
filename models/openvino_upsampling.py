"""Give OpenVINO transposed convolutions that have the same bits in tiles of every size, where its own have not.

Without AVX-512, oneDNN's sum in another order with the width of the tile where kernels overlap: each then differs by
about 1e-7, enough to break "tiled equals whole" (seen with OpenVINO 2026.4). Its 3x3 convolutions do not, so one of
them and a shuffle of its channels stand in. This takes about 5 % longer.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .hardware import cpu_name
from .openvino_core import ov

ops = ov.opset13
PHASES = np.array([[3, 1, 4], [4, 2, 0]])  # by p and d from -1: rows of a kernel; there are zeros in the fifth


def same_bits_upsampling(model: "ov.Model") -> "ov.Model":
    """Replace, in place, what doubles rows and columns with an overlapping float32 kernel, on a CPU that needs it."""
    if "avx2" in cpu_name():
        for node in model.get_ordered_ops():
            if node.get_type_name() == "ConvolutionBackpropData" and (kernel := _kernel(node)) is not None:
                _replace(node, kernel)
    return model


def _kernel(node: Any) -> NDArray[np.float32] | None:
    """Return the kernel `(in, out, y, x)` of a transposed convolution that doubles both sides and overlaps, or None."""
    about, weights = node.get_attributes(), node.input_value(1).get_node()
    plain = weights.get_type_name() == "Constant" and node.get_element_type() == ov.Type.f32
    if not plain or node.get_input_size() > 2 or about["auto_pad"] != "explicit":
        return None
    kernel = np.asarray(weights.data, np.float32)
    more = about["output_padding"] or [0, 0]
    sides = zip(kernel.shape[2:], about["pads_begin"], about["pads_end"], more, strict=True)
    fits = all(size in (3, 4) and first == 1 and size - first - last + added == 2 for size, first, last, added in sides)
    return kernel if fits and list(about["strides"]) == [2, 2] and list(about["dilations"]) == [1, 1] else None


def _replace(node: Any, kernel: NDArray[np.float32]) -> None:
    """Let a 3x3 convolution give, as channels, the four pixels that come of each, and put these in their places.

    The output row 2y + p sees the input row y + d by the kernel's row p + 1 - 2d, see `PHASES`.
    """
    inputs, outputs, *sides = kernel.shape
    kernel = np.pad(kernel, [(0, 0), (0, 0), *((0, 5 - side) for side in sides)])
    taps = kernel[:, :, PHASES][..., PHASES].transpose(1, 2, 4, 0, 3, 5)  # (out, 2, 2, in, 3, 3)
    taps = taps.reshape(4 * outputs, inputs, 3, 3)
    four = ops.convolution(node.input_value(0), taps, [1, 1], [1, 1], [1, 1], [1, 1])
    node.output(0).replace(ops.depth_to_space(four, "depth_first", 2).output(0))
