"""Measure what autograd keeps in a step of imitation at the paper's sizes, for a random OneFormer with Swin-L.

    python benchmarks/memory.py
    python benchmarks/memory.py --micro-batch 2 --input-short 256

The expert has the configuration of shi-labs/oneformer_cityscapes_swin_large and random weights, and nothing is
downloaded. A step is the shallow GOS-VAE on a batch of 8 images of 256x512: the codec's graph is that of the whole
batch, the expert's that of one micro-batch. Bytes are those of storages that autograd holds at one time, measured with
`torch.autograd.graph.saved_tensors_hooks`. They do not depend on the device, except for kernels that keep other things.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn

from gosvae.codecs.vq_model import VqAutoencoder
from gosvae.experts.base import ExpertInfo
from gosvae.experts.huggingface import HuggingFaceExpert
from gosvae.precision import autocast
from gosvae.recipes import load_recipe
from gosvae.training.judging import kept_bytes
from gosvae.training.vq import VqRecipe

CLASSES = 19
GIB = 2**30


def random_oneformer(input_short: int | None) -> HuggingFaceExpert:
    """Return OneFormer with the sizes of shi-labs/oneformer_cityscapes_swin_large and random weights.

    Args:
        input_short: short side of its input in pixels; None takes that of its image processor, 1024.
    """
    from transformers import (
        OneFormerConfig,
        OneFormerForUniversalSegmentation,
        OneFormerImageProcessorPil,
        SwinConfig,
    )

    names = {i: f"class {i}" for i in range(CLASSES)}
    backbone = SwinConfig(
        image_size=384, embed_dim=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=12,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = OneFormerConfig(backbone_config=backbone, num_queries=250, id2label=names)
    network = OneFormerForUniversalSegmentation(config)
    short = input_short or 1024
    processor = OneFormerImageProcessorPil(size={"shortest_edge": short, "longest_edge": 2 * short})
    # The tokens of "the task is semantic" are 77 integers, of which most are 0; no size depends on their values.
    tokens_1T = torch.zeros(1, config.task_seq_len, dtype=torch.int64)
    tokens_1T[0, :6] = torch.tensor([49406, 518, 10549, 533, 29119, 49407])
    return HuggingFaceExpert(ExpertInfo("random OneFormer", tuple(names.values()), short, short), network, processor,
                             tokens_1T)  # fmt: skip


def codec_graph(batch: int, height: int, width: int) -> int:
    """Return the bytes that autograd keeps of the shallow codec for a whole batch."""
    recipe = load_recipe("gosvae-scratch")
    assert isinstance(recipe, VqRecipe)
    network: VqAutoencoder = recipe.network()
    x_B3HW = torch.rand(batch, 3, height, width)
    return kept_bytes(lambda: network(x_B3HW), network.parameters())


def expert_graph(expert: nn.Module, images: int, height: int, width: int) -> int:
    """Return the bytes that autograd keeps of the expert for some images."""
    x_hat_B3HW = torch.rand(images, 3, height, width, requires_grad=True)
    outputs: list[Tensor] = []
    return kept_bytes(lambda: outputs.append(expert(x_hat_B3HW)), expert.state_dict().values())


def main() -> None:
    """Print the measured graphs, and the peak of a step with and without micro-batches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=8, help="images of a batch")
    parser.add_argument("--height", type=int, default=256, help="height of the images")
    parser.add_argument("--width", type=int, default=512, help="width of the images")
    parser.add_argument("--input-short", type=int, default=256, help="short side of the expert's input")
    parser.add_argument("--micro-batch", type=int, default=1, help="images that the expert takes at once")
    parser.add_argument("--precision", choices=("32", "bf16"), default="bf16", help="arithmetic of the networks")
    options = parser.parse_args()
    torch.manual_seed(0)
    size = (options.height, options.width)
    expert = random_oneformer(options.input_short)
    weights = sum(p.numel() * p.element_size() for p in expert.parameters())
    started = time.monotonic()
    with autocast("cpu", options.precision):
        codec = codec_graph(options.batch, *size)
        judge = expert_graph(expert, options.micro_batch, *size)
    logits = 4 * options.batch * CLASSES * options.height * options.width
    per_image = judge / options.micro_batch
    print(f"expert: {weights / 4e6:.0f} M weights, {weights / GIB:.2f} GiB in float32; input short side "
          f"{options.input_short}, images {size[0]}x{size[1]}, {options.precision}")  # fmt: skip
    print(f"kept of the codec, batch of {options.batch}: {codec / GIB:.2f} GiB (measured)")
    print(f"kept of the expert, {options.micro_batch} image(s): {judge / GIB:.2f} GiB (measured)")
    print(f"logits of the originals, batch of {options.batch}: {logits / GIB:.2f} GiB (computed)")
    step = weights + codec + judge + logits
    print(f"step with micro-batches of {options.micro_batch}: {step / GIB:.2f} GiB, weights of the expert included")
    whole = weights + codec + per_image * options.batch + logits
    print(f"step with the whole batch: {whole / GIB:.2f} GiB (extrapolated from {options.micro_batch} image(s))")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
