"""Perceptual losses against torchmetrics' and stlpips-pytorch's own code, without torchvision."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import pytest
import torch
from torch import Tensor

from gosvae.errors import ConfigError, MissingDependencyError, ShapeError
from gosvae.losses import available_perceptual, default_perceptual, load_perceptual
from gosvae.losses.backbones import vgg16


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the user's weights nor a network."""

    def no_network(*_: object, **__: object) -> None:
        raise URLError("no network in tests")

    monkeypatch.delenv("GOSVAE_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "urlopen", no_network)


@pytest.fixture(scope="module")
def vgg16_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights in the layout and under the name of torchvision's VGG16."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    state = {f"features.{key}": value for key, value in vgg16().layers.state_dict().items()}
    torch.save({**state, "classifier.0.weight": torch.zeros(2, 2)}, folder / "vgg16-397923af.pth")
    return folder


def images(height: int = 40, width: int = 52, seed: int = 0) -> tuple[Tensor, Tensor]:
    x_B3HW, noise = torch.rand(2, 2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return x_B3HW, (x_B3HW + 0.3 * (noise - 0.5)).clamp(0, 1)


def torchmetrics_lpips(monkeypatch: pytest.MonkeyPatch, net: str, layers: torch.nn.Sequential) -> torch.nn.Module:
    pytest.importorskip("torchmetrics")
    from torchmetrics.functional.image import lpips

    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda *_: layers)
    return lpips._NoTrainLpips(pretrained=True, net=net, pnet_rand=True)


def test_lpips_squeeze_gives_the_published_values(lpips_weights: Path) -> None:
    """The example in torchmetrics' documentation of LearnedPerceptualImagePatchSimilarity."""
    generator = torch.Generator().manual_seed(42)
    x_B3HW, x_hat_B3HW = (torch.rand(2, 3, 100, 100, generator=generator) for _ in range(2))
    distances = load_perceptual("lpips-squeeze", lpips_weights)(x_B3HW, x_hat_B3HW)
    torch.testing.assert_close(distances, torch.tensor([0.1024, 0.0938]), atol=5e-5, rtol=0)


def test_lpips_squeeze_equals_torchmetrics(lpips_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = load_perceptual("lpips-squeeze", lpips_weights)
    theirs = torchmetrics_lpips(monkeypatch, "squeeze", ours.network.layers)
    x_B3HW, x_hat_B3HW = images()
    torch.testing.assert_close(ours(x_B3HW, x_hat_B3HW), theirs(x_B3HW, x_hat_B3HW, normalize=True).flatten())


def test_lpips_vgg16_equals_torchmetrics(vgg16_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = load_perceptual("lpips-vgg16", vgg16_folder)
    theirs = torchmetrics_lpips(monkeypatch, "vgg", ours.network.layers)
    x_B3HW, x_hat_B3HW = images()
    # The default initialisation makes features so small that torchmetrics' 1e-8 under its root can be seen.
    expected = theirs(x_B3HW, x_hat_B3HW, normalize=True).flatten()
    torch.testing.assert_close(ours(x_B3HW, x_hat_B3HW), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("net", "name"), [("vgg", "stlpips-vgg16"), ("alex", "stlpips-alex")])
def test_stlpips_equals_its_own_package(monkeypatch: pytest.MonkeyPatch, net: str, name: str) -> None:
    """Their module imports torchvision, IPython and torchsummary but uses nothing of them here: empty stand-ins."""
    pytest.importorskip("stlpips_pytorch")
    for module, member in [("torchvision", "models"), ("IPython", "embed"), ("torchsummary", "summary")]:
        stand_in = ModuleType(module)
        setattr(stand_in, member, None)
        monkeypatch.setitem(sys.modules, module, stand_in)
    from stlpips_pytorch import stlpips

    for slow in ("normal_", "kaiming_normal_", "kaiming_uniform_"):  # 120 M weights that the file replaces or none uses
        monkeypatch.setattr(torch.nn.init, slow, lambda tensor, *_, **__: tensor)
    theirs = stlpips.LPIPS(net=net, variant="shift_tolerant", verbose=False)
    ours = load_perceptual(name)
    for size in [(40, 52), (33, 47)]:
        x_B3HW, x_hat_B3HW = images(*size)
        with torch.no_grad():
            expected = theirs(x_B3HW, x_hat_B3HW, normalize=True).flatten()
        torch.testing.assert_close(ours(x_B3HW, x_hat_B3HW), expected)


def test_loading_leaves_the_global_generator_alone(lpips_weights: Path) -> None:
    before = torch.get_rng_state()
    loss = load_perceptual("lpips-squeeze", lpips_weights)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(value.is_meta for value in loss.state_dict().values())


def test_frozen_yet_differentiable(lpips_weights: Path) -> None:
    loss = load_perceptual("lpips-squeeze", lpips_weights).train()
    assert not loss.training
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    x_B3HW, x_hat_B3HW = images()
    x_hat_B3HW.requires_grad_()
    loss(x_B3HW, x_hat_B3HW).sum().backward()
    assert x_hat_B3HW.grad.isfinite().all()
    assert x_hat_B3HW.grad.abs().sum() > 0
    better = (x_hat_B3HW - 0.5 * x_hat_B3HW.grad).detach()
    assert (loss(x_B3HW, better) < loss(x_B3HW, x_hat_B3HW)).all()


def test_the_distance_is_symmetric_zero_for_equals_and_finite_for_flat_images(lpips_weights: Path) -> None:
    loss = load_perceptual("lpips-squeeze", lpips_weights)
    x_B3HW, x_hat_B3HW = images()
    torch.testing.assert_close(loss(x_B3HW, x_hat_B3HW), loss(x_hat_B3HW, x_B3HW))
    assert loss(x_B3HW, x_B3HW).tolist() == [0.0, 0.0]
    flat = torch.zeros(1, 3, 32, 32, requires_grad=True)
    loss(torch.ones(1, 3, 32, 32), flat).sum().backward()
    assert flat.grad.isfinite().all()


def test_both_images_get_gradients_when_both_want_them(lpips_weights: Path) -> None:
    x_B3HW, x_hat_B3HW = (x.requires_grad_() for x in images())
    load_perceptual("lpips-squeeze", lpips_weights)(x_B3HW, x_hat_B3HW).sum().backward()
    assert x_B3HW.grad.abs().sum() > 0
    assert x_hat_B3HW.grad.abs().sum() > 0


def test_mixed_precision_stays_close(lpips_weights: Path) -> None:
    loss = load_perceptual("lpips-squeeze", lpips_weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss(*images())
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, loss(*images()), rtol=0.05, atol=0)


@pytest.mark.parametrize("name", ["lpips-squeeze", "lpips-vgg16", "stlpips-vgg16", "stlpips-alex"])
def test_the_least_size_works_and_one_less_is_refused(name: str, lpips_weights: Path, vgg16_folder: Path) -> None:
    if name.startswith("stlpips"):
        pytest.importorskip("stlpips_pytorch")
    loss = load_perceptual(name, vgg16_folder if name == "lpips-vgg16" else lpips_weights)
    side = loss.network.min_side
    assert loss(*images(side, side + 3)).isfinite().all()
    with pytest.raises(ShapeError, match=f"at least {side} pixels"):
        loss(*images(side + 3, side - 1))
    with pytest.raises(ShapeError):
        loss(images(side, side)[0], images(side, side + 1)[0])


def test_what_is_available_is_found_in_order(
    lpips_weights: Path, vgg16_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchmetrics")
    pytest.importorskip("stlpips_pytorch")
    assert available_perceptual() == ["stlpips-vgg16", "stlpips-alex"]
    assert available_perceptual(lpips_weights) == ["lpips-squeeze", "stlpips-vgg16", "stlpips-alex"]
    monkeypatch.setenv("GOSVAE_WEIGHTS", str(vgg16_folder))
    assert default_perceptual() == "lpips-vgg16"
    assert default_perceptual(lpips_weights) == "lpips-squeeze"


def test_the_hub_cache_counts_as_available(vgg16_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics")
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "vgg16-397923af.pth").symlink_to(vgg16_folder / "vgg16-397923af.pth")
    assert default_perceptual() == "lpips-vgg16"
    assert load_perceptual("lpips-vgg16").name == "lpips-vgg16"


def test_missing_weights_name_the_ways_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchmetrics")
    with pytest.raises(MissingDependencyError, match=r"cannot download .*no network.*GOSVAE_WEIGHTS"):
        load_perceptual("lpips-vgg16")
    monkeypatch.setattr("gosvae.losses.perceptual.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="pip install --no-deps stlpips-pytorch"):
        load_perceptual("stlpips-vgg16")
    with pytest.raises(MissingDependencyError, match="no weights for a perceptual loss"):
        default_perceptual()


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics")
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"not a weight file")
    with pytest.raises(MissingDependencyError, match="is not a PyTorch weight file"):
        load_perceptual("lpips-vgg16", tmp_path)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg16-397923af.pth")
    with pytest.raises(MissingDependencyError, match="does not hold the network of lpips-vgg16"):
        load_perceptual("lpips-vgg16", tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'lpips-vgg16'"):
        load_perceptual("lpips-vgg", tmp_path)
