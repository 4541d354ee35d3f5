"""Training of a context model: it learns, it can be stopped, and what is trained is what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gosvae.codecs.checkpoint import load_codec_checkpoint, save_codec
from gosvae.codecs.vq import VqCodec
from gosvae.config import parse
from gosvae.entropy.adaptive import AdaptiveCounts
from gosvae.entropy.context import ContextModel, ContextNetwork
from gosvae.entropy.static import StaticHistogram
from gosvae.errors import CheckpointError, ConfigError, ForeignStreamError
from gosvae.evaluation.entropy import entropy_table, measure_entropy
from gosvae.training.entropy import ContextRecipe, ContextTask, context_config, default_recipe, train_context
from gosvae.training.machine.loop import Outcome
from tiny import checkpoint, model_config, run_config, streets


def tiny_codec(quantizer: str = "vq") -> VqCodec:
    return VqCodec(checkpoint(model_config(quantizer)))


def recipe(steps: int, **model: Any) -> ContextRecipe:
    stage = {
        "name": "context", "weights": {"bits": 1.0}, "steps": steps, "learning_rate": 0.01, "warmup_steps": 2,
        "weight_decay": 0.0, "ema_decay": 0.0, "batches": {"batch_size": 2, "crop_height": 64, "crop_width": 64},
    }  # fmt: skip
    small = {"embedding_width": 4, "width": 16, "taps": [4, 6, 8]}
    return parse(ContextRecipe, {"model": {**small, **model}, "stages": [stage]})


def train(folder: Path, steps: int, **options: Any) -> Outcome:
    return train_context(recipe(steps), tiny_codec(), streets(), run_config(), folder, progress=False, **options)


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_training_lowers_the_bits_that_are_written(tmp_path: Path, quantizer: str) -> None:
    codec = tiny_codec(quantizer)
    outcome = train_context(recipe(40), codec, streets(), run_config(), tmp_path, progress=False)
    assert outcome.complete
    logged = [json.loads(line)["bits"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert np.mean(logged[-5:]) < 0.85 * np.mean(logged[:3])
    trained = VqCodec.load(tmp_path)
    model = next(m for m in trained.entropy_models if isinstance(m, ContextModel))
    grids = [codec.indices(streets()[i].image_uint8_HW3) for i in range(4)]
    bits = sum(model.estimated_bits(grid) for grid in grids) / sum(grid.size for grid in grids)
    assert bits == pytest.approx(np.mean(logged[-5:]), rel=0.15)


def test_the_codec_itself_does_not_change(tmp_path: Path) -> None:
    codec = tiny_codec()
    image = streets()[0].image_uint8_HW3
    before = codec.compress(image)
    assert train(tmp_path, 60).complete
    trained = VqCodec.load(tmp_path)
    assert trained.fingerprint == codec.fingerprint
    np.testing.assert_array_equal(trained.decompress(before), codec.decompress(before))
    after = trained.compress(image)
    assert len(after) < len(before)
    np.testing.assert_array_equal(trained.decompress(after), codec.decompress(before))
    with pytest.raises(ForeignStreamError):  # another context model, or none: never a wrong picture
        codec.decompress(after)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    train(tmp_path / "whole", 6)
    assert not train(tmp_path / "parts", 6, max_minutes=0.0).complete
    while not train(tmp_path / "parts", 6, max_minutes=0.0).complete:
        pass
    whole, parts = (load_codec_checkpoint(tmp_path / name).context for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_loss_is_the_cross_entropy_of_the_exact_model() -> None:
    codec = tiny_codec()
    config, digits = context_config(codec.model, recipe(1).model)
    network = ContextNetwork(config)
    task = ContextTask(network, codec.model, digits)
    indices_Bhw = torch.from_numpy(np.stack([codec.indices(streets()[i].image_uint8_HW3) for i in range(4)]))
    means = []
    for step in range(30):
        task.begin_step(step)
        means.append(task.bits(indices_Bhw)["bits"].item())
    model = ContextModel(config, network.freeze())
    exact = sum(model.estimated_bits(grid_hw.numpy()) for grid_hw in indices_Bhw) / indices_Bhw.numel()
    assert np.mean(means) == pytest.approx(exact, rel=0.02)


def test_a_checkpoint_keeps_the_context_model_whole(tmp_path: Path) -> None:
    train(tmp_path, 2)
    found = load_codec_checkpoint(tmp_path)
    assert found.fingerprint() == tiny_codec().checkpoint.fingerprint()
    save_codec(tmp_path / "copy", found)
    copy = load_codec_checkpoint(tmp_path / "copy")
    assert all(torch.equal(copy.context[name], found.context[name]) for name in found.context)
    tree = json.loads((tmp_path / "copy" / "config.json").read_text())
    tree["context"] = None
    (tmp_path / "copy" / "config.json").write_text(json.dumps(tree))
    with pytest.raises(CheckpointError, match="half a context model"):
        load_codec_checkpoint(tmp_path / "copy")


def test_a_context_model_of_another_codebook_is_refused() -> None:
    codec = tiny_codec()
    config, _ = context_config(codec.model, {"codebook_size": 17, "values": [17]})
    card = codec.checkpoint.card.model_copy(update={"context": config})
    with pytest.raises(CheckpointError, match="for 17 codes, not for 16"):
        VqCodec(replace(codec.checkpoint, card=card, context=ContextNetwork(config).freeze()))


def test_settings_that_are_impossible_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'widht'; did you mean 'width'"):
        train_context(recipe(1, widht=3), tiny_codec(), streets(), run_config(), tmp_path)
    with pytest.raises(ConfigError, match="0 steps"):
        default_recipe(0)


def test_the_report() -> None:
    grids = [np.arange(60).reshape(6, 10) % 16, np.zeros((6, 10), np.int64)]
    counts_K = np.arange(1, 17)
    report = measure_entropy("tiny", "numbers", grids, [StaticHistogram(counts_K), AdaptiveCounts(counts_K)])
    assert report.images == 2
    assert report.raw_bits == 4
    assert report.zero_order_bits == pytest.approx(0.5 * np.log2(60) - 0.5 * (48 * 4 * np.log2(4)) / 60 / 4, abs=0.3)
    static, adaptive = report.rows
    assert static.saved == 0
    assert adaptive.saved == pytest.approx(1 - adaptive.payload_bytes / static.payload_bytes)
    assert static.overhead_bytes == pytest.approx(static.payload_bytes - static.bits_per_index * 60 / 8)
    assert 0 < adaptive.bits_per_index < static.bits_per_index
    lines = entropy_table(report).splitlines()
    assert lines[2].split()[:2] == ["static-histogram", f"{static.bits_per_index:.3f}"]
