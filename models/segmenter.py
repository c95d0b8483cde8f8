"""Raw pixels to probabilities as one torch module: scaling, network, softmax or sigmoid.

Training and inference both run this module, so that scaling cannot drift between them.
"""

from functools import reduce

import torch
from torch import Tensor, nn

from .deterministic import sigmoid, softmax
from .metadata import Activation, Scaling


class Segmenter(nn.Module):
    """Raw pixels in, probabilities out.

    Parameters
    ----------
    network
        Scaled pixels `(n, band, y, x)` in, logits `(n, channel, y, x)` out.
    scaling
        Applied to the raw values first, per band.
    activation
        `softmax` over the channels, or `sigmoid` of each. A sigmoid of one channel is a two-class network, with
        probabilities of background and foreground.
    """

    offset: Tensor
    divisor: Tensor

    def __init__(self, network: nn.Module, scaling: Scaling, activation: Activation = "softmax") -> None:
        super().__init__()
        self.network = network
        self.activation = activation
        shape = (1, -1, 1, 1)
        self.register_buffer("offset", torch.tensor(scaling.offset, dtype=torch.float32).reshape(shape), False)
        self.register_buffer("divisor", torch.tensor(scaling.divisor, dtype=torch.float32).reshape(shape), False)

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits `(n, channel, y, x)` of raw pixels `(n, band, y, x)` of any numeric dtype, for losses."""
        return self.network((pixels.to(self.offset.dtype) - self.offset) / self.divisor)  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities `(n, class, y, x)` float32 of raw pixels `(n, band, y, x)` of any numeric dtype.

        Those of all classes are NaN where any logit is NaN or infinite.
        """
        logits = self.logits(pixels).to(torch.float32)
        if self.activation == "softmax":
            return softmax(logits)
        total: Tensor = reduce(torch.add, logits.split(1, 1))
        foreground = sigmoid(logits) + (total - total)  # NaN in all classes where any logit is not finite, else 0
        if foreground.shape[1] > 1:
            return foreground
        return torch.cat([1 - foreground, foreground], dim=1)
