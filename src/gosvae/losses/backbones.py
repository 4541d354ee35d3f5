"""Feature networks for perceptual losses, laid out so that torchvision's weight files load by position.

torchvision itself is not needed. Each network maps images (B, 3, H, W), already normalised, to a list of feature maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VGG16_CHANNELS = (64, 128, 256, 512, 512)
ALEXNET_CHANNELS = (64, 192, 384, 256, 256)
SQUEEZENET_CHANNELS = (64, 128, 256, 384, 384, 512, 512)


class FeatureNetwork(nn.Module):
    """A chain of layers and the positions after which features are taken.

    Attributes:
        channels: number of channels of each feature map.
        min_side: smallest height and width in pixels that every layer accepts.
    """

    def __init__(
        self, layers: list[nn.Module], taps: tuple[int, ...], channels: tuple[int, ...], min_side: int
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.taps = taps
        self.channels = channels
        self.min_side = min_side

    def forward(self, x_B3HW: Tensor) -> list[Tensor]:
        """Return the feature maps, one for each tap, from fine to coarse."""
        features = []
        for position, layer in enumerate(self.layers):
            x_B3HW = layer(x_B3HW)
            if position in self.taps:
                features.append(x_B3HW)
        return features


class Fire(nn.Module):
    """Block of SqueezeNet: a squeeze to few channels, then 1x1 and 3x3 convolutions in parallel."""

    def __init__(self, in_channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class BlurPool(nn.Module):
    """Anti-aliased subsampling by 2 (Zhang 2019): a fixed binomial 3x3 filter; edges are reflected by 2 pixels."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", torch.outer(row, row).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self.filt, stride=2, groups=x.shape[1])


def _vgg16_layers(pool: Callable[[int], list[nn.Module]]) -> Iterator[nn.Module]:
    in_channels = 3
    for stage, (channels, depth) in enumerate(zip(VGG16_CHANNELS, (2, 2, 3, 3, 3), strict=True)):
        if stage:
            yield from pool(in_channels)
        for _ in range(depth):
            yield nn.Conv2d(in_channels, channels, 3, padding=1)
            yield nn.ReLU(inplace=True)
            in_channels = channels


def vgg16() -> FeatureNetwork:
    """Return VGG16 up to relu5_3 (Simonyan and Zisserman 2014), features after the last ReLU of each stage."""
    layers = list(_vgg16_layers(lambda _: [nn.MaxPool2d(2)]))
    return FeatureNetwork(layers, (3, 8, 15, 22, 29), VGG16_CHANNELS, min_side=16)


def shift_tolerant_vgg16() -> FeatureNetwork:
    """Return VGG16 with dense max-pooling and blur in place of strided pooling (Ghildyal and Liu 2022)."""
    layers = list(_vgg16_layers(lambda channels: [nn.MaxPool2d(2, stride=1), BlurPool(channels)]))
    return FeatureNetwork(layers, (3, 9, 17, 25, 33), VGG16_CHANNELS, min_side=18)


def shift_tolerant_alexnet() -> FeatureNetwork:
    """Return AlexNet with an unstrided first convolution, and blur as in `shift_tolerant_vgg16`."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 11, padding=2),
        BlurPool(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=1),
        BlurPool(64),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=1),
        BlurPool(192),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
    ]
    return FeatureNetwork(layers, (2, 6, 10, 12, 14), ALEXNET_CHANNELS, min_side=21)


def squeezenet1_1() -> FeatureNetwork:
    """Return SqueezeNet 1.1 without classifier (Iandola et al. 2016), with features at the seven layers of LPIPS."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    ]
    return FeatureNetwork(layers, (1, 4, 7, 9, 10, 11, 12), SQUEEZENET_CHANNELS, min_side=17)
