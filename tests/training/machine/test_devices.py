"""Two processes train as one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gosvae.codecs.checkpoint import load_codec_checkpoint
from gosvae.config import to_tree
from tiny import recipe_tree
from tiny import variable_recipe as recipe

TESTS = Path(__file__).resolve().parents[2]

SCRIPT = """
import hashlib, json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import tiny
from gosvae.config import parse
from gosvae.training.machine import loop
from gosvae.training.codecs import train_codec
from gosvae.training.vq import VqRecipe
from gosvae.training.variable import VariableRateRecipe

folder, minutes = Path(sys.argv[1]), None if sys.argv[2] == "all" else float(sys.argv[2])
networks = []
init = loop.Trainer.__init__
def watched(self, task, *rest, **named):
    networks.append(task.network)
    init(self, task, *rest, **named)
loop.Trainer.__init__ = watched
run = tiny.run_config(devices=2)
tree = json.loads(sys.argv[3])
recipe = parse(VariableRateRecipe if tree.get("kind") == "variable-rate" else VqRecipe, tree)
outcome = train_codec(recipe, tiny.streets(), tiny.streets(2), tiny.expert(), tiny.perceptual(),
                      run, folder, max_minutes=minutes, progress=False)
digest = hashlib.sha256()
for name, value in sorted(networks[0].state_dict().items()):
    digest.update(name.encode() + value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
rank = os.environ.get("LOCAL_RANK", "0")
(folder / f"rank-{rank}.json").write_text(json.dumps([digest.hexdigest(), outcome.complete, outcome.step]))
"""


def train(tmp_path: Path, folder: Path, minutes: str, tree: dict[str, Any] | None = None) -> list[list[object]]:
    """Run the script with a recipe's tree on two processes and return what each says."""
    script = tmp_path / f"{folder.name}.py"
    script.write_text(SCRIPT)
    path = [str(TESTS.parent / "src"), str(TESTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    for name in ("LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        environment.pop(name, None)
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(script), str(folder), minutes, json.dumps(tree or recipe_tree("vq-ema"))]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, errors = process.communicate(timeout=540)
    finally:
        with contextlib.suppress(ProcessLookupError):  # the second process has the first for its leader
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, errors
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def whole_and_parts(tmp_path: Path, tree: dict[str, Any] | None = None) -> tuple[list[list[object]], ...]:
    """Train without a stop in `whole`, and side by side with that once stopped and once continued in `parts`."""
    with ThreadPoolExecutor() as pool:
        whole = pool.submit(train, tmp_path, tmp_path / "whole", "all", tree)
        stopped = train(tmp_path, tmp_path / "parts", "0", tree)
        continued = train(tmp_path, tmp_path / "parts", "all", tree)
        return whole.result(), stopped, continued


@pytest.mark.slow
def test_two_processes_agree_and_continue(tmp_path: Path) -> None:
    whole, stopped, continued = whole_and_parts(tmp_path)
    assert whole[0] == whole[1]  # the same weights, codebook included
    assert whole[0][1:] == [True, 7]
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 8))  # written once, by one of them
    assert stopped[0] == stopped[1]
    assert stopped[0][1:] == [False, 1]
    assert continued == whole
    one, two = (load_codec_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    assert one.fingerprint() == two.fingerprint()
    again = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [row["total"] for row in again] == [row["total"] for row in rows]


@pytest.mark.slow
def test_two_processes_agree_on_a_variable_rate_codec(tmp_path: Path) -> None:
    # Now and then no image of a batch loses anything; the weights for what is lost take part all the same.
    ranks = train(tmp_path, tmp_path / "run", "all", to_tree(recipe(erasures={"share": 0.3})))
    assert ranks[0] == ranks[1]
    assert ranks[0][1:] == [True, 4]
