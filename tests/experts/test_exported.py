"""One's own network from a file: TorchScript, torch.export, and everything that can be wrong with either."""

from __future__ import annotations

import io
import json
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from experts.tiny_models import CLASS_NAMES, MEAN, STD, TinySegmenter, write_card
from gosvae.errors import ConfigError, ExpertError
from gosvae.experts.exported import load_exported_expert
from gosvae.experts.registry import load_expert

# What exports warns that TorchScript is deprecated; users have such files all the same.
load_trusted = partial(load_exported_expert, trust=True)
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def _trace(network: nn.Module, path: Path, height: int = 32, width: int = 64) -> Path:
    torch.jit.trace(network.eval(), torch.rand(1, 3, height, width)).save(path)
    return path


def _export(network: nn.Module, path: Path, *, batch: int = 1, dynamic: bool = False) -> Path:
    auto = torch.export.Dim.AUTO
    shapes = ({0: auto, 2: auto, 3: auto},) if dynamic else None
    torch.export.save(torch.export.export(network.eval(), (torch.rand(batch, 3, 32, 64),), dynamic_shapes=shapes), path)
    return path


def _normalised(x_B3HW: torch.Tensor) -> torch.Tensor:
    return (x_B3HW - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@pytest.fixture(scope="module")
def network() -> TinySegmenter:
    torch.manual_seed(7)
    return TinySegmenter().eval()


@pytest.mark.parametrize("name", ["net.pt", "net.ts", "net.pt2"])
def test_a_program_is_loaded_for_those_who_trust_it_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"never read")
    write_card(path)
    for load in (load_exported_expert, load_expert):
        with pytest.raises(ExpertError, match="is a program and can run any code") as caught:
            load(path)
        assert caught.value.argument == "trust"


@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
def test_an_archive_that_unpacks_to_more_than_its_size_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/models/model.json", bytes(2**27))
    write_card(path)
    assert path.stat().st_size < 2**20
    with pytest.raises(ExpertError, match="unpacks to 134217728 bytes"):
        load_trusted(path)


@pytest.mark.parametrize("name", ["net.pt", "net.ts", "net.pt2"])
@pytest.mark.parametrize("size", [(32, 64), (45, 70)])
def test_answers_as_the_network_itself(
    tmp_path: Path, network: TinySegmenter, name: str, size: tuple[int, int]
) -> None:
    path = tmp_path / name
    if path.suffix == ".pt2":
        _export(network, path, batch=2, dynamic=True)
    else:
        _trace(network, path)
    write_card(path)
    x = torch.rand(2, 3, *size)
    expected = F.interpolate(network(_normalised(x)), size, mode="bilinear")
    torch.testing.assert_close(load_trusted(path)(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_a_static_graph_gets_images_of_its_own_size_and_batch(
    tmp_path: Path, network: TinySegmenter, images: int
) -> None:
    path = _export(network, tmp_path / "net.pt2", batch=2)
    write_card(path)
    x = torch.rand(images, 3, 50, 90, requires_grad=True)
    resized = F.interpolate(x, (32, 64), mode="bilinear", antialias=True)
    expected = F.interpolate(network(_normalised(resized)), (50, 90), mode="bilinear")
    logits = load_trusted(path)(x)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    logits.square().sum().backward()
    assert x.grad is not None
    assert (F.max_pool2d(x.grad.abs().sum(dim=1, keepdim=True), 10) > 0).all()


def test_the_card_can_ask_for_a_resize(tmp_path: Path) -> None:
    class OneSize(nn.Module):
        """Takes 32x64 only, as a network with a table of positions does."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(-1, 3, 32, 64)[:, :2]

    path = _trace(OneSize(), tmp_path / "net.pt")
    write_card(path, class_names=["road", "sky"])
    with pytest.raises(ExpertError, match=r'cannot take an input of \(1, 3, 40, 40\).*"resize": true'):
        load_trusted(path)(torch.rand(1, 3, 40, 40))
    write_card(path, class_names=["road", "sky"], resize=True)
    assert load_trusted(path)(torch.rand(1, 3, 40, 40)).shape == (1, 2, 40, 40)


def test_the_fingerprint_of_a_frozen_file_knows_its_weights(tmp_path: Path) -> None:
    prints = set()
    for number in range(2):
        path = tmp_path / f"net{number}.pt"
        torch.jit.freeze(torch.jit.script(TinySegmenter().eval())).save(path)
        write_card(path)
        expert = load_trusted(path)
        assert not list(expert.parameters()), "freezing makes constants of the parameters"
        prints |= {expert.fingerprint(), load_trusted(path).fingerprint()}
    assert len(prints) == 2


def test_the_card_names_the_expert_and_its_ignore_index(tmp_path: Path, network: TinySegmenter) -> None:
    path = _trace(network, tmp_path / "net.pt")
    write_card(path)
    assert load_trusted(path).info.name == "net"
    write_card(path, name="street", ignore_index=11)
    info = load_trusted(path).info
    assert (info.name, info.ignore_index, info.class_names) == ("street", 11, CLASS_NAMES)
    assert (info.input_height, info.input_width) == (32, 64)


def test_wrong_cards(tmp_path: Path, network: TinySegmenter) -> None:
    path = _trace(network, tmp_path / "net.pt")
    with pytest.raises(ExpertError, match=r"net\.json is missing: .* class_names, input_height, .*, std"):
        load_trusted(path)
    card = path.with_suffix(".json")
    card.write_text("{")
    with pytest.raises(ExpertError, match="not valid JSON"):
        load_trusted(path)
    write_card(path, clas_names=["road"])
    with pytest.raises(ConfigError, match="did you mean 'class_names'"):
        load_trusted(path)
    for key, value in {"std": [0.2, 0.0, 0.2], "mean": [0.5, 0.5], "input_height": 0, "class_names": ["road"]}.items():
        write_card(path, **{key: value})
        with pytest.raises(ConfigError, match=key):
            load_trusted(path)
    write_card(path, mean=None)
    with pytest.raises(ConfigError, match="mean"):
        load_trusted(path)
    write_card(path, class_names=["road", "sky", "tree"])
    with pytest.raises(ExpertError, match=r"returned \(1, 4, 32, 64\) where \(1, 3, 32, 64\) was expected"):
        load_trusted(path)


def test_a_static_graph_of_another_size_than_its_card_says(tmp_path: Path, network: TinySegmenter) -> None:
    path = _export(network, tmp_path / "net.pt2")
    write_card(path, input_height=48)
    with pytest.raises(ExpertError, match="input height of 32, its JSON says 48"):
        load_trusted(path)


def test_a_network_that_does_not_return_logits(tmp_path: Path) -> None:
    class Classifier(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3))

    path = _trace(Classifier(), tmp_path / "net.pt")
    write_card(path)
    with pytest.raises(ExpertError, match=r"a tensor \(1, 3\) where logits \(B, m, h, w\) were expected"):
        load_trusted(path)


def test_files_of_another_format(tmp_path: Path, network: TinySegmenter) -> None:
    with pytest.raises(ExpertError, match=r"expected a file that ends in \.pt, \.ts, \.pt2"):
        load_trusted(tmp_path / "net.onnx")
    for suffix in (".pt", ".pt2"):
        path = tmp_path / f"net{suffix}"
        with pytest.raises(ExpertError, match="no network at"):
            load_trusted(path)
        write_card(path)
        path.write_bytes(b"not a network")
        with pytest.raises(ExpertError, match=r"is not a (TorchScript file|torch\.export archive)"):
            load_trusted(path)
        torch.save(network.state_dict(), path)
        with pytest.raises(ExpertError, match=r"is not a (TorchScript file|torch\.export archive)"):
            load_trusted(path)


class _Bomb:
    """Unpickling it is an error that the test sees."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('a pickle was loaded')",)


def test_pickles_in_an_archive_are_never_loaded(tmp_path: Path, network: TinySegmenter) -> None:
    clean, path = _export(network, tmp_path / "clean.pt2"), tmp_path / "net.pt2"
    write_card(path)
    bomb = io.BytesIO()
    torch.save((_Bomb(),), bomb)

    def rebuild(changes: dict[str, bytes]) -> None:
        with zipfile.ZipFile(clean) as old, zipfile.ZipFile(path, "w") as new:
            members = {name: old.read(name) for name in old.namelist()} | changes
            for name, data in members.items():
                new.writestr(name, data)

    config_name = "clean/data/weights/model_weights_config.json"
    with zipfile.ZipFile(clean) as archive:
        config = json.loads(archive.read(config_name))
    next(iter(config["config"].values()))["use_pickle"] = True
    for changes in (
        {"clean/data/sample_inputs/model.pt": bomb.getvalue()},
        {"clean/data/weights/model.pt": bomb.getvalue()},
        {config_name: json.dumps(config).encode(), "clean/data/weights/weight_0": bomb.getvalue()},
    ):
        rebuild(changes)
        with pytest.raises(ExpertError, match="holds pickled objects"):
            load_trusted(path)


class _Casts(nn.Module):
    """Computes a part in float32 by itself, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, len(CLASS_NAMES), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.second.weight.flatten(1).float()
        y = self.first(x).float()
        return torch.matmul(weight, y.flatten(2)).unflatten(2, x.shape[-2:]) + self.first(x).mean()


@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
def test_a_network_computes_in_float32_in_a_training_in_bf16(tmp_path: Path, name: str) -> None:
    path = _export(_Casts(), tmp_path / name) if name.endswith("2") else _trace(_Casts(), tmp_path / name)
    write_card(path)
    expert, x = load_trusted(path), torch.rand(1, 3, 32, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        logits = expert(x)
        low = expert(x.bfloat16())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expert(x), rtol=0, atol=0)
    assert low.dtype == torch.float32
    logits.sum().backward()
    assert x.grad is not None


def test_a_card_can_say_that_the_network_follows_the_precision_of_a_training(
    tmp_path: Path, network: TinySegmenter
) -> None:
    path = _trace(network, tmp_path / "net.pt")
    write_card(path, mixed_precision=True)
    expert, x = load_trusted(path), torch.rand(1, 3, 32, 64)
    with torch.autocast("cpu", torch.bfloat16):
        logits = expert(x)
    assert not torch.equal(logits.float(), expert(x))


class _MakesTensors(nn.Module):
    """Makes a tensor of positions in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, len(CLASS_NAMES), 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(32, device=x.device).float()[:, None].expand(32, 64)
        return self.convolution(x) + rows


def test_a_graph_that_makes_tensors_can_be_moved_to_another_device(tmp_path: Path) -> None:
    path = _export(_MakesTensors(), tmp_path / "net.pt2")
    write_card(path)
    expert, x = load_trusted(path), torch.rand(1, 3, 32, 64)
    expected = expert(x)
    expert.to("meta")
    assert expert.class_logits(x.to("meta")).device.type == "meta"
    assert not any(parameter.requires_grad for parameter in expert.parameters())
    fresh = load_trusted(path)
    fresh.to("cpu")
    torch.testing.assert_close(fresh(x), expected)


class _WholeStrides(nn.Module):
    """Halves three times and refuses sizes that are no multiple of 8, as many networks with skips do."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, len(CLASS_NAMES), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convolution(x)
        small = F.avg_pool2d(y, 8)
        return y + F.interpolate(small, scale_factor=8.0)


def test_sizes_that_are_no_multiple_of_the_stride_are_padded(tmp_path: Path) -> None:
    network = _WholeStrides()
    path = _trace(network, tmp_path / "net.pt")
    write_card(path)
    x = torch.rand(1, 3, 37, 64)
    with pytest.raises(ExpertError, match=r'\(1, 3, 37, 64\) .*multiples of 8: set "stride": 8 in its JSON'):
        load_trusted(path)(x)
    write_card(path, stride=8)
    expert = load_trusted(path)
    padded = F.pad(x, (0, 0, 0, 3), mode="replicate")
    torch.testing.assert_close(expert(x), network(_normalised(padded))[..., :37, :])


@pytest.mark.parametrize("part", ["net.pt2", "net.json"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, network: TinySegmenter, part: str) -> None:
    path = _export(network, tmp_path / "net.pt2")
    write_card(path)
    (tmp_path / part).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(ExpertError, match=rf"{part} is a Git LFS pointer.*git lfs pull"):
        load_trusted(path)
