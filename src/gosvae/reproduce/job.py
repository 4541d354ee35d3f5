"""Choices of a reproduction, and the data and networks that are loaded once for all rows."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from gosvae.codecs.base import ImageCodec
from gosvae.codecs.gesco import GescoCodec, give_expert
from gosvae.codecs.registry import LABEL_MAP, load_codec
from gosvae.config import to_tree
from gosvae.datasets.base import Dataset
from gosvae.datasets.geometry import GeometryConfig
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.errors import CheckpointError, ConfigError, MissingDependencyError
from gosvae.evaluation.features import FeatureExtractor, load_features
from gosvae.experts.base import Expert
from gosvae.experts.registry import load_expert
from gosvae.losses.perceptual import PERCEPTUAL_NAMES, PerceptualLoss, default_perceptual, load_perceptual
from gosvae.reproduce.paper import PaperSet
from gosvae.reproduce.plan import Borrowed, Named, RowPlan, Trained
from gosvae.reproduce.records import key_of
from gosvae.reproduce.scales import Scale, changes_of, planned_steps, recipe_of, recipe_tree, share_trainings
from gosvae.training.codecs import TrainableRecipe
from gosvae.training.machine.config import RunConfig

CITYSCAPES, ADE20K = "cityscapes", "ade20k"
"""Names of the paper's data sets."""


_ANY_STEPS = 1000
"""Steps with which a recipe is read for the size of its batch, on which the real ones depend."""


@dataclass(frozen=True)
class Job:
    """Choices of a reproduction.

    Attributes:
        data: images to train on, without a split; their `val` split is evaluated, or `test_data`.
        expert: name of the expert, as for `load_expert`.
        trust: whether the expert may be a program, as for `load_expert`.
        changes: overrides, `key=value` for every recipe or `ROW:key=value` for one row and its repetitions, which win
            over those for every recipe.
        geometry: geometry of the images, in place of the data set's own.
        lpips, weights: perceptual distance to measure with, and the folder of its weights, as for `gosvae.train`.
        train_lpips: perceptual distance to train with; None takes the one that rows of the folder were trained with, or
            that of `lpips` for the first of them.
        fid: whether a Fréchet distance is measured. At the scale `paper` it is the FID, at others it may be in the
            features of another network.
        any_inception: whether a file of Inception that is none of the published ones is taken, see `load_features`.
        run: devices, precision and workers; the plan sets the seeds. With several devices, each makes a row of its own
            at a time.
    """

    data: str
    expert: str
    scale: Scale
    test_data: str | None = None
    changes: tuple[str, ...] = ()
    geometry: GeometryConfig | None = None
    lpips: str = "auto"
    weights: Path | None = None
    train_lpips: str | None = None
    run: RunConfig = field(default_factory=RunConfig)
    trust: bool = False
    fid: bool = True
    any_inception: bool = False

    def __post_init__(self) -> None:
        if self.test_data is None and "@" in self.data.rpartition("/")[2]:
            raise ConfigError(
                f"data {self.data}: the split is chosen here (train, then val): give the data without one, or name "
                "the images to evaluate on separately",
                argument="test_data",
            )

    def changes_for(self, row: RowPlan) -> tuple[str, ...]:
        """Return the user's overrides of one row's recipe; those of the row come after, and win over, those of all."""
        found: dict[str, list[str]] = {"": [], row.plain_id: [], row.row_id: []}
        for change in self.changes:
            name, change = row_and_change(change)
            if name in found:
                found[name].append(change)
        return tuple(change for changes in found.values() for change in changes)


def row_and_change(change: str) -> tuple[str, str]:
    """Return the row that a change `ROW:key=value` names, empty for all rows, and the change alone."""
    name, separator, _ = change.partition("=")[0].partition(":")
    return (name, change[len(name) + 1 :]) if separator else ("", change)


def judges_looks(row: RowPlan) -> bool:
    """Return whether a row's perceptual and Fréchet distances are measured; Fig. 4 does not show them."""
    return "fig4" not in row.experiments


class World:
    """Data, expert and perceptual distance of a job, each loaded when it is first needed.

    Args:
        job: choices of the reproduction.
        trained_with: name of the perceptual distance that its rows were trained with so far; None if none was.
    """

    def __init__(self, job: Job, trained_with: str | None = None) -> None:
        self.job, self.trained_with = job, trained_with
        self._settings: dict[str, dict[str, Any]] = {}
        wants_gpu = job.run.accelerator in ("auto", "cuda") and torch.cuda.is_available()
        self.device = torch.device("cuda" if wants_gpu else "cpu")

    @cached_property
    def train_images(self) -> Dataset:
        """Images that rows are trained on."""
        return load_prepared(self.job.data, default_split="train", geometry=self.job.geometry)

    @cached_property
    def train_frames(self) -> Dataset:
        """The same images without a crop of their centre, which crops for training are cut from."""
        return load_prepared(self.job.data, default_split="train", geometry=self.job.geometry, centre_crop=False)

    @cached_property
    def test_images(self) -> Dataset:
        """Images that rows are measured on."""
        spec = self.job.test_data or self.job.data
        return load_prepared(spec, default_split="val", geometry=self.job.geometry, cache_bytes=2**28)

    @cached_property
    def expert(self) -> Expert:
        """Expert of the receiver, on the device."""
        return load_expert(self.job.expert, trust=self.job.trust).to(self.device)

    @cached_property
    def expert_fingerprint(self) -> str:
        """SHA-256 of the expert's weights."""
        return self.expert.fingerprint()

    @cached_property
    def perceptual(self) -> PerceptualLoss | None:
        """Perceptual distance, on the device; None if it is not wanted or its weights are not found."""
        name = self._distance(self.job.lpips)
        return None if name is None else load_perceptual(name, self.job.weights).to(self.device)

    @cached_property
    def training_distance(self) -> str | None:
        """Name of the perceptual distance of trainings; None if there is none."""
        return self._distance(self.job.train_lpips or self.trained_with or self.job.lpips)

    def _distance(self, name: str) -> str | None:
        """Return the name of a perceptual distance; that of `auto` is None if no weights are found.

        At the paper's scale `auto` is the paper's distance, and no other one takes its place.
        """
        if name == "none":
            return None
        if name == "auto" and self.job.scale.is_papers:
            return PERCEPTUAL_NAMES[0]
        try:
            return default_perceptual(self.job.weights) if name == "auto" else name
        except MissingDependencyError:
            return None

    @cached_property
    def features(self) -> FeatureExtractor | None:
        """Network of the Fréchet distance, on the device; None if it is not wanted."""
        job = self.job
        if not job.fid:
            return None
        name, expert = ("inception", None) if job.scale.is_papers else ("auto", self.expert)
        found = load_features(
            name,
            expert,
            job.weights,
            any_inception=job.any_inception,
            otherwise="measure no FID",
        )
        return found.to(self.device)

    @property
    def is_ade20k(self) -> bool:
        """Whether the rows are compared with the paper's numbers and lengths for ADE20K."""
        return self.train_images.name == ADE20K

    @property
    def paper_set(self) -> PaperSet:
        """Data set of the paper whose numbers are shown beside ours."""
        return "ade20k" if self.is_ade20k else "cityscapes"

    def can_make(self, row: RowPlan) -> bool:
        """Return whether the data have what a row is made of: labels, for a row that is trained on them."""
        return not (isinstance(row.source, Trained) and row.source.labels) or bool(self.train_images.object_names)

    def images_of(self, row: RowPlan) -> Dataset:
        """Return the images that a row is measured on; points of Fig. 4 may have fewer."""
        count = self.job.scale.sweep_images if "fig4" in row.experiments else None
        return self.test_images if count is None else EvenlySpaced(self.test_images, count)

    def steps_of(self, row: RowPlan) -> int:
        """Return the steps of a row's own training as planned, before the user's overrides."""
        batch, ade20k = None, self.is_ade20k
        if isinstance(row.source, Trained):
            with contextlib.suppress(ConfigError):  # impossible overrides are reported where they are used
                changes = changes_of(row, self.job.scale, _ANY_STEPS, self.job.changes_for(row), ade20k=ade20k)
                batch = recipe_of(row, changes).stages[-1].batches.batch_size
        return planned_steps(row, self.job.scale, len(self.train_images), ade20k=ade20k, batch_size=batch)

    def changes_of(self, row: RowPlan) -> list[str]:
        """Return all overrides of a trained row; errors are those of `scales.changes_of`."""
        more = self.job.changes_for(row)
        return changes_of(row, self.job.scale, self.steps_of(row), more, ade20k=self.is_ade20k)

    def batch_size_of(self, row: RowPlan) -> int:
        """Return the number of images in a batch of the last stage."""
        recipe = recipe_of(row, self.changes_of(row))
        return recipe.stages[-1].batches.batch_size

    def share_trainings(self, rows: Sequence[RowPlan]) -> tuple[RowPlan, ...]:
        """Return the rows that the data can make, of which those with equal trainings are trained once.

        See `scales.share_trainings`; as `share` of `rows_of` this decides it in one way for every choice of rows.
        """
        rows, changes = [row for row in rows if self.can_make(row)], {}
        for row in rows:
            if isinstance(row.source, Trained):
                with contextlib.suppress(ConfigError):  # the runner reports it when the row has its turn
                    changes[row.row_id] = self.changes_of(row)
        return share_trainings(rows, changes)

    def real_steps(self, row: RowPlan, changes: list[str]) -> int:
        """Return the steps of a row's own training with all overrides."""
        recipe = recipe_of(row, changes)
        return sum(stage.steps for stage in recipe.stages)

    def run_of(self, row: RowPlan) -> RunConfig:
        """Return the options that a row is trained with."""
        assert isinstance(row.source, Trained)
        own = {
            "seed": row.source.seed,
            "devices": 1,
            "tensorboard": False,
            "log_steps": 2 if (self.steps_of(row) or 0) < 5000 else 10,
            "histogram_pixels": self.job.scale.histogram_pixels,
        }
        return self.job.run.model_copy(update=own)

    def settings(self, row: RowPlan, rows: dict[str, RowPlan]) -> dict[str, Any]:
        """Return all settings that a row's numbers depend on, including those of the rows it needs.

        Raises:
            ConfigError: the recipe is not in this version of the package, or an override is impossible.
        """
        if row.row_id in self._settings:
            return self._settings[row.row_id]
        images = self.images_of(row)
        settings: dict[str, Any] = {
            "row": row.row_id,
            "test": [images.name, len(images)],
            "geometry": None if self.job.geometry is None else to_tree(self.job.geometry),
            "expert": self.expert_fingerprint,
            "perceptual": None if self.perceptual is None else self.perceptual.name,
            "frechet": self.features.name if judges_looks(row) and self.features is not None else None,
            "budget_kib": row.budget_kib,
            "needs": {name: self.settings(rows[name], rows) for name in row.needs},
        }
        if isinstance(row.source, Trained):
            settings["train"] = [self.train_images.name, len(self.train_images)]
            settings["recipe"] = recipe_tree(row, self.changes_of(row))
            settings["seed"] = row.source.seed
            settings["precision"] = self.job.run.precision
            if self.training_distance != settings["perceptual"]:  # the key of rows with one distance for both stays
                settings["training_distance"] = self.training_distance
        elif isinstance(row.source, Named):
            settings["codec"] = row.source.codec
        self._settings[row.row_id] = settings
        return settings

    def training_key(self, row: RowPlan, rows: dict[str, RowPlan], settings: dict[str, Any]) -> str | None:
        """Return the key of those of a row's settings that its training depends on; None if it trains nothing.

        Args:
            settings: what `settings` returns, for the present job or an earlier one.
        """
        part = self._training_part(row, rows, settings)
        return None if part is None else key_of(part)

    def making_key(self, row: RowPlan, rows: dict[str, RowPlan], settings: dict[str, Any]) -> str:
        """Return the key of a row's settings without the way of measuring: of its training, or of its codec and bytes.

        Args:
            settings: what `settings` returns, for the present job or an earlier one.
        """
        return key_of(self._making_part(row, rows, settings))

    def _making_part(self, row: RowPlan, rows: dict[str, RowPlan], settings: dict[str, Any]) -> dict[str, Any]:
        part = self._training_part(row, rows, settings)
        if part is None:
            needs = settings.get("needs", {})
            part = {name: settings.get(name) for name in ("row", "codec", "budget_kib")}
            part["needs"] = {name: self._making_part(rows[name], rows, needs.get(name, {})) for name in row.needs}
        return part

    def _training_part(self, row: RowPlan, rows: dict[str, RowPlan], settings: dict[str, Any]) -> dict[str, Any] | None:
        if not isinstance(row.source, Trained):
            return None
        recipe = recipe_of(row, self.changes_of(row))
        assert isinstance(recipe, TrainableRecipe)
        part = {name: settings.get(name) for name in ("row", "train", "geometry", "recipe", "seed", "precision")}
        if recipe.needs_expert:
            part["expert"] = settings.get("expert")
        if "lpips" in recipe.wanted_terms:
            part["distance"] = settings.get("training_distance", settings.get("perceptual"))
        if row.source.init is not None:
            start = settings.get("needs", {}).get(row.source.init, {})
            part["init"] = self._training_part(rows[row.source.init], rows, start)
        return part

    def codec(self, row: RowPlan, folder_of: Any) -> ImageCodec:
        """Return the codec of a row whose training is finished.

        Args:
            folder_of: function from a row's id to its checkpoint folder.

        Raises:
            ConfigError: an unknown codec.
            CheckpointError: the training is not finished, or its checkpoint is not there.
        """
        if isinstance(row.source, Named):
            own = f":{self.job.expert}" if row.source.codec == LABEL_MAP else ""
            return load_codec(row.source.codec + own, device=self.device, trust=self.job.trust)
        trained = row.source.row if isinstance(row.source, Borrowed) else row.row_id
        if not folder_of(trained).exists():
            raise CheckpointError(f"the row {trained} has no checkpoint here; one from a kept file has none")
        codec = load_codec(str(folder_of(trained)), device=self.device)
        if isinstance(codec, GescoCodec):
            give_expert(codec, self.expert)
        return codec
