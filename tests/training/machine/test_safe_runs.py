"""A training loses nothing: all stages are tried first, states survive bad images, every save leaves a codec."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gosvae.codecs.checkpoint import load_codec_checkpoint
from gosvae.codecs.registry import load_codec
from gosvae.config import apply_overrides, parse
from gosvae.datasets.base import Dataset
from gosvae.datasets.folder import ImageFolder
from gosvae.errors import CheckpointError, DatasetError, ExpertError, ImageError
from gosvae.experts.base import Expert, ExpertInfo
from gosvae.training.codecs import train_codec
from gosvae.training.machine.config import RunConfig
from gosvae.training.machine.loop import Outcome
from gosvae.training.machine.resume import load_newest_state, save_state
from gosvae.training.machine.trial import duration
from gosvae.training.vq import VqRecipe
from tiny import expert, perceptual, recipe, recipe_tree, run_config, streets, variable_recipe


def train(
    folder: Path,
    *,
    what: VqRecipe | None = None,
    data: Dataset | None = None,
    judge: Expert | None = None,
    run: RunConfig | None = None,
    max_minutes: float | None = None,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    return train_codec(
        what or recipe(),
        data or streets(),
        data or streets(2),
        judge or expert(),
        perceptual(),
        run or run_config(),
        folder,
        max_minutes=max_minutes,
        progress=False,
        tell=tell,
    )


class _Refuses(Expert):
    """An expert that cannot take any image."""

    def __init__(self) -> None:
        super().__init__(ExpertInfo("refuses", ("a", "b"), 64, 96))

    def class_logits(self, x_B3HW: torch.Tensor) -> torch.Tensor:
        raise ExpertError(f"cannot take {tuple(x_B3HW.shape)}")


def test_a_stage_that_cannot_run_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(ExpertError, match="stage 'imitation', tried before the training begins: cannot take"):
        train(tmp_path, judge=_Refuses())
    assert not (tmp_path / "resume").exists()


def test_the_time_of_all_stages_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    train(tmp_path, tell=told.append)
    assert len(told) == 1
    assert re.fullmatch(r"time: about \d+ s for all stages, from trial steps", told[0])


def test_durations_are_rounded_to_what_a_person_reads() -> None:
    assert [duration(s) for s in (0.1, 29.4, 90, 3600, 5000)] == ["1 s", "29 s", "2 min", "1 h 0 min", "1 h 23 min"]


def pictures(folder: Path, count: int = 8) -> ImageFolder:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return ImageFolder(folder)


def damaged_inside(path: Path) -> None:
    """Damage the pixels of a PNG file; its header and its end are whole."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)


def test_images_that_cannot_be_read_are_refused_at_the_start(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    path = tmp_path / "data" / "3.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DatasetError, match=r"1 of 8 images of 'folder' cannot be used: .*3\.png"):
        train(tmp_path / "run", data=data)
    assert not (tmp_path / "run" / "resume").exists()


def test_a_damaged_image_costs_no_step_and_the_run_goes_on_without_it(tmp_path: Path) -> None:
    what = parse(VqRecipe, recipe_tree(steps=(30, 2)))
    data, run = pictures(tmp_path / "data"), tmp_path / "run"
    train(run, what=what, data=data, max_minutes=0)
    order = torch.randperm(8, generator=_generator())
    bad = tmp_path / "data" / f"{int(order[6])}.png"  # seen in the fourth step
    damaged_inside(bad)
    with pytest.raises(ImageError, match=bad.name):
        train(run, what=what, data=data)
    state = load_newest_state(run / "resume")
    assert state is not None
    assert state["progress"]["step"] == 3
    bad.unlink()
    rest = ImageFolder(tmp_path / "data")
    with pytest.raises(CheckpointError, match=r"other data \(images 8, now 7\): .*allow changed data") as caught:
        train(run, what=what, data=rest)
    assert caught.value.argument == "changed_data"
    outcome = train(run, what=what, data=rest, run=run_config(changed_data=True))
    assert (outcome.complete, outcome.step) == (True, 32)


def _generator() -> torch.Generator:
    from gosvae.seeding import torch_generator

    return torch_generator(0, "order", 0)


def test_a_refusal_names_what_differs(tmp_path: Path) -> None:
    train(tmp_path, max_minutes=0)
    changed = parse(VqRecipe, apply_overrides(recipe_tree(), ["stages.1.weights.jsd=2", "stages.0.steps=9"]))
    lines = r"settings \(stages.0.steps 4, now 9; stages.1.weights.jsd 1.0, now 2.0\)"
    with pytest.raises(CheckpointError, match=rf"other {lines}: "):
        train(tmp_path, what=changed, run=run_config(changed_data=True))
    with pytest.raises(CheckpointError, match=r"other settings \(seed 0, now 5\)"):
        train(tmp_path, run=run_config(seed=5))
    with pytest.raises(CheckpointError, match=r"other expert \(random \w{16}, now refuses \w{16}\): "):
        train(tmp_path, judge=_Refuses())


def test_a_run_of_an_earlier_version_continues_with_changed_data_if_it_is_told_to(tmp_path: Path) -> None:
    train(tmp_path, max_minutes=0)
    state = load_newest_state(tmp_path / "resume")
    assert state is not None
    del state["origins"]
    save_state(tmp_path / "resume", 0, state["progress"]["step"], state)
    with pytest.raises(CheckpointError, match="other settings, data or expert"):
        train(tmp_path, data=streets(3))
    assert train(tmp_path, data=streets(3), run=run_config(changed_data=True)).complete


def test_a_run_that_was_stopped_leaves_a_codec_that_says_it_is_unfinished(tmp_path: Path) -> None:
    assert not train(tmp_path, max_minutes=0).complete
    codec, image = load_codec(tmp_path), streets()[0].image_uint8_HW3
    assert codec.name == "tiny-unfinished"
    assert codec.decompress(codec.compress(image)).shape == image.shape
    notes = load_codec_checkpoint(tmp_path).provenance
    assert notes["unfinished"] == {"stage": "pixels", "step": 1, "steps_of_stage": 4}
    assert train(tmp_path).complete
    assert load_codec(tmp_path).name == "tiny"
    assert "unfinished" not in load_codec_checkpoint(tmp_path).provenance


def test_every_save_leaves_a_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gosvae.training.codecs import CodecTraining

    real, seen = CodecTraining.snapshot, []

    def noted(self: CodecTraining, result: object) -> None:
        seen.append(result.notes["unfinished"])  # type: ignore[attr-defined]
        real(self, result)  # type: ignore[arg-type]

    monkeypatch.setattr(CodecTraining, "snapshot", noted)
    train(tmp_path, run=run_config(save_minutes=1e-9))
    assert {"stage": "pixels", "step": 1, "steps_of_stage": 4} in seen
    assert {"stage": "pixels", "step": 4, "steps_of_stage": 4} in seen


def test_an_unfinished_variable_rate_codec_can_be_used(tmp_path: Path) -> None:
    data = streets(2)
    train_codec(
        variable_recipe(), data, data, expert(), perceptual(), run_config(), tmp_path, max_minutes=0, progress=False
    )
    codec, image = load_codec(tmp_path), streets()[0].image_uint8_HW3
    assert codec.name == "tiny-variable-unfinished"
    assert codec.decompress(codec.compress(image)).shape == image.shape
