"""Supervised training of an expert on labelled images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.datasets.base import IGNORE_INDEX, Dataset
from gosvae.errors import DatasetError
from gosvae.training.machine.task import TrainingTask


class ExpertTask(TrainingTask):
    """Class-weighted cross-entropy between the network's logits and the labels (term `cross_entropy`)."""

    def __init__(self, network: nn.Module, class_weights_m: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("class_weights_m", class_weights_m)

    @property
    def known_terms(self) -> frozenset[str]:
        return frozenset({"cross_entropy"})

    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Also logs `accuracy`, the share of labelled pixels that are right."""
        del wanted
        if labels_BHW is None:
            raise DatasetError("training an expert needs labels: choose a dataset that has them")
        logits_BmHW = self.network(x_B3HW)
        loss = F.cross_entropy(
            logits_BmHW.float(), labels_BHW, weight=self.get_buffer("class_weights_m"), ignore_index=IGNORE_INDEX
        )
        with torch.no_grad():
            labelled = labels_BHW != IGNORE_INDEX
            hits = (logits_BmHW.argmax(1) == labels_BHW) & labelled
            accuracy = hits.sum() / labelled.sum().clamp_min(1)
        return {"cross_entropy": loss, "accuracy": accuracy}


def label_counts(dataset: Dataset, most: int = 200) -> Tensor:
    """Pixels of each class, (m,), over up to `most` evenly spaced samples.

    Raises:
        DatasetError: the dataset has no labels.
    """
    m = len(dataset.class_names)
    counts_m = torch.zeros(m, dtype=torch.int64)
    for i in range(0, len(dataset), max(1, -(-len(dataset) // most))):
        labels = dataset[i].labels_uint8_HW
        if labels is None:
            raise DatasetError(f"dataset {dataset.name!r} has no labels: training an expert needs them")
        counts_m += torch.bincount(torch.from_numpy(labels.copy()).reshape(-1).long(), minlength=256)[:m]
    return counts_m
