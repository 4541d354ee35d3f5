"""Training of a codec: the terms of Eqs. 4 to 8, each computed only where a stage weighs it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gosvae.codecs.autoencoder_model import ScalarAutoencoder
from gosvae.codecs.model import VqAutoencoder
from gosvae.experts.base import Expert
from gosvae.losses.divergence import ImitationKind, imitation_loss, mean_absolute_error, mean_squared_error
from gosvae.losses.perceptual import PerceptualLoss
from gosvae.quantizers import codebook_usage
from gosvae.tensors import pad_to_multiple
from gosvae.training.task import RECONSTRUCTION, TrainingTask

IMITATION: tuple[ImitationKind, ...] = ("jsd", "kld", "ce")


class CodecTask(TrainingTask):
    """A VQ or plain autoencoder with the frozen networks that judge its reconstructions.

    Terms: `mse` and `mae` (pixels in [0, 1]), `lpips`, `jsd`, `kld`, `ce` (nats), and the quantizer's `codebook` and
    `commitment`. The expert sees the original once for all of them.
    """

    network: VqAutoencoder | ScalarAutoencoder

    def __init__(
        self, network: VqAutoencoder | ScalarAutoencoder, expert: Expert | None, perceptual: PerceptualLoss | None
    ) -> None:
        super().__init__()
        self.network = network
        self.expert = expert
        self.perceptual = perceptual

    @property
    def known_terms(self) -> frozenset[str]:
        known = {"mse", "mae"}
        known |= {"codebook", "commitment"} if isinstance(self.network, VqAutoencoder) else set()
        known |= {"lpips"} if self.perceptual is not None else set()
        known |= set(IMITATION) if self.expert is not None else set()
        return frozenset(known)

    @property
    def imitation_terms(self) -> frozenset[str]:
        return frozenset(IMITATION)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.network.decoder.last_layer

    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """The wanted terms; with a codebook also its own, and `perplexity` and `utilisation` of the batch."""
        del labels_BHW  # no labels are needed: the expert is imitated
        height, width = x_B3HW.shape[-2:]
        result = self.network(pad_to_multiple(x_B3HW, self.network.stride))
        x_hat_B3HW = result.x_hat_B3HW[..., :height, :width].float()
        terms: dict[str, Tensor] = {}
        if isinstance(self.network, VqAutoencoder):
            terms |= {name: x_hat_B3HW.new_zeros(()) for name in ("codebook", "commitment")} | result.terms
            usage = codebook_usage(result.indices_Bhw, self.network.quantizer.codebook_size)
            terms["perplexity"] = x_hat_B3HW.new_tensor(usage.perplexity)
            terms["utilisation"] = x_hat_B3HW.new_tensor(usage.utilisation)
        terms["mse"] = mean_squared_error(x_B3HW, x_hat_B3HW)
        if "mae" in wanted:
            terms["mae"] = mean_absolute_error(x_B3HW, x_hat_B3HW)
        if "lpips" in wanted and self.perceptual is not None:
            terms["lpips"] = self.perceptual(x_B3HW, x_hat_B3HW).mean()
        kinds = [kind for kind in IMITATION if kind in wanted]
        if kinds and self.expert is not None:
            with torch.no_grad():
                logits_BmHW = self.expert(x_B3HW)
            logits_hat_BmHW = self.expert(x_hat_B3HW)
            for kind in kinds:
                terms[kind] = imitation_loss(kind, logits_BmHW, logits_hat_BmHW)
        if RECONSTRUCTION in wanted:
            terms[RECONSTRUCTION] = x_hat_B3HW
        return terms
