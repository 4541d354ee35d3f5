"""Rows on several devices: the order in which they start, what is told, failures, and that numbers are the same."""

from __future__ import annotations

import math
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from small_job import job, runner

from gosvae.config import parse
from gosvae.errors import ConfigError
from gosvae.evaluation.results import load_evaluation
from gosvae.reproduce import processes
from gosvae.reproduce.job import World
from gosvae.reproduce.plan import RowPlan, all_rows
from gosvae.reproduce.processes import RowStarter, Summary, make_rows
from gosvae.reproduce.runner import Runner, make_row
from gosvae.training.machine.config import RunConfig

ROWS = {row.row_id: row for row in all_rows()}
CHOSEN = ("vqvae", "gosvae-scratch", "gosvae", "jpeg", "label-map")


class Ended:
    """A process that has ended, or that ends when it is asked to."""

    exitcode: int | None = 7

    def __init__(self, end: Callable[[], None] = lambda: None) -> None:
        self.terminate = self.kill = end

    def join(self) -> None: ...


class Factory:
    """Starter whose rows are done at once, except those that it is told about."""

    def __init__(self, **outcomes: Summary | None) -> None:
        self.outcomes, self.started = outcomes, list[tuple[str, int]]()
        self.busy, self.most = set[int](), 0

    def __call__(self, row: RowPlan, device: int) -> tuple[Ended, Connection]:
        assert device not in self.busy
        self.busy.add(device)
        self.most = max(self.most, len(self.busy))
        self.started.append((row.row_id, device))
        here, there = Pipe(duplex=False)
        there.send(f"{row.row_id} begins")
        outcome = self.outcomes.get(row.row_id.replace("-", "_"), Summary(done=[row.row_id]))
        if outcome is not None:
            there.send(outcome)
        there.close()
        return Ended(), here


def made(factory: Factory, devices: int, *, deadline: float = math.inf) -> tuple[Summary, list[str], dict[str, str]]:
    summary, lines, given_up = Summary(), list[str](), dict[str, str]()

    def after(row: RowPlan) -> None:
        factory.busy.discard(dict(factory.started).get(row.row_id, -1))

    make_rows(
        [ROWS[name] for name in CHOSEN], summary, devices, factory, say=lines.append, on_row=after,
        give_up=lambda row, reason: given_up.update({row.row_id: reason}), deadline=deadline,
    )  # fmt: skip
    return summary, lines, given_up


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_a_row_starts_when_a_device_is_free_and_its_needs_are_done(devices: int) -> None:
    factory = Factory()
    summary, lines, _ = made(factory, devices)
    assert summary.complete
    assert set(summary.done) == set(CHOSEN)
    order = [name for name, _ in factory.started]
    assert order.index("vqvae") < order.index("gosvae") < order.index("jpeg")
    assert factory.most <= devices
    assert {device for _, device in factory.started} <= set(range(devices))
    assert "device 0: vqvae begins" in lines


def test_a_row_that_fails_takes_those_with_it_that_need_it() -> None:
    summary, _, given_up = made(Factory(vqvae=Summary(failed={"vqvae": "bad"})), 2)
    assert summary.failed["vqvae"] == "bad"
    assert summary.failed["gosvae"] == "it needs the row vqvae, which failed"
    assert given_up["jpeg"] == "it needs the row gosvae, which failed"
    assert set(summary.done) == {"gosvae-scratch", "label-map"}


def test_a_process_that_dies_is_a_failure() -> None:
    summary, _, given_up = made(Factory(label_map=None), 2)
    assert "exit status 7" in given_up["label-map"]
    assert given_up == summary.failed


def test_rows_that_are_left_end_the_run() -> None:
    summary, _, _ = made(Factory(vqvae=Summary(left=["vqvae"])), 1)
    assert summary.left == list(CHOSEN)
    summary, _, _ = made(Factory(), 1, deadline=-math.inf)
    assert summary.left == list(CHOSEN)


def test_ctrl_c_ends_the_processes_once_and_leaves_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, pipes, real = list[str](), dict[str, Connection](), processes.wait
    calls = iter(range(9))

    def interrupted(connections: list[Connection]) -> object:
        if next(calls) == 0:
            raise KeyboardInterrupt
        return real(connections)

    def start(row: RowPlan, _device: int) -> tuple[Ended, Connection]:
        here, pipes[row.row_id] = Pipe(duplex=False)

        def end() -> None:
            asked.append(row.row_id)
            pipes[row.row_id].send(Summary(left=[row.row_id]))
            pipes[row.row_id].close()

        return Ended(end), here

    monkeypatch.setattr(processes, "wait", interrupted)
    summary, lines = Summary(), list[str]()
    make_rows(
        [ROWS[name] for name in CHOSEN], summary, 2, start, say=lines.append, on_row=lambda _: None,
        give_up=lambda *_: None, deadline=math.inf,
    )  # fmt: skip
    assert asked == ["vqvae", "gosvae-scratch"]
    assert set(summary.left) == set(CHOSEN)
    assert lines == ["Ctrl-C: saving after this step; repeat to stop at once"]


def test_each_process_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    with processes._visible(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with processes._visible(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    asked = replace(job(), run=parse(RunConfig, {"accelerator": "cuda", "devices": 2}))
    with pytest.raises(ConfigError, match="2 devices of 'cuda' are asked for, and this machine has 1"):
        RowStarter(make_row, asked, None, (), Path(), 0.0).check()


def test_a_job_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(job())) == job()


def test_two_processes_make_the_rows_of_one(tmp_path: Path) -> None:
    """Real processes: the numbers are those of the rows made one after the other."""
    rows = ("vqvae", "label-map")
    assert runner(tmp_path / "one", rows=rows).run().complete
    lines: list[str] = []
    both = replace(job(), run=job().run.model_copy(update={"devices": 2}))
    plan = [ROWS[name] for name in rows]
    threads = threading.active_count()
    assert Runner(World(both), plan, tmp_path / "two", say=lines.append).run().complete
    assert threading.active_count() == threads
    for name in rows:
        one, two = (load_evaluation(tmp_path / folder / "rows" / name) for folder in ("one", "two"))
        assert [image.total_bytes for image in one.images] == [image.total_bytes for image in two.images]
        assert one.rows[1].miou == two.rows[1].miou
        assert any(f": row {rows.index(name) + 1} of 2, {name}: " in line for line in lines)
    assert runner(tmp_path / "two", rows=rows, lines=lines).run().complete
    assert (tmp_path / "one" / "rows" / "vqvae" / "settings.json").read_text() == (
        tmp_path / "two" / "rows" / "vqvae" / "settings.json"
    ).read_text()
