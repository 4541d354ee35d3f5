"""Fusion networks: a new one is the choice of the detail layer, files come back, large pictures are cut into tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gosvae.codecs.detail import Detail
from gosvae.codecs.fusion import FusionCard, LearnedFusion, Selection, conditions_of, load_fusion, save_fusion
from gosvae.codecs.tiling import tile_side
from gosvae.errors import CheckpointError
from gosvae.nn.fusion import UNSHUFFLE, FusionConfig, FusionNetwork
from gosvae.seeding import numpy_generator, seed_everything
from gosvae.tensors import ImageArray

CONFIG = FusionConfig(channels=8, blocks=1, coarse_channels=8, coarse_blocks=1, finish_channels=2)


def noise(height: int, width: int, seed: int) -> ImageArray:
    return numpy_generator(seed).integers(256, size=(height, width, 3)).astype(np.uint8)


def detail(image: ImageArray) -> Detail:
    return Detail(image, 2, 40, 900)


def trained(config: FusionConfig = CONFIG) -> FusionNetwork:
    """A network with random weights everywhere."""
    seed_everything(5)
    network = FusionNetwork(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    return network


@pytest.mark.parametrize("size_hw", [(1, 1), (37, 51), (64, 96)])
def test_a_new_network_is_the_choice_of_the_detail_layer(size_hw: tuple[int, int]) -> None:
    base, image = noise(*size_hw, 1), noise(*size_hw, 2)
    seed_everything(0)
    fused = LearnedFusion(FusionNetwork(CONFIG))(base, detail(image))
    np.testing.assert_array_equal(fused, image)
    np.testing.assert_array_equal(LearnedFusion(FusionNetwork(CONFIG))(None, detail(image)), image)
    np.testing.assert_array_equal(Selection()(base, detail(image)), image)


def test_a_trained_network_sees_both_pictures_and_the_conditions() -> None:
    base, image = noise(40, 60, 1), noise(40, 60, 2)
    fusion = LearnedFusion(trained())
    fused = fusion(base, detail(image))
    assert fused.shape == image.shape
    for other in (fusion(image, detail(image)), fusion(base, detail(base)), fusion(base, Detail(image, 1, 90, 9000))):
        assert not np.array_equal(fused, other)
    alone = fusion(None, detail(image))
    assert not np.array_equal(alone, image)
    assert not np.array_equal(alone, fusion(image, detail(image)))


def test_tiles_give_the_picture_of_one_piece() -> None:
    side = tile_side(UNSHUFFLE, CONFIG.halo) + 60
    base, image = noise(side, side, 1), noise(side, side, 2)
    network = trained()
    fusion = LearnedFusion(network)
    seen: list[tuple[int, ...]] = []
    handle = network.first.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape))
    in_tiles = fusion(base, detail(image))
    handle.remove()
    assert len(seen) == 4
    with torch.inference_mode():
        tensors = (torch.from_numpy(x).permute(2, 0, 1)[None].float() / 255 for x in (base, image))
        whole = network(*tensors, torch.tensor([conditions_of(detail(image), with_base=True)]))
    difference = np.abs(in_tiles - whole[0].clamp(0, 1).mul(255).permute(1, 2, 0).numpy())
    assert difference.max() < 0.51


def test_files_come_back(tmp_path: Path) -> None:
    base, image = noise(20, 30, 1), noise(20, 30, 2)
    network = trained()
    save_fusion(tmp_path / "fusion", FusionCard(name="tiny", model=CONFIG), network, {"steps": 3})
    again = load_fusion(tmp_path / "fusion")
    difference = again(base, detail(image)).astype(int) - LearnedFusion(network)(base, detail(image))
    assert np.abs(difference).max() <= 2  # weights are stored in 16 bits
    (tmp_path / "fusion" / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_fusion(tmp_path / "fusion")
    (tmp_path / "fusion" / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        load_fusion(tmp_path / "fusion")
    (tmp_path / "fusion" / "config.json").write_text('{"kind": "expert"}')
    with pytest.raises(CheckpointError, match="does not hold a fusion network"):
        load_fusion(tmp_path / "fusion")
