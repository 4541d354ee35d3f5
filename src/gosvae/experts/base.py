"""The expert contract: the receiver's frozen perception model, seen as `x -> per-pixel class logits`."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gosvae.config import Config
from gosvae.errors import ExpertError
from gosvae.tensors import check_layout

IGNORE_INDEX = 255


@dataclass(frozen=True)
class ExpertInfo:
    """What is known of an expert beside its weights.

    Attributes:
        name: how tables call it.
        class_names: the m classes in the order of the logits.
        input_height, input_width: the image size it was trained for, in pixels; other sizes are accepted.
        source: what `load_expert` took to find it; empty for one that was made in memory.
    """

    name: str
    class_names: tuple[str, ...]
    input_height: int
    input_width: int
    ignore_index: int = IGNORE_INDEX
    source: str = ""


class ExpertReference(Config):
    """Which expert a codec was trained with, for codecs that need it again: where it was, its name, its weights.

    Attributes:
        source: what `load_expert` took; empty for one that was made in memory.
        fingerprint: `Expert.fingerprint`.
    """

    source: str
    name: str
    fingerprint: str


class Expert(nn.Module, ABC):
    """A frozen network from RGB in [0, 1] to class logits at every pixel.

    Everything that the network expects (mean, standard deviation, resize, channel order) is inside. `train()` keeps
    it in evaluation mode and its parameters never require gradients, yet gradients flow to `x`.
    Softmax over the class axis of the result gives the class probabilities S of Eq. 3.
    """

    mixed_precision: bool = False
    """Whether `class_logits` follows the precision of its caller, such as bf16 in a training. An expert computes in
    float32 unless it says that it can do otherwise."""

    def __init__(self, info: ExpertInfo) -> None:
        super().__init__()
        self.info = info

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """Names of inner modules whose outputs are worth imitating too, see `torch.nn.Module.get_submodule`."""
        return ()

    @abstractmethod
    def class_logits(self, x_B3HW: Tensor) -> Tensor:
        """Logits (B, m, H, W), differentiable with respect to `x_B3HW` in [0, 1]."""

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Check the layout and return logits (B, m, H, W).

        Raises:
            ShapeError: `x_B3HW` is not (B, 3, H, W).
            ExpertError: the network's answer is not (B, m, H, W).
        """
        check_layout(x_B3HW, "(B, 3, H, W)", axis_1=3)
        if self.mixed_precision:
            logits_BmHW = self.class_logits(x_B3HW)
        else:
            with torch.autocast(x_B3HW.device.type, enabled=False):
                logits_BmHW = self.class_logits(x_B3HW.float())
        expected = (x_B3HW.shape[0], len(self.info.class_names), *x_B3HW.shape[-2:])
        if tuple(logits_BmHW.shape) != expected:
            raise ExpertError(
                f"expert {self.info.name!r} returned {tuple(logits_BmHW.shape)} where {expected} was expected: "
                f"check the class names ({len(self.info.class_names)}) and the network's output size"
            )
        return logits_BmHW

    @torch.inference_mode()
    def class_map(self, x_B3HW: Tensor) -> Tensor:
        """The most probable class of every pixel, int64 (B, H, W)."""
        classes_BHW: Tensor = self(x_B3HW).argmax(dim=1)
        return classes_BHW

    def train(self, mode: bool = True) -> Expert:
        """Stay in evaluation mode, whatever the caller asks: the expert is frozen."""
        del mode
        return super().train(False)

    def freeze(self) -> Expert:
        """Evaluation mode and no parameter with a gradient. Every loader calls this last."""
        self.requires_grad_(False)
        self.train(False)
        return self

    def reference(self) -> ExpertReference:
        """What finds this expert again and tells it from another."""
        return ExpertReference(source=self.info.source, name=self.info.name, fingerprint=self.fingerprint())

    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) over names, shapes and values of all weights and buffers."""
        digest = hashlib.sha256(repr((self.info.class_names, self.info.ignore_index)).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class NetworkExpert(Expert):
    """A network with everything inside, frozen: it takes (B, 3, H, W) in [0, 1] and gives logits (B, m, H, W)."""

    mixed_precision = True

    def __init__(self, info: ExpertInfo, network: nn.Module) -> None:
        super().__init__(info)
        self.network = network
        self.freeze()

    @property
    def feature_layers(self) -> tuple[str, ...]:
        """As the contract says: those that the network's class names, if it does."""
        names: tuple[str, ...] = getattr(self.network, "feature_layers", ())
        return tuple(f"network.{name}" for name in names)

    def class_logits(self, x_B3HW: Tensor) -> Tensor:
        """Logits (B, m, H, W)."""
        logits: Tensor = self.network(x_B3HW)
        return logits
