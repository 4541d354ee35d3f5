"""Adversary of a VQ-GAN: a patch discriminator, the hinge losses of both sides, and the adaptive weight.

Sources: the discriminator of Isola et al. (2017, pix2pix), the hinge loss of Lim and Ye (2017), the weight of Esser
et al. (2021, section 3.1). Axis legend: B images, H and W pixels, h and w positions of the discriminator's verdicts.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.errors import ConfigError, ShapeError
from gosvae.tensors import check_layout

MAX_ADAPTIVE_WEIGHT = 1e4
"""Largest ratio of gradients, for steps at which the generator's gradient nearly vanishes (Esser et al. 2021)."""
_EPSILON = 1e-4

Normalisation = Literal["batch", "none"]


class PatchDiscriminator(nn.Module):
    """Discriminator from `x_B3HW` in [0, 1] to verdicts (B, 1, h, w), one for each patch; high means original.

    It has `layers` strided 4x4 convolutions, one more of stride 1, and one to a single channel, with leaky rectifiers
    (slope 0.2). Widths double from `width` to 8 times `width` at most. With 3 layers a patch has 70x70 pixels, and h =
    H / 8 - 2. Batch normalisation follows from the second convolution on, as in the sources, and uses the statistics of
    the current batch.

    Raises:
        ShapeError: the images are not RGB, or a side is shorter than 3 * 2**layers pixels.
    """

    def __init__(self, width: int = 64, layers: int = 3, normalisation: Normalisation = "batch") -> None:
        super().__init__()
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        body: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i in range(1, layers + 1):
            stride = 2 if i < layers else 1
            normalised = normalisation == "batch"
            body.append(nn.Conv2d(widths[i - 1], widths[i], 4, stride=stride, padding=1, bias=not normalised))
            body += [nn.BatchNorm2d(widths[i])] if normalised else []
            body.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*body)
        self.to_verdict = nn.Conv2d(widths[-1], 1, 4, padding=1)
        self.min_side = 3 * 2**layers
        self.apply(_initialise)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        check_layout(x_B3HW, "(B, 3, H, W)", axis_1=3)
        if min(x_B3HW.shape[-2:]) < self.min_side:
            raise ShapeError(
                f"the discriminator needs pictures of at least {self.min_side} pixels a side", x_B3HW.shape
            )
        verdicts_B1hw: Tensor = self.to_verdict(self.body(2.0 * x_B3HW - 1.0))
        return verdicts_B1hw


def _initialise(module: nn.Module) -> None:
    """Draw small normal kernels, as in pix2pix."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def hinge_discriminator_loss(original_B1hw: Tensor, reconstructed_B1hw: Tensor) -> Tensor:
    """Return (E[max(0, 1 - D(x))] + E[max(0, 1 + D(x_hat))]) / 2, a scalar >= 0; 1 if all verdicts are 0."""
    return 0.5 * (F.relu(1.0 - original_B1hw.float()).mean() + F.relu(1.0 + reconstructed_B1hw.float()).mean())


def hinge_generator_loss(reconstructed_B1hw: Tensor) -> Tensor:
    """Return -E[D(x_hat)], a scalar of any sign: the codec is trained to have its pictures taken for originals."""
    return -reconstructed_B1hw.float().mean()


def adaptive_weight(reconstruction: Tensor, generator: Tensor, last_layer: Tensor) -> Tensor:
    """Return |d reconstruction / d last_layer| / (|d generator / d last_layer| + 1e-4), at most 1e4, without gradient.

    Multiplied by it, the generator's loss has a gradient of about the same norm at the decoder's last kernel as the
    other losses, and so at all layers before it.

    Args:
        reconstruction: sum of the weighted losses without the generator's; its graph is kept.
        generator: loss of the generator; its graph is kept.
        last_layer: last kernel of the decoder. Terms that do not depend on it, such as the codebook's, do not count.

    Raises:
        ConfigError: one of the losses does not depend on the kernel.
    """
    gradients = [
        torch.autograd.grad(loss, last_layer, retain_graph=True, allow_unused=True)[0]
        for loss in (reconstruction, generator)
    ]
    of_reconstruction, of_generator = gradients
    if of_reconstruction is None or of_generator is None:
        raise ConfigError("an adversary is weighed against the reconstruction: give the stage a term such as mae")
    ratio: Tensor = of_reconstruction.float().norm() / (of_generator.float().norm() + _EPSILON)
    return ratio.clamp(max=MAX_ADAPTIVE_WEIGHT).detach()
