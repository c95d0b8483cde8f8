"""The three U-Nets in plain torch.

Each takes scaled pixels `(n, band, y, x)` float32 and returns logits `(n, class, y, x)`; y and x must be multiples
of the network's stride. Scaling, softmax and the choice of a network by name live in `segmenter` and `build`.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class SimpleUNet(nn.Module):
    """Three contracting and three expanding blocks: a small, fast U-Net.

    The network of the article "Creating a Very Simple U-Net Model with PyTorch for Semantic Segmentation of Satellite
    Images" (M. Cordeiro, 2020), after Kattenborn et al., "Convolutional Neural Networks enable efficient, accurate and
    fine-grained segmentation of plant species and communities from high-resolution UAV imagery", Sci. Rep. 9 (2019).

    Parameters
    ----------
    bands, classes
        Channels in and out.
    widths
        Channels after each contracting block. Half a million parameters as given.
    """

    def __init__(self, bands: int, classes: int, widths: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        w1, w2, w3 = widths
        self.contract1 = _contracting(bands, w1, kernel=7)
        self.contract2 = _contracting(w1, w2)
        self.contract3 = _contracting(w2, w3)
        self.expand3 = _expanding(w3, w2)
        self.expand2 = _expanding(w2 * 2, w1)
        self.expand1 = _expanding(w1 * 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(n, class, y, x)` of scaled pixels `(n, band, y, x)`."""
        half = self.contract1(x)  # (n, 32, y/2, x/2)
        quarter = self.contract2(half)  # (n, 64, y/4, x/4)
        eighth = self.contract3(quarter)  # (n, 128, y/8, x/8)
        up: Tensor = self.expand3(eighth)  # (n, 64, y/4, x/4)
        up = self.expand2(torch.cat([up, quarter], dim=1))  # (n, 32, y/2, x/2)
        up = self.expand1(torch.cat([up, half], dim=1))  # (n, class, y, x)
        return up


def _contracting(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        *_conv_norm_relu(inputs, outputs, kernel),
        *_conv_norm_relu(outputs, outputs, 3),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    )


def _expanding(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv_norm_relu(inputs, outputs, 3),
        *_conv_norm_relu(outputs, outputs, 3),
        nn.ConvTranspose2d(outputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1),
    )


def _conv_norm_relu(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


class UNet(nn.Module):
    """The U-Net of Ronneberger et al. (2015), arXiv:1505.04597, with same-size convolutions and batch norm.

    Parameters
    ----------
    bands, classes
        Channels in and out.
    widths
        Channels of each level, from full resolution down; one pooling by two lies between neighbours. As given:
        four poolings, 64 to 1024 channels.
    """

    def __init__(self, bands: int, classes: int, widths: Sequence[int] = (64, 128, 256, 512, 1024)) -> None:
        super().__init__()
        inputs = [bands, *widths]
        self.down = nn.ModuleList(_double_conv(i, o) for i, o in zip(inputs, widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        deep = list(reversed(widths))
        pairs = list(pairwise(deep))
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, kernel_size=2, stride=2) for i, o in pairs)
        self.merge = nn.ModuleList(_double_conv(o * 2, o) for _, o in pairs)
        self.final = nn.Conv2d(widths[0], classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(n, class, y, x)` of scaled pixels `(n, band, y, x)`."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))  # (n, widths[level], y / 2**level, x / 2**level)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips[:-1]), strict=True):
            x = merge(torch.cat([skip, up(x)], dim=1))
        return self.final(x)  # type: ignore[no-any-return]


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_conv_norm_relu(inputs, outputs, 3), *_conv_norm_relu(outputs, outputs, 3))


class UNetResNet(nn.Module):
    """A ResNet encoder under a decoder of 3x3 convolutions and 4x4 transposed convolutions of stride two.

    The network of the article "Satellite images semantic segmentation with deep learning" (deepsense.ai), there with
    ResNet-101; encoders after He et al. (2016), arXiv:1512.03385, from torchvision, without downloaded weights.

    Parameters
    ----------
    bands, classes
        Channels in and out. The first convolution is made for `bands` channels.
    depth
        18, 34, 50 or 101.
    """

    def __init__(self, bands: int, classes: int, depth: int = 101) -> None:
        super().__init__()
        import torchvision  # takes a second to import, and only this network needs it

        encoder = torchvision.models.get_model(f"resnet{depth}", weights=None)
        encoder.conv1 = nn.Conv2d(bands, 64, kernel_size=7, stride=2, padding=3, bias=False)
        w2, w3, w4, w5 = (64, 128, 256, 512) if depth < 50 else (256, 512, 1024, 2048)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv1 = nn.Sequential(encoder.conv1, encoder.bn1, encoder.relu, self.pool)
        self.conv2, self.conv3 = encoder.layer1, encoder.layer2
        self.conv4, self.conv5 = encoder.layer3, encoder.layer4
        self.center = _decoder(w5, 512, 256)
        self.dec5 = _decoder(w5 + 256, 512, 256)
        self.dec4 = _decoder(w4 + 256, 512, 256)
        self.dec3 = _decoder(w3 + 256, 256, 64)
        self.dec2 = _decoder(w2 + 64, 128, 128)
        self.dec1 = _decoder(128, 128, 32)
        self.dec0 = nn.Sequential(nn.Conv2d(32, 32, kernel_size=3, padding=1), nn.ReLU(inplace=True))
        self.final = nn.Conv2d(32, classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(n, class, y, x)` of scaled pixels `(n, band, y, x)`; y and x are multiples of 64."""
        conv1 = self.conv1(x)  # (n, 64, y/4, x/4)
        conv2 = self.conv2(conv1)  # (n, w2, y/4, x/4)
        conv3 = self.conv3(conv2)  # (n, w3, y/8, x/8)
        conv4 = self.conv4(conv3)  # (n, w4, y/16, x/16)
        conv5 = self.conv5(conv4)  # (n, w5, y/32, x/32)
        up = self.center(self.pool(conv5))  # (n, 256, y/32, x/32)
        up = self.dec5(torch.cat([up, conv5], dim=1))  # (n, 256, y/16, x/16)
        up = self.dec4(torch.cat([up, conv4], dim=1))  # (n, 256, y/8, x/8)
        up = self.dec3(torch.cat([up, conv3], dim=1))  # (n, 64, y/4, x/4)
        up = self.dec2(torch.cat([up, conv2], dim=1))  # (n, 128, y/2, x/2)
        up = self.dec0(self.dec1(up))  # (n, 32, y, x)
        return self.final(up)  # type: ignore[no-any-return]


def _decoder(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, middle, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(middle, outputs, kernel_size=4, stride=2, padding=1),
        nn.ReLU(inplace=True),
    )
