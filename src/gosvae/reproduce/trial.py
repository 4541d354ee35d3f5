"""Trial of every row before a run: steps and an evaluation at full size, with memory, batch and hours.

A trial leaves no files. Its networks have their initial weights, so its figures are not results.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from gosvae.codecs.checkpoint import save_codec
from gosvae.config import to_tree
from gosvae.datasets.loader import TrainingBatches
from gosvae.datasets.objects import ObjectsAsLabels
from gosvae.datasets.subset import EvenlySpaced
from gosvae.errors import GosvaeError
from gosvae.evaluation.protocol import CodecEntry, evaluate
from gosvae.experts.base import TaskExpert
from gosvae.losses.perceptual import load_perceptual
from gosvae.reproduce.job import World, judges_looks
from gosvae.reproduce.memory import MemoryMeter
from gosvae.reproduce.paper import CITYSCAPES
from gosvae.reproduce.plan import RowPlan, Trained, rows_text
from gosvae.reproduce.scales import recipe_of, recipe_tree
from gosvae.seeding import seed_everything
from gosvae.tensors import image_to_tensor
from gosvae.training.codecs import CodecTraining, TrainableRecipe
from gosvae.training.machine.config import StageConfig
from gosvae.training.machine.loop import make_fabric
from gosvae.training.machine.trial import try_stages
from gosvae.units import bytes_from_kib

_TRIED_PIXELS = 2_000_000
"""Number of pixels on which the table of an untrained codec is counted."""
_BUDGET_KIB = 8.0
"""Budget of a row that matches a row of which the paper gives no bytes."""
_ROOM = 0.95
"""Share of the memory up to which a batch is said to fit."""
_GIB = 2.0**30


@dataclass(frozen=True)
class StepTrial:
    """Steps of one stage.

    Attributes:
        batch: planned number of images in a batch, for each device.
        tried: largest batch that was tried, at most the planned one; 0 if not even one image has room.
        seconds: duration of a step of `tried` images.
        peak_bytes: peak memory of such a step.
        fits: number of images in the largest batch that fits, from the growth of the memory.
    """

    batch: int
    tried: int
    seconds: float
    peak_bytes: int
    fits: int

    def seconds_of(self, steps: int) -> float:
        """Return the duration of the planned steps; if the batch was too large, that of as many images."""
        return 0.0 if self.tried == 0 else steps * self.seconds * self.batch / self.tried


@dataclass(frozen=True)
class RowTrial:
    """Trial of one row.

    Attributes:
        row_id: id of the row.
        stages: trials of its stages; empty if it trains nothing.
        hours: estimated hours of training and of the evaluation on all images; None if the trial failed.
        image_seconds: duration of one image in the evaluation; None if the trial failed.
        trouble: reason why the row cannot be made; empty if there is none.
    """

    row_id: str
    stages: tuple[StepTrial, ...] = ()
    hours: float | None = None
    image_seconds: float | None = None
    trouble: str = ""

    @property
    def works(self) -> bool:
        """Whether the row can be made with its planned batch."""
        return not self.trouble and all(stage.fits >= stage.batch for stage in self.stages)


def try_rows(
    world: World, rows: Sequence[RowPlan], on_row: Callable[[RowTrial], None] = lambda _: None
) -> list[RowTrial]:
    """Take steps and an evaluation of every row at full size; rows that differ in their seed alone are tried once.

    Args:
        on_row: function that is called with the trial of each row.
    """
    frechet_seconds = _frechet_seconds(world)
    trials: list[RowTrial] = []
    alike: dict[str, RowTrial] = {}
    folders: dict[str, Path] = {}
    with TemporaryDirectory() as made:
        for row in rows:
            key = _kind(world, row)
            first = alike.get(key)
            folders[row.row_id] = Path(made) / row.row_id if first is None else folders[first.row_id]
            if first is None:
                trial = _try_row(world, row, folders, frechet_seconds if judges_looks(row) else 0.0)
                alike[key] = trial
            else:
                trial = replace(first, row_id=row.row_id)
            trials.append(trial)
            on_row(trial)
    return trials


def _kind(world: World, row: RowPlan) -> str:
    """Return a text that is the same for rows of one recipe, whatever their seed."""
    if not isinstance(row.source, Trained):
        return row.plain_id
    recipe, images = recipe_tree(row, world.changes_of(row)), len(world.images_of(row))
    return json.dumps([recipe, row.match is None, images, judges_looks(row)])


def _frechet_seconds(world: World) -> float:
    """Return the seconds in which the network of the Fréchet distance sees one image."""
    if world.features is None:
        return 0.0
    x_13HW = image_to_tensor(world.test_images[0].image_uint8_HW3).to(world.device)
    seconds = 0.0
    with torch.inference_mode():
        for _ in range(2):  # the first call may choose its kernels
            started = time.perf_counter()
            world.features(x_13HW).cpu()
            seconds = time.perf_counter() - started
    return seconds


def _try_row(world: World, row: RowPlan, folders: Mapping[str, Path], frechet_seconds: float) -> RowTrial:
    """Return the trial of one row; an error of it is its trouble."""
    stages: list[StepTrial] = []
    try:
        training_seconds = 0.0
        if isinstance(row.source, Trained):
            training_seconds = _train(world, row, folders[row.row_id], stages)
        image_seconds = _evaluate(world, row, folders) + frechet_seconds
    except GosvaeError as error:
        return RowTrial(row.row_id, tuple(stages), trouble=str(error))
    except (MemoryError, torch.OutOfMemoryError):
        return RowTrial(row.row_id, tuple(stages), trouble="out of memory")
    hours = (training_seconds + image_seconds * len(world.images_of(row))) / 3600.0
    return RowTrial(row.row_id, tuple(stages), hours, image_seconds)


def _train(world: World, row: RowPlan, folder: Path, trials: list[StepTrial]) -> float:
    """Try the stages of a row, write its untrained codec, and return the seconds of all its steps."""
    recipe = recipe_of(row, world.changes_of(row))
    assert isinstance(recipe, TrainableRecipe)
    job = world.job
    expert: TaskExpert | None = world.expert if recipe.needs_expert else None
    judged = "lpips" in recipe.wanted_terms and world.training_distance is not None
    perceptual = load_perceptual(str(world.training_distance), job.weights) if judged else None
    seen, used = world.train_frames, world.train_images
    if recipe.needs_objects:
        seen, used = ObjectsAsLabels(seen), ObjectsAsLabels(used)
    training = CodecTraining(recipe.for_data(seen).for_expert(expert), seen, used, expert, perceptual, None)
    with torch.random.fork_rng(devices=[]):
        seed_everything(0)
        task = training.task()
    seconds = 0.0
    for stage in training.stages:
        trials.append(_try_stage(world, training, task, stage))
        seconds += trials[-1].seconds_of(stage.steps)
    checkpoint = training.recipe.finished(recipe.name, task.network.cpu(), training.used, _TRIED_PIXELS)
    save_codec(folder, checkpoint)
    return seconds


def _try_stage(world: World, training: CodecTraining, task: torch.nn.Module, stage: StageConfig) -> StepTrial:
    """Try one image, then two, then the planned batch if it should fit by then."""
    meter, run, planned = MemoryMeter(world.device), world.job.run, stage.batches.batch_size
    fabric = make_fabric(run)
    task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    limit = _ROOM * meter.limit_bytes()

    def batches(stage: StageConfig, rank: int, world_size: int) -> TrainingBatches:
        options = to_tree(stage.batches)
        return TrainingBatches(training.seen, **options, seed=run.seed, rank=rank, world_size=world_size)

    def steps(batch: int) -> tuple[float, int] | None:
        """Return seconds and peak memory of a step of a number of images; None if they have no room."""
        some = stage.model_copy(update={"batches": stage.batches.model_copy(update={"batch_size": batch})})
        meter.reset()
        try:
            seconds = try_stages(fabric, task, [some], run, batches)[stage.name]  # type: ignore[arg-type]
        except (MemoryError, torch.OutOfMemoryError):
            return None
        return seconds, meter.peak_bytes()

    found = steps(1)
    if found is None:
        return StepTrial(planned, 0, 0.0, 0, 0)
    (seconds, least), tried, fits = found, 1, planned
    peak = least
    for batch in sorted({min(2, planned), planned} - {1}):
        growth = (peak - least) / max(1, tried - 1)
        if tried > 1 and least + growth * (batch - 1) > limit:
            break
        found = steps(batch)
        if found is None:
            fits = batch - 1
            break
        (seconds, peak), tried = found, batch
    growth = (peak - least) / max(1, tried - 1)
    if growth > 0 and tried > 1:
        most = 1 + int((limit - least) / growth)
        fits = min(fits, most) if tried < planned else max(planned, most)
    return StepTrial(planned, tried, seconds, peak, fits)


def _evaluate(world: World, row: RowPlan, folders: Mapping[str, Path]) -> float:
    """Measure two images with the untrained codec of a row and return the seconds of the second one."""
    codec = world.codec(row, folders.__getitem__)
    budget = row.budget_kib
    if row.match is not None:
        budget = CITYSCAPES[row.match].kib if row.match in CITYSCAPES else _BUDGET_KIB
    ends = [time.perf_counter()]
    evaluate(
        [CodecEntry(row.row_id, codec, budget_bytes=None if budget is None else bytes_from_kib(budget))],
        EvenlySpaced(world.images_of(row), 2),
        world.expert,
        perceptual=world.perceptual if judges_looks(row) else None,
        progress=False,
        on_image=lambda _: ends.append(time.perf_counter()),
    )
    return ends[-1] - ends[-2]


def print_trials(world: World, rows: Sequence[RowPlan]) -> int:
    """Print the trial of every row and the hours of all; return 0 if every row can be made as planned, else 1.

    Call `check_job` first, for the data and networks of all rows.
    """
    device = world.device.type
    kind = "the GPU" if device == "cuda" else "the process"
    print(f"trial of {rows_text(len(rows))} at scale {world.job.scale.name} on {device}; memory is the peak of {kind}")
    print(f"{'row':<24}{'batch':>6}{'fits':>6}{'GiB':>8}{'s/step':>9}{'s/image':>9}{'hours':>9}")
    trials = try_rows(world, rows, on_row=lambda trial: print(_line(trial), flush=True))
    total = sum(trial.hours or 0.0 for trial in trials)
    failed = [trial.row_id for trial in trials if not trial.works]
    print(f"about {total:.1f} hours altogether, from these steps and images")
    for trial in trials:
        for number, stage in enumerate(trial.stages):
            if stage.fits < stage.batch:
                print(
                    f"{trial.row_id}: a batch of {stage.batch} does not fit; set "
                    f"{trial.row_id}:stages.{number}.batches.batch_size={max(1, stage.fits)}"
                    + ("" if stage.fits else ", although not even one image fits")
                )
    if failed:
        print(f"{len(failed)} of {len(trials)} rows cannot be made as planned: {', '.join(failed)}")
    return 1 if failed else 0


def _line(trial: RowTrial) -> str:
    stages = trial.stages
    cells = ["-"] * 4
    if stages:
        worst = min(stages, key=lambda stage: stage.fits - stage.batch)
        seconds = max(stage.seconds for stage in stages)
        peak = max(stage.peak_bytes for stage in stages)
        cells = [str(worst.batch), str(worst.fits), f"{peak / _GIB:.2f}", f"{seconds:.2f}"]
    image = "-" if trial.image_seconds is None else f"{trial.image_seconds:.2f}"
    hours = "-" if trial.hours is None else f"{trial.hours:.2f}"
    text = f"{trial.row_id:<24}{cells[0]:>6}{cells[1]:>6}{cells[2]:>8}{cells[3]:>9}{image:>9}{hours:>9}"
    return f"{text}  {trial.trouble}".rstrip()
