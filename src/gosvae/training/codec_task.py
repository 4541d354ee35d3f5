"""Task of VQ codecs and plain autoencoders: the terms of Eqs. 4 to 8, each computed only if a stage weighs it."""

from __future__ import annotations

from torch import Tensor, nn

from gosvae.codecs.autoencoder_model import ScalarAutoencoder
from gosvae.codecs.vq_model import VqAutoencoder
from gosvae.experts.base import TaskExpert
from gosvae.losses.perceptual import PerceptualLoss
from gosvae.quantizers import codebook_usage
from gosvae.tensors import pad_to_multiple
from gosvae.training.judges import Judges
from gosvae.training.machine.task import RECONSTRUCTION, TrainingTask


class CodecTask(TrainingTask):
    """A VQ or plain autoencoder with the frozen networks that judge its reconstructions.

    Terms: those of `Judges`, and the quantizer's `codebook` and `commitment`.
    """

    network: VqAutoencoder | ScalarAutoencoder

    def __init__(
        self, network: VqAutoencoder | ScalarAutoencoder, expert: TaskExpert | None, perceptual: PerceptualLoss | None
    ) -> None:
        super().__init__()
        self.network = network
        self.judges = Judges(expert, perceptual)

    @property
    def known_terms(self) -> frozenset[str]:
        codebook = {"codebook", "commitment"} if isinstance(self.network, VqAutoencoder) else set()
        return self.judges.known_terms | codebook

    @property
    def imitation_terms(self) -> frozenset[str]:
        return self.judges.imitation_terms

    @property
    def last_layer(self) -> nn.Parameter:
        return self.network.decoder.last_layer

    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Return the wanted terms; with a codebook also its terms and the batch's `perplexity` and `utilisation`."""
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
        terms |= self.judges(x_B3HW, x_hat_B3HW, wanted, judging=self.judging)
        if RECONSTRUCTION in wanted:
            terms[RECONSTRUCTION] = x_hat_B3HW
        return terms
