"""What differs from the paper, in sentences for the captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gosvae.reproduce.job import World
from gosvae.reproduce.plan import RowPlan
from gosvae.reproduce.results import Result

_PAPER = {
    "cityscapes": (
        "The paper: Cityscapes (2,975 images to train, 500 to measure, 256x512), OneFormer as expert, LPIPS with "
        "VGG16, 500 epochs (100 more after a pre-trained start, VQ-GAN 272, GESCO 250,000 steps)."
    ),
    "ade20k": (
        "The paper: ADE20K (20,100 images to train, 2,000 to measure, 256x512), OneFormer as expert, LPIPS with VGG16, "
        "100 epochs (40 more after a pre-trained start, VQ-GAN 32, GESCO 300,000 steps)."
    ),
}


def setting(world: World, results: Mapping[str, Result], rows: Sequence[RowPlan]) -> list[str]:
    """Data, expert and scale of our numbers, then the paper's."""
    done = [results[row.row_id] for row in rows if results[row.row_id].evaluation is not None]
    sentences = []
    if done:
        evaluation = done[0].evaluation
        assert evaluation is not None
        source = evaluation.provenance
        sentences.append(
            f"Ours: {source.dataset}, {len(world.train_images):,} images to train, {source.image_count} of "
            f"{source.geometry} to measure; expert: {source.expert}; "
            f"LPIPS: {source.perceptual or 'not at hand'}; scale {world.job.scale.name}."
        )
        reference = evaluation.reference
        if reference.miou is None:
            sentences.append(
                "The images have no labels: mIoU and accuracy are against the expert's map of the original."
            )
        elif reference.miou_classes is not None:
            sentences.append(
                f"mIoU is over {reference.miou_classes} classes, from one confusion matrix over all images."
            )
    sentences.append(_PAPER[world.paper_set])
    return sentences


def effort(world: World, results: Mapping[str, Result], rows: Sequence[RowPlan]) -> list[str]:
    """How long the learned rows were trained, and on what."""
    trained = [found for row in rows if (found := results[row.row_id]).record is not None and found.record.steps]
    if not trained:
        return []
    first = trained[0].record
    assert first is not None
    steps = sorted({found.record.own_steps for found in trained if found.record is not None})
    batch = first.batch_size or 1
    epochs = steps[-1] * batch / len(world.train_images)
    same = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    equal = "Each learned row has" if len(steps) == 1 else "Learned rows have"
    sentences = [
        f"{equal} {same} optimiser steps of its own ({batch} images a step, {steps[-1] * batch:,} images, about "
        f"{epochs:.1f} epochs), so rows are compared at equal steps and not at equal minutes; minutes are those of the "
        "row's own training. A pre-trained start stands on the steps of the VQ-VAE before it (“500 after 500”), which "
        "the rows from scratch do not have."
    ]
    evaluation = trained[0].evaluation
    if evaluation is not None:
        sentences.append(f"Made on: {evaluation.provenance.hardware}. {world.job.scale.sentence}")
    return sentences


RATES = (
    "KiB (1024 bytes): mean of real, complete files with their headers. The systems whose rate is a knob (JPEG, WebP, "
    "AVIF, JPEG XL, JPEG of a smaller image, Autoencoder) take at most the bytes of GOS-VAE with a pre-trained start, "
    "image by image; the paper gives its JPEG 11.5 KB and its Autoencoder 12.8 KB against GOS-VAE's 8.3. Where a file "
    "cannot be made so small, the smallest is taken, and the row says on how many images."
)
VISUAL = (
    "MSE on the [0, 1] scale. The text that the numbers are taken from names the paper's rows VQ-VAE and GOS-VAE "
    "without the marks of their variants: its numbers stand beside the shallow VQ-VAE and GOS-VAE from scratch."
)
LABEL_MAP = (
    "Label map: the sender runs the expert and sends its map, losslessly coded. It is the bound for this one task, it "
    "needs the expert at the sender, and there is no image; its distortion is not counted."
)
ABLATION = "All rows: shallow, r=4, K=512, from scratch. CE, KLD, JSD and LPIPS are the terms beside the codebook's."


def frechet(results: Mapping[str, Result]) -> str:
    """What the Fréchet distance of Table III is."""
    count = next((found.row.image_count for found in results.values() if found.row is not None), 0)
    return (
        f"Fréchet distance, over N = {count} images: it is not FID unless Inception weights are named here, and it is "
        "biased on so few images; the paper's FID stands beside it for the order of the rows only."
    )
