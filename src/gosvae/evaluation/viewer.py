"""What an expert, a perceptual distance and a feature network see of a picture.

Axis legend: B images, 3 RGB channels, H and W pixels, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gosvae.evaluation.evaluation import ClassMapArray
from gosvae.evaluation.features import FeatureExtractor
from gosvae.experts.base import Expert
from gosvae.metrics import PerceptualMetric
from gosvae.tensors import ImageArray, image_to_tensor

FeatureArray = npt.NDArray[np.float32]
"""Features of an image, (D,)."""


@dataclass(frozen=True)
class View:
    """An image as tensor, the expert's map of it, and its features for the Fréchet distance."""

    x_B3HW: Tensor
    class_map_HW: ClassMapArray
    features_D: FeatureArray | None


class Viewer:
    """Expert, perceptual metric and feature network, on the device of the expert.

    Attributes:
        class_count: number of the expert's classes.
    """

    def __init__(self, expert: Expert, perceptual: PerceptualMetric | None, frechet: FeatureExtractor | None) -> None:
        self.expert = expert
        self.perceptual = perceptual
        self.frechet = frechet
        self.class_count = len(expert.info.class_names)
        self.device = next(chain(expert.parameters(), expert.buffers()), torch.empty(0)).device

    @torch.inference_mode()
    def view(self, image_uint8_HW3: ImageArray) -> View:
        """Return what is seen of an image, uint8 (H, W, 3)."""
        x_B3HW = image_to_tensor(image_uint8_HW3).to(self.device)
        features_D = None if self.frechet is None else self.frechet(x_B3HW)[0].cpu().numpy()
        return View(x_B3HW, self.expert.class_map(x_B3HW)[0].cpu().numpy().astype(np.int16), features_D)

    @torch.inference_mode()
    def distance(self, view: View, other: View) -> float | None:
        """Return the perceptual distance of two images; None without a perceptual metric."""
        return None if self.perceptual is None else float(self.perceptual(view.x_B3HW, other.x_B3HW).item())
