"""Feature networks for the Fréchet distance of two sets of images. Only with Inception is it the FID.

Axis legend: B images, H and W pixels, D features, m classes.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.errors import ConfigError, MissingDependencyError, ShapeError, unknown_name
from gosvae.evaluation.inception import INCEPTION_FILES, PUBLISHED, file_digest, find_inception, inception_of
from gosvae.evaluation.rows import FID_NETWORK, UNKNOWN_FILE
from gosvae.experts.base import Expert
from gosvae.losses.perceptual import PerceptualLoss, available_perceptual, load_perceptual

_EXPERT_CELLS = 4

FRECHET_NAMES = {
    "inception": f"FID: one of the files {', '.join(INCEPTION_FILES)}",
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
    """Inception network of the FID (Heusel et al. 2017), from one of its published files.

    Args:
        path: path of `inception-2015-12-05.pt` (NVIDIA) or of `pt_inception-2015-12-05-6726825d.pth` (pytorch-fid,
            torch-fidelity). The file is known by its SHA-256.
        any_file: whether to take a file that nobody has published as this network. `name` then holds the start of the
            SHA-256, and the distance is no FID.

    Raises:
        MissingDependencyError: the file is another one, or holds no network of that kind.
    """

    def __init__(self, path: Path, *, any_file: bool = False) -> None:
        super().__init__()
        digest = file_digest(path)
        self.name = FID_NETWORK if digest in PUBLISHED else f"{UNKNOWN_FILE}{digest[:16]}"
        if digest not in PUBLISHED and not any_file:
            raise MissingDependencyError(
                f"{path} has the SHA-256 {digest[:16]}..., and the Inception network of the FID has "
                f"{' or '.join(f'{known[:8]}... ({maker})' for known, maker in PUBLISHED.items())}: get it again, or "
                "accept it as another network, whose distance is no FID",
                argument="any_inception",
            )
        self.network = inception_of(path)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Return features (B, 2048).

        Raises:
            MissingDependencyError: the file contains another network.
        """
        pixels_B3HW = (255.0 * x_B3HW).round().clamp(0, 255).to(torch.uint8)
        features_BD: Tensor = self.network(pixels_B3HW)
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


def load_features(
    name: str,
    expert: Expert | None,
    weights: Path | None = None,
    *,
    any_inception: bool = False,
    otherwise: str = "take another network (squeezenet, expert)",
) -> FeatureExtractor:
    """Return a frozen feature extractor: `inception`, `squeezenet` or `expert`; `auto` takes the first available one.

    Args:
        name: name of the feature extractor.
        expert: segmentation network whose probabilities are the features of `expert`; None if there is none.
        weights: folder with weight files; default the environment variable GOSVAE_WEIGHTS. Inception is never
            downloaded; it is looked for in PyTorch's hub cache too.
        any_inception: whether a file of Inception that is none of the published ones is taken, see `InceptionFeatures`.
        otherwise: what the message proposes, besides getting the file, if that of `inception` is not found.

    Raises:
        ConfigError: an unknown name.
        MissingDependencyError: the weights are not found, or the file contains another network.
    """
    given = weights if weights is not None else Path(os.environ.get("GOSVAE_WEIGHTS", "."))
    inception = find_inception(given)
    if name == "auto":
        squeezenet = "squeezenet" if "lpips-squeeze" in available_perceptual(weights) else "expert"
        name = "inception" if inception is not None else squeezenet
    extractor: FeatureExtractor
    match name:
        case "inception":
            if inception is None:
                raise MissingDependencyError(
                    f"no {' or '.join(INCEPTION_FILES)} in {given}: get one of them from NVIDIA's StyleGAN2-ADA, from "
                    "pytorch-fid or from torch-fidelity and name its folder (in code or by the environment's "
                    f"GOSVAE_WEIGHTS), or {otherwise}",
                    argument="weights",
                )
            extractor = InceptionFeatures(inception, any_file=any_inception)
        case "squeezenet":
            extractor = SqueezeNetFeatures(load_perceptual("lpips-squeeze", weights))
        case "expert":
            if expert is None:
                raise ConfigError("the feature network 'expert' needs a segmentation network", argument="expert")
            extractor = ExpertFeatures(expert)
        case _:
            raise ConfigError(unknown_name("feature network", name, ["auto", *FRECHET_NAMES]))
    return extractor.requires_grad_(False).eval()
