"""A picture in tiles is the picture in one piece, and memory stays bounded."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gosvae.codecs import tiling
from gosvae.codecs.checkpoint import save_codec
from gosvae.codecs.latent import Latent
from gosvae.codecs.registry import embedded_codecs, load_trained_codec
from gosvae.codecs.tiling import without_margins
from gosvae.codecs.trained import TrainedCodec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.vq import VqCodec
from gosvae.datasets.streets import Streets
from gosvae.nn.pyramid import Margins
from tiny import checkpoint, model_config, variable_checkpoint, variable_config


@pytest.mark.parametrize("architecture", ["shallow", "residual", "compact"])
@pytest.mark.parametrize("stride", [4, 16])
def test_tiles_give_the_picture_of_one_piece(architecture: str, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = checkpoint(model_config("vq-ema", architecture=architecture, stride=stride, decoder_blocks=2))
    codec = VqCodec(made)
    image = Streets(1, seed=3, height=250, width=389)[0].image_uint8_HW3
    whole_hw = codec.indices(image)
    latent = Latent(whole_hw, 250, 389)
    picture = codec.reconstruct(latent)
    monkeypatch.setattr(tiling, "TILE_PIXELS", 96)
    monkeypatch.setattr(tiling, "MOST_TILE_PIXELS", 96)
    tiled_hw = codec.indices(image)
    assert len(np.unique(whole_hw)) > 3
    assert (tiled_hw == whole_hw).mean() >= 0.999
    difference = np.abs(codec.reconstruct(latent).astype(int) - picture)
    assert (difference <= 1).mean() >= 0.9999
    assert difference.max() <= 2


def test_small_pictures_are_one_piece_and_tiles_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "TILE_PIXELS", 16)
    monkeypatch.setattr(tiling, "MOST_TILE_PIXELS", 16)
    sizes: list[tuple[int, int]] = []

    def encode(x_B3HW: torch.Tensor) -> torch.Tensor:
        sizes.append((x_B3HW.shape[-2], x_B3HW.shape[-1]))
        return x_B3HW[:, 0, ::4, ::4].long()

    x_B3HW = torch.arange(20 * 52).reshape(1, 1, 20, 52).expand(1, 3, 20, 52)
    indices_1hw = tiling.encode_in_tiles(encode, x_B3HW, stride=4, halo=1)
    assert torch.equal(indices_1hw, x_B3HW[:, 0, ::4, ::4])
    assert max(max(size) for size in sizes) <= 16 + 2 * 4
    sizes.clear()
    tiling.encode_in_tiles(encode, x_B3HW[..., :16, :16], stride=4, halo=1)
    assert sizes == [(16, 16)]


@pytest.mark.parametrize("finish", [0, 4])
def test_a_pyramid_in_tiles_cuts_its_margins_on_the_way(finish: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = variable_config()
    config = plain.model_copy(update={"pyramid": plain.pyramid.model_copy(update={"finish_channels": finish})})
    codec = VariableRateCodec(variable_checkpoint(config=config))
    image = Streets(1, seed=3, height=250, width=389)[0].image_uint8_HW3
    latent = codec.decode(codec.compress_at(image, 200))
    picture = codec.reconstruct(latent)
    monkeypatch.setattr(tiling, "TILE_PIXELS", 64)
    monkeypatch.setattr(tiling, "MOST_TILE_PIXELS", 64)
    difference = np.abs(codec.reconstruct(latent).astype(int) - picture)
    assert (difference <= 1).mean() >= 0.9999
    assert difference.max() <= 2


def decoder_work(codec: TrainedCodec, shape: tuple[int, int]) -> float:
    """Multiplications of the convolutions of a decoder for a picture, counted without doing them."""
    work = 0.0

    def count(module: torch.nn.Module, given: tuple[torch.Tensor], result: torch.Tensor) -> None:
        nonlocal work
        assert isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
        positions = result if isinstance(module, torch.nn.Conv2d) else given[0]
        work += positions.shape[-2] * positions.shape[-1] * module.weight.numel()

    def decode(part_Bhw: torch.Tensor, margins: Margins) -> torch.Tensor:
        h, w = part_Bhw.shape[-2:]
        if isinstance(codec, VariableRateCodec):
            context = codec.config.context
            latent = torch.zeros(1, context.channels, h, w, device="meta")
            image = network(latent, torch.zeros(1, context.anchors, device="meta"), None, margins)
        else:
            code_dim = network.code_dim
            image = without_margins(network(torch.zeros(1, code_dim, h, w, device="meta")), margins, stride)
        return torch.zeros(1).expand(image.shape)

    stride, halo = codec.transform.stride, codec.transform.halo
    network = copy.deepcopy(codec.model.decoder).to("meta")  # type: ignore[attr-defined]
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(count)
    grid_hw = (-(-shape[0] // stride), -(-shape[1] // stride))
    tiling.decode_in_tiles(decode, torch.zeros(1, *grid_hw), stride, halo)
    return work


@pytest.mark.parametrize("name", embedded_codecs())
def test_halos_cost_at_most_three_tenths_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = load_trained_codec(name)
    for shape in ((512, 528), (2048, 2048), (2064, 2064), (3008, 4000)):
        in_tiles = decoder_work(codec, shape)
        with monkeypatch.context() as one_piece:
            one_piece.setattr(tiling, "TILE_PIXELS", 5000)
            assert 1 <= in_tiles / decoder_work(codec, shape) <= tiling.HALO_COST


PHOTO = """
import resource, sys
import numpy as np, torch
torch.set_num_threads(1)
from gosvae.codecs.latent import Latent
from gosvae.codecs.vq import VqCodec
image = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
codec = VqCodec.load(sys.argv[1])
assert codec.decompress(codec.compress(image)).shape == image.shape
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_photo_of_12_megapixels_takes_less_than_2_gb(tmp_path: Path) -> None:
    from gosvae.recipes import load_recipe
    from gosvae.training.vq import VqRecipe

    recipe = load_recipe(os.environ.get("GOSVAE_TEST_RECIPE", "gosvae-compact"))
    assert isinstance(recipe, VqRecipe)
    save_codec(tmp_path, checkpoint(recipe.model))
    path = [str(Path(__file__).resolve().parents[2] / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    done = subprocess.run(
        [sys.executable, "-c", PHOTO, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) * 1024 < 2e9
