"""A stopped run goes on as if it had never been stopped: the same losses and weights, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from gosvae.codecs.checkpoint import load_codec_checkpoint
from gosvae.datasets.base import Dataset, Sample
from gosvae.errors import CheckpointError
from gosvae.training.codecs import train_codec
from gosvae.training.machine.loop import Outcome
from gosvae.training.machine.resume import load_newest_state, save_state
from gosvae.training.vq import VqRecipe
from tiny import QUANTIZERS, expert, perceptual, recipe, run_config, streets


@dataclass
class Disturbed(Dataset):
    """Street scenes; `disturb` is called before every scene is drawn."""

    disturb: Callable[[], None]

    def __post_init__(self) -> None:
        self.inner = streets()
        self.name, self.class_names = self.inner.name, self.inner.class_names

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Sample:
        self.disturb()
        return self.inner[index]


def train(folder: Path, what: VqRecipe, *, data: Dataset | None = None, **options: Any) -> Outcome:
    """Train on four scenes without a bar."""
    run = options.pop("run", None) or run_config()
    return train_codec(
        what, data or streets(), streets(2), expert(), perceptual(), run, folder, progress=False, **options
    )


def losses(folder: Path) -> list[dict[str, Any]]:
    """The log without its clock."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "minutes"} for row in rows]


def assert_same_run(folder: Path, other: Path) -> None:
    """Equal losses at every step, equal weights and tables of every stage."""
    assert losses(folder) == losses(other)
    for part in (".", "stages/pixels", "stages/imitation"):
        one, two = load_codec_checkpoint(folder / part), load_codec_checkpoint(other / part)
        assert one.fingerprint() == two.fingerprint()
        assert torch.equal(one.counts, two.counts)


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Folders of runs that were never stopped, by quantizer and precision."""
    made: dict[tuple[str, str], Path] = {}

    def get(quantizer: str, precision: str) -> Path:
        if (quantizer, precision) not in made:
            folder = tmp_path_factory.mktemp("whole")
            outcome = train(folder, recipe(quantizer), run=run_config(precision=precision))
            assert (outcome.complete, outcome.step) == (True, 7)
            made[quantizer, precision] = folder
        return made[quantizer, precision]

    return get


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("quantizer", sorted(QUANTIZERS))
def test_stopping_after_every_step_changes_nothing(
    tmp_path: Path, whole_runs: Callable[[str, str], Path], quantizer: str, precision: str
) -> None:
    run = run_config(precision=precision)
    steps = []
    for _ in range(20):
        torch.rand(len(steps) + 1)  # what else uses the global generator must not matter
        outcome = train(tmp_path, recipe(quantizer), run=run, max_minutes=0)
        steps.append(outcome.step)
        if outcome.complete:
            break
    assert steps == [1, 2, 3, 5, 6, 7]  # a stage that is done starts the next one
    assert_same_run(tmp_path, whole_runs(quantizer, precision))


def test_a_signal_ends_the_run_after_the_step(
    tmp_path: Path, whole_runs: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = iter(range(100))

    def disturb() -> None:
        if next(scenes) == 12:  # the first scene of the third step, after two trial steps of two stages
            signal.raise_signal(signal.SIGTERM)  # in this thread, so that its handler runs at once

    before = signal.getsignal(signal.SIGTERM)
    outcome = train(tmp_path, recipe(), data=Disturbed(disturb))
    assert (outcome.complete, outcome.step) == (False, 3)
    assert signal.getsignal(signal.SIGTERM) is before
    assert "SIGTERM: saving after this step" in capsys.readouterr().out
    assert train(tmp_path, recipe()).complete
    assert_same_run(tmp_path, whole_runs("vq", "32"))


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    def disturb() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, recipe(), data=Disturbed(disturb))


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
sys.path.insert(0, {tests!r} + "/training/machine")
import torch
torch.set_num_threads({threads})
import tiny
from test_resume import train
import gosvae.training.machine.loop as loop

save = loop.save_state
def save_and_wait(folder, stage, step, state):
    path = save(folder, stage, step, state)
    if (stage, step) == (1, 1):
        (folder.parent / "saved").touch()
        import time; time.sleep(600)
    return path
loop.save_state = save_and_wait
train(Path({folder!r}), tiny.recipe("vq-ema"), run=tiny.run_config(save_minutes=1e-9))
"""


def test_a_killed_process_loses_nothing_that_was_saved(tmp_path: Path, whole_runs: Callable[[str, str], Path]) -> None:
    tests = Path(__file__).resolve().parents[2]
    script = KILLED.format(tests=str(tests), folder=str(tmp_path / "run"), threads=torch.get_num_threads())
    path = [str(tests.parent / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    try:
        for _ in range(5000):
            if (tmp_path / "run" / "saved").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    outcome = train(tmp_path / "run", recipe("vq-ema"))
    assert outcome.complete
    assert_same_run(tmp_path / "run", whole_runs("vq-ema", "32"))


def states(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted((folder / "resume").glob("*.state"), reverse=True)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", [damage, lambda p: p.write_bytes(p.read_bytes()[:100]), lambda p: p.write_bytes(b"")])
def test_a_damaged_state_falls_back_to_the_one_before(
    tmp_path: Path, whole_runs: Callable[[str, str], Path], how: Callable[[Path], object], caplog: Any
) -> None:
    for _ in range(3):
        train(tmp_path, recipe(), max_minutes=0)
    newest, before = states(tmp_path)
    how(newest)
    assert train(tmp_path, recipe(), max_minutes=0).step == 3  # from 2, not from 3
    assert "falling back to the one before" in caplog.text
    assert states(tmp_path) == [newest, before]  # written anew
    assert train(tmp_path, recipe()).complete
    assert_same_run(tmp_path, whole_runs("vq", "32"))


def test_a_damaged_state_does_not_push_intact_ones_out(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save_state(tmp_path, 0, step, {"step": step})
    damage(tmp_path / "00-000000030.state")
    (tmp_path / ".00-000000031.state.x1y2").write_bytes(b"half")  # of a process that was killed as it wrote
    save_state(tmp_path, 0, 25, {"step": 25})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00-000000020.state", "00-000000025.state"]
    damage(tmp_path / "00-000000025.state")
    assert load_newest_state(tmp_path) == {"step": 20}


def test_only_damaged_states_are_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        train(tmp_path, recipe(), max_minutes=0)
    for path in states(tmp_path):
        damage(path)
    with pytest.raises(CheckpointError, match=r"all states in .* are damaged: remove the folder to start again"):
        train(tmp_path, recipe())


def test_other_settings_do_not_continue_a_run(tmp_path: Path) -> None:
    train(tmp_path, recipe(), max_minutes=0)
    others = [
        (recipe(steps=(5, 3)), run_config()),
        (recipe("fsq"), run_config()),
        (recipe(), run_config(seed=1)),
        (recipe(), run_config(precision="bf16")),
    ]
    for what, run in others:
        with pytest.raises(CheckpointError, match="other settings") as caught:
            train(tmp_path, what, run=run)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"other data \(images 4, now 3\)"):
        train(tmp_path, recipe(), data=streets(3))
    assert train(tmp_path, recipe(), run=run_config(log_steps=3, save_minutes=1), max_minutes=0).step == 2


def test_a_finished_run_does_nothing_when_it_is_called_again(tmp_path: Path) -> None:
    def never() -> None:
        raise AssertionError("a finished run reads no data")

    train(tmp_path, recipe(steps=(2, 1)))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    outcome = train(tmp_path, recipe(steps=(2, 1)), data=Disturbed(never))
    assert (outcome.complete, outcome.step) == (True, 3)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_process_that_died_before_it_kept_the_result_keeps_it_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_runs: Callable[[str, str], Path]
) -> None:
    from gosvae.training import codecs

    def dies(*_: object) -> None:
        raise SystemExit(9)

    monkeypatch.setattr(codecs.CodecTraining, "snapshot", lambda *_: None)
    with monkeypatch.context() as patch:
        patch.setattr(codecs, "save_codec", dies)
        for _ in range(2):  # at the end of the first stage, twice at the same place
            with pytest.raises(SystemExit):
                train(tmp_path, recipe(), run=run_config(save_minutes=1e-9))
    with monkeypatch.context() as patch:
        real, count = codecs.save_codec, iter(range(9))
        patch.setattr(codecs, "save_codec", lambda *a: real(*a) if next(count) < 2 else dies())
        with pytest.raises(SystemExit):  # between the two copies of the last stage
            train(tmp_path, recipe(), run=run_config(save_minutes=1e-9))
    assert not (tmp_path / "config.json").exists()
    outcome = train(tmp_path, recipe())
    assert outcome.complete
    assert_same_run(tmp_path, whole_runs("vq", "32"))
