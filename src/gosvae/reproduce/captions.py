"""Sentences for the captions, which say what differs from the paper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gosvae.evaluation.rows import FID_NETWORK
from gosvae.reproduce import effort
from gosvae.reproduce.job import World
from gosvae.reproduce.plan import RowPlan
from gosvae.reproduce.results import Result, frechet_network

_PAPER = {
    "cityscapes": (
        "The paper: Cityscapes (2,975 images to train, 500 of 256x512 to measure), OneFormer, LPIPS with VGG16, 500 "
        "epochs (100 more after a pre-trained start, VQ-GAN 272, GESCO 250,000 steps)."
    ),
    "ade20k": (
        "The paper: ADE20K (20,100 images to train, 2,000 of 256x512 to measure), OneFormer, LPIPS with VGG16, 100 "
        "epochs (40 more after a pre-trained start, VQ-GAN 32, GESCO 300,000 steps)."
    ),
}


def setting(world: World, results: Mapping[str, Result], rows: Sequence[RowPlan]) -> list[str]:
    """Return sentences on data, expert and length of training: of our rows, then of the paper."""
    done = [results[row.row_id] for row in rows if results[row.row_id].evaluation is not None]
    done.sort(key=lambda result: bool(result.trouble))  # the setting is that of rows that were measured as planned
    sentences = []
    if done:
        evaluation = done[0].evaluation
        assert evaluation is not None
        source = evaluation.provenance
        sentences.append(
            f"Ours: {source.dataset} ({len(world.train_images):,} images to train, {source.image_count} of "
            f"{source.geometry} to measure), {_expert(world, source.expert)}, LPIPS: "
            f"{_distances(world, source.perceptual)}, scale {world.job.scale.name}."
        )
        sentences += effort.training(world, results, rows)
        if evaluation.reference.miou is None:
            sentences.append(
                "The images have no labels: mIoU and accuracy are against the expert's map of the original."
            )
    sentences.append(_PAPER[world.paper_set])
    return sentences


def _expert(world: World, name: str) -> str:
    """Return the name of the expert, with the size of its input if the user chose one."""
    chosen = re.search(r"\?short=(\d+)$", world.job.expert or "")
    return name if chosen is None else f"{name} with a short side of {chosen[1]} pixels"


def _distances(world: World, measured: str | None) -> str:
    """Return the name of the perceptual distance that was measured, and that of trainings if it is another one."""
    trained = world.training_distance
    return (measured or "not measured") + ("" if trained in (None, measured) else f" (rows are trained with {trained})")


def fairness(world: World, results: Mapping[str, Result]) -> list[str]:
    """Return sentences on the differences between the learned rows."""
    evaluations = [found.evaluation for found in results.values() if found.evaluation is not None]
    sentences = [f"{effort.equal_steps(results)} {world.job.scale.told(world.job.changes)}"]
    if evaluations:
        machines = dict.fromkeys(evaluation.provenance.hardware for evaluation in evaluations)
        sentences.append(f"Measured on: {'; '.join(machines)}.")
    return sentences


def gesco(world: World, rows: Sequence[RowPlan]) -> list[str]:
    """Return a sentence on what the two rows of GESCO send, if they are among the rows."""
    titles = {row.row_id: row.title for row in rows}
    sentences = []
    if "gesco-labels" in titles:
        images = world.train_images
        where = " and the edges between instances" if images.has_instances else ""
        sentences.append(
            f"{titles['gesco-labels']}, as published, is trained and measured with ground truth: it sends the label "
            f"map with {len(images.object_names)} classes{where}, losslessly coded, whose bytes the table has."
        )
    if "gesco" in titles:
        classes = len(world.expert.info.class_names)
        sentences.append(
            f"{titles['gesco']}, which the paper lacks, sends the map of {classes} classes that the expert sees, and "
            "needs no labels."
        )
    if "gesco-labels" in titles:
        sentences.append(
            "In the paper GESCO has 35 classes and edges on Cityscapes, where the expert and all other rows have 19 "
            "classes."
        )
    return [*sentences, *effort.sampling(world, rows)]


def seeds(results: Mapping[str, Result], rows: Sequence[RowPlan]) -> list[str]:
    """Return a sentence on the spread over seeds, if there are rows with several seeds."""
    repeated = [row for row in rows if row.repeats is not None and results[row.row_id].row is not None]
    if not repeated:
        return []
    return ["A row with several seeds shows their mean and, after ±, their standard deviation as a sample."]


def troubles(results: Mapping[str, Result], rows: Sequence[RowPlan]) -> list[str]:
    """Return a sentence for each reason for which rows failed or have other settings than the plan."""
    titles: dict[str, list[str]] = {}
    for row in rows:
        if results[row.row_id].trouble:
            titles.setdefault(results[row.row_id].trouble, []).append(results[row.row_id].plan.title)
    return [f"{'; '.join(names)}: {trouble}." for trouble, names in titles.items()]


def frechet(results: Mapping[str, Result], rows: Sequence[RowPlan]) -> str:
    """Return a sentence that says which Fréchet distance Table III has; it also gives the column its name."""
    network = frechet_network(results, rows)
    if network is None:
        return "The Fréchet distance was not measured."
    measured = [row for plan in rows if (row := results[plan.row_id].row) is not None]
    count = next(row.image_count for row in measured if row.frechet_network == network)
    if network == FID_NETWORK:
        return f"FID over N = {count} images; the paper's N is 500 or 2,000, and FID is larger with fewer images."
    return (
        f"Fréchet distance in the features of {network}, over N = {count} images: it is not the FID, and it is too "
        "large with so few images. The paper's FID is shown for the order of the rows only, without a difference."
    )


def ablation(world: World, rows: Sequence[RowPlan]) -> str:
    """Return a sentence on what the rows of Table IV have in common."""
    return (
        f"All rows: shallow, {effort.sizes(world, rows)}, from scratch. CE, KLD, JSD and LPIPS are the terms "
        "beside the codebook's."
    )


RATES = (
    "KiB (1024 bytes): mean of real, complete files with their headers. The systems whose rate can be set (JPEG, WebP, "
    "AVIF, JPEG XL, JPEG of a smaller image, Autoencoder) use at most the bytes of GOS-VAE with a pre-trained start, "
    "image by image. If a file cannot be made so small, the smallest file is used, and the row gives the number of "
    "such images."
)
PAPER_RATES = "In the paper, JPEG has 11.5 KB and Autoencoder 12.8 KB against 8.3 KB of GOS-VAE."
"""Sentence on Table I alone: Table II gives no bytes."""
VISUAL = (
    "MSE on the [0, 1] scale. The source of the paper's numbers names its rows VQ-VAE and GOS-VAE without their "
    "variants; the numbers are shown beside the shallow VQ-VAE and GOS-VAE from scratch."
)
LABEL_MAP = (
    "Label map: the sender runs the expert and sends its map, losslessly coded. This is the bound for this one task; "
    "it needs the expert at the sender (its parameters are those of the expert), and there is no image."
)
