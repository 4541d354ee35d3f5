"""Numbers of the paper's tables, by row of the plan.

Source: Chao et al., "Task-Driven Semantic Quantization and Imitation Learning for Goal-Oriented Communications",
arXiv:2502.17842. Tables I and III (left) and IV are on Cityscapes, II and III (right) on ADE20K.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

PaperSet = Literal["cityscapes", "ade20k"]

FIG3_CORRELATION = 0.976
"""Correlation of the training curves of JSD and LPIPS in the paper (Fig. 3, ADE20K)."""

FIG4_WORST_MIOU = 5.462
"""mIoU in percent of the worst GOS-VAE from scratch at a high compression ratio (section III-D2)."""


@dataclass(frozen=True)
class PaperNumbers:
    """Numbers of one row of the paper; None for a number that it does not print.

    Attributes:
        kib: "bandwidth (KB)" as printed.
        parameters_m: number of parameters in millions.
        miou, accuracy: mIoU and pixel accuracy in per cent.
        mse: mean squared error; on the [0, 1] scale, except GESCO's, which is too large for this scale.
    """

    kib: float | None = None
    parameters_m: float | None = None
    miou: float | None = None
    accuracy: float | None = None
    mse: float | None = None
    fid: float | None = None
    lpips: float | None = None


CITYSCAPES: Mapping[str, PaperNumbers] = MappingProxyType(
    {
        "jpeg": PaperNumbers(11.469, None, 40.134, 84.706),
        "autoencoder": PaperNumbers(12.833, 0.13, 12.924, 48.418),
        "vqgan": PaperNumbers(6.791, 24.00, 54.238, 92.523, 0.006, 20.212, 0.130),
        "gesco-labels": PaperNumbers(14.526, 674.71, 58.969, 95.351, 0.355, 71.893, 0.544),
        "vqvae": PaperNumbers(7.447, 0.70, 53.040, 91.647, 0.002, 25.273, 0.172),
        "vqvae-residual": PaperNumbers(8.309, 7.32, 54.961, 92.762),
        "gosvae-scratch": PaperNumbers(8.321, 0.70, 57.342, 93.176, 0.005, 17.517, 0.066),
        "gosvae": PaperNumbers(8.385, 0.70, 57.612, 93.209),
        "gosvae-residual": PaperNumbers(10.092, 7.32, 61.318, 94.087),
        "gosvae-ce": PaperNumbers(miou=18.785, accuracy=81.715),
        "gosvae-kld": PaperNumbers(miou=42.792, accuracy=89.028),
        "vqvae-kld": PaperNumbers(miou=46.789, accuracy=89.759),
        "vqvae-lpips": PaperNumbers(miou=54.933, accuracy=92.479),
        "gosvae-kld-lpips": PaperNumbers(miou=56.949, accuracy=93.166),
    }
)

ADE20K: Mapping[str, PaperNumbers] = MappingProxyType(
    {
        "jpeg": PaperNumbers(miou=32.111, accuracy=77.474),
        "autoencoder": PaperNumbers(None, 0.13, 22.389, 69.607),
        "vqgan": PaperNumbers(None, 24.00, 38.738, 80.674, 0.012, 12.383, 0.177),
        "gesco-labels": PaperNumbers(None, 681.33, 16.850, 61.170, 0.549, 92.317, 0.725),
        "vqvae": PaperNumbers(None, 0.70, 38.366, 80.333, 0.004, 15.466, 0.170),
        "vqvae-residual": PaperNumbers(None, 7.32, 38.612, 80.887),
        "gosvae-scratch": PaperNumbers(None, 0.70, 39.075, 80.974, 0.008, 8.719, 0.075),
        "gosvae": PaperNumbers(None, 0.70, 39.128, 81.019),
        "gosvae-residual": PaperNumbers(None, 7.32, 40.765, 81.974),
    }
)

NOTHING = PaperNumbers()


def paper_numbers(row_id: str, paper_set: PaperSet) -> PaperNumbers:
    """Return the paper's numbers for a row of the plan; all are None for a row that it lacks."""
    return (CITYSCAPES if paper_set == "cityscapes" else ADE20K).get(row_id, NOTHING)
