"""Contract of an expert: the receiver's frozen perception model, as a function from images to its dense outputs.

An `Expert` gives class logits at every pixel; a `TaskExpert` may have another task, such as detection or depth.

Axis legend: B images, m classes, H and W pixels, N candidates of a detector, four corners (left, top, right, bottom).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from gosvae.config import Config
from gosvae.errors import ExpertError
from gosvae.tensors import check_layout

IGNORE_INDEX = 255


PIXEL_LIMIT = 10.0
"""Largest absolute value of a pixel for which a network is expected to answer with finite values."""


@dataclass(frozen=True)
class ExpertInfo:
    """Description of an expert, beside its weights.

    Attributes:
        name: name in tables.
        class_names: names of the m classes, in the order of the logits.
        input_height, input_width: image size that it was trained for, in pixels; other sizes are accepted.
        source: string that `load_expert` found it by; empty if it was made in memory.
    """

    name: str
    class_names: tuple[str, ...]
    input_height: int
    input_width: int
    ignore_index: int = IGNORE_INDEX
    source: str = ""


class ExpertReference(Config):
    """Reference to the expert that a codec was trained with, for codecs that need it at the receiver.

    Attributes:
        source: string that `load_expert` found it by; empty if it was made in memory.
        fingerprint: fingerprint of its weights, see `Expert.fingerprint`.
    """

    source: str
    name: str
    fingerprint: str


class DenseBoxes(NamedTuple):
    """Candidates of a detector before non-maximum suppression; the score of a class is its product with the objectness.

    Attributes:
        objectness_BN: probability that there is an object at all; 1 for networks without such an output.
        classes_BNm: probability of each class.
        corners_BN4: left, top, right and bottom as shares of the image's width and height.
    """

    objectness_BN: Tensor
    classes_BNm: Tensor
    corners_BN4: Tensor


Output = Tensor | DenseBoxes | tuple[Tensor, ...]
"""Dense output of an expert: maps (B, C, h, w), candidates of a detector, or several tensors of features."""


class TaskExpert(nn.Module, ABC):
    """Frozen network from RGB images in [0, 1] to the dense output of a task.

    It contains all that the network expects (mean, standard deviation, resize, channel order). `train()` keeps
    it in evaluation mode and its parameters never require gradients, yet gradients flow to `x`.

    The output is by task: `segmentation` logits (B, m, H, W); `detection` a `DenseBoxes`; `depth` positive values
    (B, 1, h, w), which may be inverse depth; `keypoints` heat maps (B, K, h, w); `lanes` logits of binary maps
    (B, K, h, w); `features` tensors of any shape, images first.
    """

    task: str = "segmentation"
    """Name of the task, see `gosvae.tasks`."""

    mixed_precision: bool = False
    """Whether the network follows the precision of its caller, such as bf16 in a training. An expert computes in
    float32 unless it says that it can do otherwise."""

    def __init__(self, info: ExpertInfo) -> None:
        super().__init__()
        self.info = info

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Names of inner modules whose outputs may be imitated too, as for `torch.nn.Module.get_submodule`."""
        return ()

    @abstractmethod
    def dense(self, x_B3HW: Tensor) -> Output:
        """Return the output of the task, differentiable with respect to `x_B3HW` in [0, 1]."""

    def perceive(self, x_B3HW: Tensor) -> Any:
        """Check the layout and return the output of the task.

        Raises:
            ShapeError: `x_B3HW` is not (B, 3, H, W).
            ExpertError: some of the answer is NaN or infinite although the pixels are near [0, 1]. The answer to pixels
                of a codec that diverges in training is returned as it is.
        """
        check_layout(x_B3HW, "(B, 3, H, W)", axis_1=3)
        if self.mixed_precision:
            output = self.dense(x_B3HW)
        else:
            with torch.autocast(x_B3HW.device.type, enabled=False):
                output = self.dense(x_B3HW.float())
        for values in (output,) if isinstance(output, Tensor) else output:
            finite = values.detach().isfinite()
            if not finite.all() and bool((x_B3HW.detach().abs() <= PIXEL_LIMIT).all()):
                raise ExpertError(
                    f"expert {self.info.name!r} returned values that are NaN or infinite, at {_percent(finite)} of all "
                    "places: check its weights, its input range (RGB in [0, 1]) and its precision"
                )
        return output

    def forward(self, x_B3HW: Tensor) -> Any:
        """Return the output of the task; see `perceive`."""
        return self.perceive(x_B3HW)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever `mode` is: the expert is frozen."""
        del mode
        return super().train(False)

    def freeze(self) -> Self:
        """Set evaluation mode and let no parameter require a gradient. Every loader calls this last."""
        self.requires_grad_(False)
        self.train(False)
        return self

    def preparation(self, height: int, width: int) -> str:
        """Return the preparation of images of this size before the network that the fingerprint does not cover."""
        del height, width
        return ""

    def reference(self) -> ExpertReference:
        """Return the reference by which this expert can be found and told from others."""
        return ExpertReference(source=self.info.source, name=self.info.name, fingerprint=self.fingerprint())

    def fingerprint(self) -> str:
        """Return the SHA-256 (hexadecimal) of the names, shapes and values of all weights and buffers."""
        digest = hashlib.sha256(repr((self.info.class_names, self.info.ignore_index)).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            flat = value.detach().cpu().clone(memory_format=torch.contiguous_format).view(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class Expert(TaskExpert):
    """Expert of segmentation: a frozen network from RGB images in [0, 1] to class logits at every pixel.

    Softmax over the class axis of the result gives the class probabilities S of Eq. 3.
    """

    @abstractmethod
    def class_logits(self, x_B3HW: Tensor) -> Tensor:
        """Return logits (B, m, H, W), differentiable with respect to `x_B3HW` in [0, 1]."""

    def dense(self, x_B3HW: Tensor) -> Tensor:
        """Return logits (B, m, H, W)."""
        return self.class_logits(x_B3HW)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Check the layout and return logits (B, m, H, W).

        Raises:
            ShapeError: `x_B3HW` is not (B, 3, H, W).
            ExpertError: the network's answer is not (B, m, H, W), or some of it is NaN or infinite although the pixels
                are near [0, 1]. The answer to pixels of a codec that diverges in training is returned as it is.
        """
        logits_BmHW: Tensor = self.perceive(x_B3HW)
        expected = (x_B3HW.shape[0], len(self.info.class_names), *x_B3HW.shape[-2:])
        if tuple(logits_BmHW.shape) != expected:
            raise ExpertError(
                f"expert {self.info.name!r} returned {tuple(logits_BmHW.shape)} where {expected} was expected: "
                f"check the class names ({len(self.info.class_names)}) and the network's output size"
            )
        return logits_BmHW

    @torch.inference_mode()
    def class_map(self, x_B3HW: Tensor) -> Tensor:
        """Return the most probable class of every pixel, int64 (B, H, W)."""
        classes_BHW: Tensor = self(x_B3HW).argmax(dim=1)
        return classes_BHW


def _percent(finite: Tensor) -> str:
    return f"{100.0 * float((~finite).float().mean()):.3g} %"


class NetworkExpert(Expert):
    """Expert of a network that takes images (B, 3, H, W) in [0, 1] as they are and returns logits (B, m, H, W)."""

    mixed_precision = True

    def __init__(self, info: ExpertInfo, network: nn.Module) -> None:
        super().__init__(info)
        self.network = network
        self.freeze()

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Names of inner modules that may be imitated: those that the network's class names, if any."""
        names: tuple[str, ...] = getattr(self.network, "feature_layers", ())
        return tuple(f"network.{name}" for name in names)

    def class_logits(self, x_B3HW: Tensor) -> Tensor:
        """Return logits (B, m, H, W)."""
        logits: Tensor = self.network(x_B3HW)
        return logits
