"""Torch operations whose result at a pixel is the same bit for bit, whatever the tile and the number of threads.

Some of torch's do not: transposed convolutions sum in another order with the size and the threads, convolutions of
small inputs are done by another library, and softmax and sigmoid round the ends of their vectors otherwise. Each
differs by about 1e-7, enough to break "tiled equals whole". What stands here instead costs a few per cent at most.
For torch on a CPU; of OpenVINO see `openvino_upsampling`, and CUDA has reasons of its own to differ by as much.
"""

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional


def sigmoid(logits: Tensor) -> Tensor:
    """Compute 1 / (1 + exp(-logits)) to within 1e-7; `tanh` treats all elements alike, `torch.sigmoid` does not."""
    return (logits * 0.5).tanh_().mul_(0.5).add_(0.5)


def softmax(logits: Tensor) -> Tensor:
    """Compute the softmax over dim 1 of `(n, class, y, x)` to within 2e-7; the sum over classes keeps its order.

    NaN in all classes where any logit is NaN or infinite: a difference of a number and itself is 0, else NaN.
    """
    if logits.shape[1] == 2:
        difference = logits[:, 1:] - logits[:, :1]
        foreground = sigmoid(difference) + (difference - difference)
        return torch.cat([1 - foreground, foreground], dim=1)
    logits = logits.contiguous()
    by_class = logits.unbind(1)
    total = reduce(torch.add, by_class)
    largest = reduce(torch.maximum, by_class) + (total - total)
    powers = (logits - largest.unsqueeze(1)).exp_()
    return powers / reduce(torch.add, powers.unbind(1)).unsqueeze(1)


def deterministic_upsampling(network: nn.Module) -> nn.Module:
    """Replace, in place, overlapping transposed convolutions of stride two by convolutions that do the same."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ConvTranspose2d) and _overlaps(child):
                setattr(module, name, _Upsampling(child))
    return network


def deterministic_convolutions(network: nn.Module) -> nn.Module:
    """Make convolutions always run in oneDNN, in place, for float32 on a CPU: `nn.Conv2d` chooses by size."""
    if not torch.backends.mkldnn.is_available():
        return network
    for module in network.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.__class__ = _Convolution
    return network


class _Convolution(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert not isinstance(self.padding, str)  # `deterministic_convolutions` leaves those alone
        return torch.mkldnn_convolution(input, weight, bias, self.padding, self.stride, self.dilation, self.groups)


def _overlaps(module: nn.ConvTranspose2d) -> bool:
    """Whether it is a transposed convolution that doubles the size with a kernel of 3 or 4, as decoders have them."""
    return (
        (module.stride, module.padding, module.dilation) == ((2, 2), (1, 1), (1, 1))
        and module.groups == 1
        and (module.kernel_size, module.output_padding) in (((3, 3), (1, 1)), ((4, 4), (0, 0)))
    )


class _Upsampling(nn.Module):
    """A transposed convolution as four convolutions, one for each place in a square of outputs, done as one.

    Of a kernel w, the output row 2i sees input rows i-1 and i by w[3] and w[1], the row 2i+1 sees i and i+1 by w[2] and
    w[0]. So one 2x2 convolution of the input with an edge of zeros gives rows 2i-1 and 2i for every i; a kernel of 3
    has w[3] = 0.
    """

    def __init__(self, transposed: nn.ConvTranspose2d) -> None:
        super().__init__()
        missing = 4 - transposed.kernel_size[0]
        kernel = functional.pad(transposed.weight.detach(), (0, missing, 0, missing))  # (in, out, 4, 4)
        inputs, outputs = kernel.shape[:2]
        taps = torch.tensor([[2, 0], [3, 1]])  # (odd or even row, row before or after)
        kernel = kernel[:, :, taps][..., taps].permute(1, 2, 4, 0, 3, 5)  # (out, 2, 2, in, 2, 2)
        self.phases = nn.Conv2d(inputs, outputs * 4, 2, bias=transposed.bias is not None)
        self.phases.weight = nn.Parameter(kernel.reshape(outputs * 4, inputs, 2, 2).contiguous())
        if transposed.bias is not None:
            self.phases.bias = nn.Parameter(transposed.bias.detach().repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        """Upsample `(n, in, y, x)` to `(n, out, 2y, 2x)`."""
        edged = functional.pad(x, (1, 1, 1, 1))  # oneDNN's own padding of small kernels is not deterministic
        return functional.pixel_shuffle(self.phases(edged), 2)[:, :, 1:-1, 1:-1]
