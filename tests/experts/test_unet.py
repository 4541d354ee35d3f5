"""The U-Net expert: its shape, its attention, and its training by the recipe's loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from gosvae.config import parse
from gosvae.errors import ConfigError, ExpertError
from gosvae.experts.registry import load_expert
from gosvae.experts.trained import load_trained_expert
from gosvae.experts.unet import GlobalAttention, UNetConfig, UNetSegmenter
from gosvae.training.experts import ExpertRecipe, train_expert
from tiny import run_config, streets

RECIPE = {
    "kind": "expert",
    "name": "tiny-unet",
    "description": "for tests",
    "architecture": "unet",
    "widths": [8, 8, 8, 16],
    "blocks": [0, 1, 1],
    "stages": [
        {
            "name": "supervised",
            "weights": {"cross_entropy": 1.0},
            "steps": 3,
            "learning_rate": 0.01,
            "batches": {"batch_size": 2, "crop_height": 32, "crop_width": 48},
        }
    ],
}


def train(folder: Path, *, precision: str = "32", max_minutes: float | None = None) -> bool:
    recipe, run = parse(ExpertRecipe, RECIPE), run_config(precision=precision)
    return train_expert(recipe, streets(), (64, 96), run, folder, max_minutes=max_minutes, progress=False).complete


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unet")
    assert train(path)
    return path


def test_training_goes_on_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    assert [train(tmp_path, max_minutes=0) for _ in range(3)] == [False, False, True]
    assert load_expert(tmp_path).fingerprint() == load_expert(folder).fingerprint()


def test_it_trains_in_bfloat16(tmp_path: Path) -> None:
    assert train(tmp_path, precision="bf16")
    assert all(p.isfinite().all() for p in load_expert(tmp_path).parameters())


def test_what_was_trained_is_loaded_frozen_and_takes_pictures_of_any_size(folder: Path) -> None:
    expert = load_trained_expert(folder)
    assert isinstance(expert.network, UNetSegmenter)
    assert expert.info.class_names == streets().class_names
    assert not expert.train().training
    assert not any(p.requires_grad for p in expert.parameters())
    x_B3HW = torch.rand(2, 3, 37, 51, requires_grad=True)
    logits_BmHW = expert(x_B3HW)
    assert logits_BmHW.shape == (2, 11, 37, 51)
    logits_BmHW.logsumexp(1).sum().backward()
    assert x_B3HW.grad is not None
    assert float((x_B3HW.grad != 0).any(1).float().mean()) > 0.9


def test_every_pixel_counts_for_every_other_one() -> None:
    torch.manual_seed(5)
    network = UNetSegmenter(UNetConfig(widths=(8, 8, 8, 16), blocks=(0, 0, 0), class_count=3)).eval()
    x_B3HW = torch.rand(1, 3, 32, 512, requires_grad=True)
    network(x_B3HW)[..., -1].sum().backward()
    assert x_B3HW.grad is not None
    assert float(x_B3HW.grad[..., :16].abs().max()) > 0  # convolutions alone reach about 100 pixels


def test_attention_is_the_textbooks() -> None:
    torch.manual_seed(6)
    attention = GlobalAttention(8).eval()
    reference = torch.nn.MultiheadAttention(8, 4, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(attention.query_key_value.weight.flatten(1))
        assert attention.query_key_value.bias is not None
        assert attention.merge.bias is not None
        reference.in_proj_bias.copy_(attention.query_key_value.bias)
        reference.out_proj.weight.copy_(attention.merge.weight.flatten(1))
        reference.out_proj.bias.copy_(attention.merge.bias)
        x_BCHW = torch.randn(2, 8, 3, 5)
        tokens_BTC = F.batch_norm(x_BCHW, torch.zeros(8), torch.ones(8)).flatten(2).transpose(1, 2)
        change_BTC, _ = reference(tokens_BTC, tokens_BTC, tokens_BTC)
        expected_BCHW = x_BCHW + change_BTC.transpose(1, 2).reshape(x_BCHW.shape)
        torch.testing.assert_close(attention(x_BCHW), expected_BCHW)


def test_sizes_that_cannot_be_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    recipe = parse(ExpertRecipe, RECIPE | {"widths": [8, 8, 8, 10]})
    with pytest.raises(ConfigError, match=r"'tiny-unet': widths: the last width must be a multiple of 4") as caught:
        train_expert(recipe, streets(), (64, 96), run_config(), tmp_path, progress=False)
    assert "\n" not in str(caught.value)
    config = (folder / "config.json").read_text()
    (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(config.replace('"unet"', '"compact"'))
    with pytest.raises(ExpertError, match=r"does not fit config\.json"):
        load_expert(tmp_path)
    (tmp_path / "config.json").write_text(config.replace('"unet"', '"unit"'))
    with pytest.raises(ConfigError, match="did you mean 'unet'"):
        load_expert(tmp_path)
