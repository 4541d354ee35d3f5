"""Checks before the first step of a run, which refuse at once what would fail after days of training.

The cheapest checks come first: names, folders, files of weights, classes in the expert's configuration, and only then
the expert itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gosvae.datasets.base import Dataset
from gosvae.errors import ConfigError, DatasetError, GosvaeError
from gosvae.evaluation.fitting import check_class_names
from gosvae.experts.registry import known_classes
from gosvae.losses.perceptual import load_perceptual
from gosvae.reproduce.job import World, judges_looks
from gosvae.reproduce.plan import RowPlan, Trained
from gosvae.reproduce.scales import recipe_of
from gosvae.training.codecs import TrainableRecipe


def check_job(world: World, rows: Sequence[RowPlan], todo: Callable[[], Sequence[RowPlan]] | None = None) -> None:
    """Load all that the rows need, apart from what they train, and refuse what does not fit together.

    Afterwards data, expert, distances and Inception are loaded, and one image of each split has been read.

    Args:
        todo: function that returns those of the rows that are to be made, which may load the expert; by default all
            are. Rows that are finished need no weights for their training.

    Raises:
        GosvaeError: something is missing, damaged or does not fit; nothing has been trained.
    """
    train, test = world.train_images, world.test_images
    check_labels(world)
    _check_recipes(world, rows)
    _read_one(train, "train")
    _read_one(test, "test")
    _check_objects(world, rows)
    _check_distances(world, rows, todo or (lambda: rows))
    names = known_classes(world.job.expert)
    if test.has_labels and names is not None:
        check_class_names(test, names, world.job.expert, needs_labels=True)
    if test.has_labels:
        info = world.expert.info
        check_class_names(test, info.class_names, info.name, needs_labels=True)


def check_labels(world: World) -> None:
    """Refuse, at the paper's scale, folders that should have label maps to measure on and have none.

    Otherwise the expert's map of the original would take the place of the ground truth, for any expert.

    Raises:
        DatasetError: the label maps are missing.
    """
    missing = world.test_images.missing_labels
    if world.job.scale.is_papers and missing is not None:
        raise DatasetError(
            f"the scale {world.job.scale.name} measures on ground truth, and there are no label maps {missing}: put "
            "them there"
        )


def _check_recipes(world: World, rows: Sequence[RowPlan]) -> None:
    """Refuse overrides that a recipe does not have."""
    for row in rows:
        if isinstance(row.source, Trained):
            try:
                world.changes_of(row)
            except ConfigError as error:
                raise ConfigError(f"row {row.row_id}: {error}", argument=error.argument) from None


def _check_objects(world: World, rows: Sequence[RowPlan]) -> None:
    """Read an object map of each split for rows that are trained on labels."""
    for row in rows:
        if not (isinstance(row.source, Trained) and row.source.labels):
            continue
        train, test = world.train_images, world.test_images
        if train.object_names != test.object_names or not train.object_names:
            raise ConfigError(
                f"row {row.row_id} is trained and measured on labels of the same classes, got "
                f"{len(train.object_names)} classes in {train.name!r} and {len(test.object_names)} in {test.name!r}: "
                "choose other data, or leave the row out",
                argument="leave_out",
            )
        for images in (train, test):
            try:
                images.objects(0)
            except DatasetError as error:
                raise DatasetError(
                    f"row {row.row_id} is trained and measured on labels: {error}; get the files, or leave the row out",
                    argument="leave_out",
                ) from None


def _check_distances(world: World, rows: Sequence[RowPlan], todo: Callable[[], Sequence[RowPlan]]) -> None:
    """Load the distances of training and of measuring, and refuse rows to make whose loss lacks its own."""
    name = world.training_distance
    if name is None and any(_has_lpips(world, row) for row in rows):
        for row in todo():
            if _has_lpips(world, row):
                raise ConfigError(
                    f"row {row.row_id} is trained with LPIPS, of which no weights are wanted or found: name a distance "
                    "and the folder of its weights, or choose other rows",
                    argument="lpips",
                )
    loaded = None
    if any(judges_looks(row) for row in rows):
        loaded, _ = world.perceptual, world.features
    is_loaded = loaded is not None and loaded.name == name
    if name is not None and not is_loaded and any(_has_lpips(world, row) for row in todo()):
        load_perceptual(name, world.job.weights)


def _has_lpips(world: World, row: RowPlan) -> bool:
    """Return whether a row is trained with a perceptual distance."""
    if not isinstance(row.source, Trained):
        return False
    recipe = recipe_of(row, world.changes_of(row))
    return isinstance(recipe, TrainableRecipe) and "lpips" in recipe.wanted_terms


def _read_one(images: Dataset, split: str) -> None:
    """Read the first image of a split."""
    try:
        images[0]
    except GosvaeError as error:
        raise type(error)(f"the first image to {split} on cannot be used: {error}", argument=error.argument) from None
