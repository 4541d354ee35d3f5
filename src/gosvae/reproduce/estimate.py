"""Estimated time of a row: measured on two busy CPU cores for `small` and `cpu-long`, assumed for the other scales."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gosvae.experts.registry import input_size, is_embedded, is_oneformer
from gosvae.reproduce.plan import Borrowed, Named, RowPlan, Trained
from gosvae.reproduce.scales import Scale

SECONDS_PER_STEP: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        # Measured in the run of docs/reproduction: two cores with other work at the same time, 4 crops of 128x256,
        # embedded expert, LPIPS-Squeeze; by recipe, or by row if it has a size of its own.
        "small": MappingProxyType(
            {
                "vqvae": 0.24,
                "vqvae-lpips": 0.31,
                "vqvae-kld": 0.29,
                "gosvae-scratch": 0.45,
                "gosvae-finetune": 0.48,
                "gosvae-ce": 0.26,
                "gosvae-kld": 0.30,
                "gosvae-kld-lpips": 0.35,
                "vqvae-residual": 0.38,
                "gosvae-residual": 0.77,
                "autoencoder": 0.05,
                "vqgan": 0.97,
                "gesco": 0.40,
            }
        ),
        # Assumed for one GPU of the class of an RTX 4090, bfloat16, 8 images of 256x512, embedded expert.
        "gpu": MappingProxyType(
            {"vqvae": 0.04, "vqvae-residual": 0.12, "gosvae-residual": 0.18, "autoencoder": 0.02, "vqgan": 0.30,
             "gesco": 0.80, "": 0.08}
        ),
        # Assumed for the same GPU with OneFormer (Swin-L) as expert, which runs twice on every image of 1024x2048, once
        # with gradients.
        "paper": MappingProxyType(
            {"vqvae": 0.04, "vqvae-residual": 0.12, "vqvae-lpips": 0.08, "gosvae-residual": 1.7, "autoencoder": 0.02,
             "vqgan": 0.30, "gesco": 1.6, "": 1.6}
        ),
    }
)  # fmt: skip

SECONDS_PER_IMAGE: Mapping[str, float] = MappingProxyType({"small": 0.4, "gpu": 0.08, "paper": 0.6})
"""Seconds an image takes in an evaluation, by scale: compress, decompress, expert twice, perceptual distance."""

SLOW_IMAGES: Mapping[str, float] = MappingProxyType(
    {"gesco": 2.6, "gesco-labels": 2.6, "avif": 0.5, "jpegxl": 0.4, "label-map": 0.7}
)
"""Further seconds an image takes, by codec: for many denoising steps, or for a search for the quality."""

_MEASURED_AT: Mapping[str, str] = MappingProxyType({"cpu-long": "small"})
"""Scale with the same networks and crops, by scale."""

STRIDE_FACTOR: Mapping[int, float] = MappingProxyType({2: 1.3, 4: 1.0, 8: 0.95, 16: 0.95, 32: 0.95})
"""Duration of a training step, relative to that at r = 4, by r."""

OVERHEAD_SECONDS = 15.0
"""Seconds a training takes besides its steps: loading, the first step, the histogram of the indices."""


SWIN_L_GIB = 1.43
"""GiB that autograd keeps of OneFormer (Swin-L) for one image that it sees in 256x512 pixels, measured in float32 by
`benchmarks/memory.py`."""
_MEASURED_PIXELS = 256 * 512

_ASSUMED_SHORT = 1024
"""Short side in pixels of the expert's input for which the times of the scale `paper` are assumed."""
_OWN_SHORT: Mapping[str, int] = MappingProxyType({"ade20k": 640})
"""Short side in pixels that the published OneFormer for a data set has in place of that of 1024 for Cityscapes."""


def own_short(data: str) -> int:
    """Return the short side in pixels that OneFormer's image processor enlarges images of a data set to."""
    return _OWN_SHORT.get(data, _ASSUMED_SHORT)


def expert_share(expert: str, data: str) -> float:
    """Return the time of an expert at the paper's scale, relative to OneFormer (Swin-L) at 1024x2048 pixels.

    It goes with the number of pixels, as far as the expert's name tells it; that of the embedded expert is 0.

    Args:
        expert: name of the expert, as for `load_expert`.
        data: name of the data set that it is for.

    Raises:
        ExpertError: the input size in the name is not a number of pixels.
    """
    if is_embedded(expert):
        return 0.0
    short = input_size(expert)[1] or (own_short(data) if is_oneformer(expert) else _ASSUMED_SHORT)
    return (short / _ASSUMED_SHORT) ** 2


def swin_l_gib(images: int, height: int, width: int) -> float:
    """Return the GiB that autograd keeps of OneFormer (Swin-L) for a micro-batch, extrapolated by the pixels.

    Args:
        images: number of images in a micro-batch.
        height, width: size of the expert's input.
    """
    return SWIN_L_GIB * images * height * width / _MEASURED_PIXELS


def estimated_seconds(
    row: RowPlan, scale: Scale, steps: int, images: int, batch_size: int | None = None, expert: float = 1.0
) -> float:
    """Return the seconds of a row's own training (`steps`) and of its evaluation on `images` images.

    A step takes the time of its images: micro-batches do not change it, and a smaller batch has shorter steps.

    Args:
        batch_size: number of images in a batch; None takes that of the scale.
        expert: time of the expert at the paper's scale, as `expert_share` returns it.
    """
    source, measured = row.source, _MEASURED_AT.get(scale.name, scale.name)
    per_image, per_step = SECONDS_PER_IMAGE[measured], _seconds_per_step(row, measured)
    if scale.is_papers:  # the scale `gpu` has the same sizes and an expert that takes hardly any time
        per_image = expert * per_image + (1.0 - expert) * SECONDS_PER_IMAGE["gpu"]
        per_step = expert * per_step + (1.0 - expert) * _seconds_per_step(row, "gpu")
    evaluation = images * (per_image + SLOW_IMAGES.get(row.plain_id, 0.0))
    if isinstance(source, Named | Borrowed):
        return evaluation
    per_step *= (batch_size or scale.batch_size) / scale.batch_size
    return steps * per_step * STRIDE_FACTOR.get(row.stride or 4, 1.0) + OVERHEAD_SECONDS + evaluation


def _seconds_per_step(row: RowPlan, scale: str) -> float:
    """Return the seconds of a training step of a row with the scale's batch; 0 if the row trains nothing."""
    source, table = row.source, SECONDS_PER_STEP[scale]
    if not isinstance(source, Trained):
        return 0.0
    return table.get(row.plain_id, table.get(source.recipe, table.get("", 0.35)))
