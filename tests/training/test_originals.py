"""Cache of what experts see on originals: never wrong after a change, bounded, and only where images come again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from gosvae.codecs.checkpoint import load_codec_checkpoint
from gosvae.config import parse, to_tree
from gosvae.experts.base import NetworkExpert
from gosvae.losses.divergence import imitation_loss
from gosvae.seeding import torch_generator
from gosvae.tensors import image_to_tensor
from gosvae.training.codecs import train_codec
from gosvae.training.judges import Judges
from gosvae.training.judging import Judging
from gosvae.training.machine.config import BatchConfig
from gosvae.training.originals import ENDING, OriginalsCache
from gosvae.training.views import ViewConfig
from gosvae.training.vq import VqRecipe
from tiny import expert, recipe_tree, run_config, streets

MIB = 2**20


def images(count: int = 2) -> Tensor:
    return torch.cat([image_to_tensor(streets()[i].image_uint8_HW3) for i in range(count)])


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*/*{ENDING}"))


def counted(expert: NetworkExpert) -> list[int]:
    """Numbers of images of each pass of an expert."""
    seen: list[int] = []
    expert.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    return seen


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    network, x = expert(), images()
    seen = counted(network)
    first = OriginalsCache(tmp_path, MIB * 64)
    written, read = first.logits(network, x), first.logits(network, x)
    other = OriginalsCache(tmp_path, MIB * 64).logits(network, x.flip(0))
    assert seen == [2]
    assert (first.hits, first.misses) == (2, 2)
    assert torch.equal(written, read)
    assert torch.equal(other.flip(0), written)
    s, exact = written.softmax(dim=1), network(x).softmax(dim=1)
    torch.testing.assert_close(s, exact, rtol=1e-3, atol=1e-3)


def test_only_images_that_are_not_there_are_shown_to_the_expert(tmp_path: Path) -> None:
    network, x = expert(), images(3)
    cache = OriginalsCache(tmp_path, MIB * 64)
    cache.logits(network, x[1:2])
    seen = counted(network)
    together = cache.logits(network, x)
    assert seen == [2]
    assert torch.equal(together, OriginalsCache(tmp_path, 1).logits(network, x))


def test_changed_data_and_other_experts_have_other_files(tmp_path: Path) -> None:
    network, x = expert(), images(1)
    cache = OriginalsCache(tmp_path, MIB * 64)
    plain = cache.logits(network, x)
    changed = x.clone()
    changed[0, 0, 0, 0] = (changed[0, 0, 0, 0] + 1 / 255) % 1.0  # one level of one pixel
    assert len(files(tmp_path)) == 1
    assert not torch.equal(cache.logits(network, changed), plain)
    assert not torch.equal(cache.logits(network, x.flip(3)), plain)  # the mirrored image is no mirrored answer
    cache.logits(network, x[..., :32, :48])
    assert len(files(tmp_path)) == 4
    other = expert()
    with torch.no_grad():
        next(iter(other.network.parameters())).add_(0.1)
    assert not torch.equal(cache.logits(other, x), plain)
    assert len(files(tmp_path)) == 5
    with torch.autocast("cpu", torch.bfloat16):
        cache.logits(network, x)
    assert len(files(tmp_path)) == 6
    other.preparation = lambda height, width: f"resized from {height}x{width}"  # type: ignore[method-assign]
    cache.logits(other, x)
    assert len(files(tmp_path)) == 7


def test_the_folder_is_bounded(tmp_path: Path) -> None:
    network, x = expert(), images(4)
    OriginalsCache(tmp_path, MIB * 64).logits(network, x[:1])
    size = files(tmp_path)[0].stat().st_size
    assert size == 2 * len(network.info.class_names) * 64 * 96 + 4
    for most, count in ((2 * size, 2), (3 * size + size // 2, 3), (1, 3)):
        cache = OriginalsCache(tmp_path, most)
        for x_3HW in x:
            cache.logits(network, x_3HW[None])
        assert len(files(tmp_path)) == count


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_file_is_made_again(damage: bytes | None, tmp_path: Path) -> None:
    network, x = expert(), images(1)
    cache = OriginalsCache(tmp_path, MIB * 64)
    plain = cache.logits(network, x)
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data) if damage is None else damage)
    assert torch.equal(cache.logits(network, x), plain)
    assert cache.misses == 2
    assert path.read_bytes() != bytes(data)


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = OriginalsCache(tmp_path / "file", MIB)
    with pytest.raises(NotADirectoryError):
        (tmp_path / "file" / "x").mkdir()
    assert cache.logits(expert(), images(1)).shape[0] == 1


def test_judges_use_it_and_only_where_it_is_exact(tmp_path: Path) -> None:
    network, x = expert(), images()
    judging = Judging(1, OriginalsCache(tmp_path, MIB * 64))
    x_hat = (x + 0.1 * torch.randn(x.shape, generator=torch_generator(0))).clamp(0, 1).requires_grad_()
    judges, wanted = Judges(network, None), frozenset({"jsd"})
    cached = [judges(x, x_hat, wanted, None, judging)["jsd"] for _ in range(2)]
    assert cached[0] == cached[1]
    assert judging.originals is not None
    assert judging.originals.hits == 2
    rounded = network(x).softmax(dim=1).half().float().log()
    torch.testing.assert_close(cached[0], imitation_loss("jsd", rounded, network(x_hat)), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(cached[0], judges(x, x_hat, wanted)["jsd"], rtol=1e-3, atol=1e-6)
    judges(x, x_hat, wanted | {"features"}, None, judging)  # inner features are not kept
    moved = Judges(network, None, views=ViewConfig(shift=2.0))
    moved(x, x_hat, wanted, torch_generator(1), judging)  # no view comes twice
    assert (judging.originals.hits, judging.originals.misses) == (2, 2)


@pytest.mark.parametrize(
    ("batches", "repeats"),
    [({}, True), ({"flip": False}, True), ({"crop_height": 32, "crop_width": 32}, False), ({"brightness": 0.1}, False),
     ({"noise": 0.1}, False), ({"blur": 1.0}, False), ({"colour": 0.1}, False)],
)  # fmt: skip
def test_it_is_used_where_images_come_again(batches: dict[str, object], repeats: bool) -> None:
    assert parse(BatchConfig, batches).repeats_images == repeats


def test_a_training_on_whole_images_fills_and_uses_it(tmp_path: Path) -> None:
    def run(name: str, cache: Path | None, **batches: object) -> dict[str, Tensor]:
        tree = recipe_tree(steps=(1, 6))
        del tree["stages"][1]["weights"]["lpips"]
        for stage in tree["stages"]:
            stage["batches"] = {"batch_size": 2, **batches}
        made, network = parse(VqRecipe, tree), expert()
        settings = run_config(expert_cache=cache)
        assert "expert_cache" not in to_tree(settings)
        outcome = train_codec(made, streets(2), streets(2), network, None, settings, tmp_path / name, progress=False)
        assert outcome.complete
        return load_codec_checkpoint(tmp_path / name).weights

    crops = {"crop_height": 32, "crop_width": 48}
    run("crops", tmp_path / "unused", **crops)
    assert not files(tmp_path / "unused")
    first = run("first", tmp_path / "cache")
    assert 2 <= len(files(tmp_path / "cache")) <= 4  # two images and their mirrored ones
    again = run("again", tmp_path / "cache")
    assert all(torch.equal(first[name], again[name]) for name in first)
