"""Feature networks for the Fréchet distance of two sets of images. Only with Inception is it the FID.

Axis legend: B images, H and W pixels, D features, m classes.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.errors import ConfigError, MissingDependencyError, ShapeError, unknown_name
from gosvae.evaluation.rows import FID_NETWORK
from gosvae.experts.base import Expert
from gosvae.losses.perceptual import PerceptualLoss, available_perceptual, load_perceptual

FID_FEATURES = 2048
_EXPERT_CELLS = 4

FRECHET_NAMES = {
    "inception": f"FID: {FID_NETWORK}.pt, the TorchScript file published with StyleGAN2-ADA",
    "squeezenet": "SqueezeNet 1.1 of the LPIPS weights, its last features averaged over positions",
    "expert": f"the expert's class probabilities, averaged in {_EXPERT_CELLS}x{_EXPERT_CELLS} cells",
}
"""Descriptions of the feature networks by name, the preferred one first."""


class FeatureExtractor(nn.Module):
    """A frozen network from images (B, 3, H, W) in [0, 1] to features (B, D), float32.

    Attributes:
        name: name of the network, which is shown beside every distance.
    """

    name: str


class InceptionFeatures(FeatureExtractor):
    """Inception network of the FID (Heusel et al. 2017), from the TorchScript file that NVIDIA published.

    Args:
        path: path of `inception-2015-12-05.pt`, which resizes images itself and contains the weights of 2015.

    Raises:
        MissingDependencyError: the file is not a TorchScript file.
    """

    name = FID_NETWORK

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        with warnings.catch_warnings():
            # PyTorch 2.13 warns exporters of TorchScript; a user who loads a file can do nothing about it.
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
            try:
                self.network = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
            except (RuntimeError, ValueError) as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise MissingDependencyError(f"{path} is not a TorchScript file ({reason}): get it again") from None

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Return features (B, 2048).

        Raises:
            MissingDependencyError: the file contains another network.
        """
        pixels_B3HW = (255.0 * x_B3HW).round().clamp(0, 255).to(torch.uint8)
        try:
            features_BD: Tensor = self.network(pixels_B3HW, return_features=True)
            expected = features_BD.shape == (len(x_B3HW), FID_FEATURES)
        except (RuntimeError, AttributeError):
            expected = False
        if not expected:
            raise MissingDependencyError(
                f"{self.path} is not the network of the FID: called with uint8 images and return_features=True, that "
                f"one gives {FID_FEATURES} features each"
            )
        return features_BD.float()


class SqueezeNetFeatures(FeatureExtractor):
    """Last feature map of the network of LPIPS-Squeeze: 512 channels, averaged over positions."""

    name = "squeezenet1.1"

    def __init__(self, perceptual: PerceptualLoss) -> None:
        super().__init__()
        self.perceptual = perceptual

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Return features (B, 512).

        Raises:
            ShapeError: a side shorter than 17 pixels.
        """
        network, least = self.perceptual.network, self.perceptual.network.min_side
        if min(x_B3HW.shape[-2:]) < least:
            raise ShapeError(f"{self.name} needs images of at least {least} pixels a side", x_B3HW.shape)
        last: Tensor = network((x_B3HW - self.perceptual.shift_1311) / self.perceptual.scale_1311)[-1]
        return last.float().mean(dim=(2, 3))


class ExpertFeatures(FeatureExtractor):
    """Class probabilities of an expert, averaged in the cells of a 4x4 grid."""

    def __init__(self, expert: Expert) -> None:
        super().__init__()
        self.expert = expert
        self.name = f"{expert.info.name}, class probabilities in {_EXPERT_CELLS}x{_EXPERT_CELLS} cells"

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Return features (B, 16 m), each in [0, 1]."""
        probabilities_BmHW = self.expert(x_B3HW).softmax(dim=1)
        return F.adaptive_avg_pool2d(probabilities_BmHW, _EXPERT_CELLS).flatten(1).float()


def load_features(name: str, expert: Expert | None, weights: Path | None = None) -> FeatureExtractor:
    """Return a frozen feature extractor: `inception`, `squeezenet` or `expert`; `auto` takes the first available one.

    Args:
        name: name of the feature extractor.
        expert: segmentation network whose probabilities are the features of `expert`; None if there is none.
        weights: folder with weight files; default the environment variable GOSVAE_WEIGHTS. Inception is never
            downloaded.

    Raises:
        ConfigError: an unknown name.
        MissingDependencyError: the weights are not found, or the file contains another network.
    """
    given = weights if weights is not None else Path(os.environ.get("GOSVAE_WEIGHTS", "."))
    inception = given / f"{FID_NETWORK}.pt"
    if name == "auto":
        squeezenet = "squeezenet" if "lpips-squeeze" in available_perceptual(weights) else "expert"
        name = "inception" if inception.is_file() else squeezenet
    extractor: FeatureExtractor
    match name:
        case "inception":
            if not inception.is_file():
                raise MissingDependencyError(
                    f"no {inception.name} in {given}: get it from NVIDIA's StyleGAN2-ADA or StyleGAN3 and name its "
                    "folder (in code or by the environment's GOSVAE_WEIGHTS), or take another network (squeezenet, "
                    "expert)",
                    argument="weights",
                )
            extractor = InceptionFeatures(inception)
        case "squeezenet":
            extractor = SqueezeNetFeatures(load_perceptual("lpips-squeeze", weights))
        case "expert":
            if expert is None:
                raise ConfigError("the feature network 'expert' needs a segmentation network", argument="expert")
            extractor = ExpertFeatures(expert)
        case _:
            raise ConfigError(unknown_name("feature network", name, ["auto", *FRECHET_NAMES]))
    return extractor.requires_grad_(False).eval()
