"""The Fréchet distance against closed forms and torchmetrics, and that only Inception's is called FID."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from small_world import BlockCodec, Brightness, MapCodec, RawCodec, Scenes, run
from torch import Tensor, nn

from gosvae.errors import ConfigError, MissingDependencyError, ShapeError
from gosvae.evaluation import CodecEntry, load_evaluation, save_evaluation
from gosvae.evaluation.features import FeatureExtractor, InceptionFeatures, load_features
from gosvae.evaluation.rows import FID_NETWORK
from gosvae.evaluation.tables import markdown_table
from gosvae.metrics import frechet_distance
from gosvae.seeding import numpy_generator
from gosvae.tensors import image_to_tensor

Features = npt.NDArray[np.float64]
SIZES = [(20, 24), (18, 30), (24, 20), (17, 17)]


def white(count: int, dimensions: int, seed: int) -> Features:
    """Features whose sample mean is 0 and whose unbiased sample covariance is the identity, exactly."""
    values = numpy_generator(seed).normal(size=(count, dimensions))
    return np.linalg.qr(values - values.mean(axis=0))[0] * np.sqrt(count - 1)


@pytest.mark.parametrize("dimensions", [4, 60])
def test_gaussians_of_one_pair_of_axes_have_the_closed_form(dimensions: int) -> None:
    deviations, others = np.array([2.0, 1.0, 0.5, 0.0]), np.array([1.0, 3.0, 0.0, 0.0])
    mean, other_mean = np.array([1.0, 0.0, 0.0, 2.0]), np.array([0.0, 0.0, 3.0, 2.0])
    expected = ((mean - other_mean) ** 2).sum() + ((deviations - others) ** 2).sum()
    # In 60 dimensions the 4 axes lie askew, and 20 images leave the covariances singular.
    axes = np.linalg.qr(numpy_generator(0).normal(size=(dimensions, 4)))[0].T
    first = (white(20, 4, 1) * deviations + mean) @ axes
    second = (white(30, 4, 2) * others + other_mean) @ axes
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [40, 6])
def test_covariances_that_do_not_commute_agree_with_the_root_of_the_matrix(count: int) -> None:
    from scipy.linalg import sqrtm

    generator = numpy_generator(3)
    first = generator.normal(size=(count, 5)) @ generator.normal(size=(5, 5))
    second = generator.normal(size=(count + 1, 5)) @ generator.normal(size=(5, 5)) + 0.3
    covariance, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    expected = ((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()
    expected += np.trace(covariance + other - 2.0 * sqrtm(covariance @ other).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("count", "dimensions"), [(2, 300), (30, 300), (300, 30)])
def test_equal_sets_have_no_distance(count: int, dimensions: int) -> None:
    features = 100.0 * numpy_generator(4).normal(size=(count, dimensions)).astype(np.float32)
    assert 0.0 <= frechet_distance(features, features[::-1]) < 1e-6


def test_features_that_cannot_be_compared_are_refused() -> None:
    features = np.zeros((3, 4))
    for wrong in (features[:1], np.zeros((3, 5)), np.zeros(4)):
        with pytest.raises(ShapeError, match="at least two images"):
            frechet_distance(features, wrong)
    with pytest.raises(ConfigError, match="not finite"):
        frechet_distance(features, np.full((3, 4), np.nan))


class Moments(FeatureExtractor):
    """Means and mean squares of the colours: a feature network to be called whatever a test likes."""

    def __init__(self, name: str = "moments") -> None:
        super().__init__()
        self.name = name

    def forward(self, x_B3HW: Tensor) -> Tensor:
        return torch.cat([x_B3HW.mean(dim=(2, 3)), x_B3HW.square().mean(dim=(2, 3))], dim=1)


class OfBytes(nn.Module):
    """`Moments` as torchmetrics calls a network: with uint8 images."""

    def forward(self, x_B3HW: Tensor) -> Tensor:
        return Moments()(x_B3HW.float() / 255.0)


def test_an_evaluation_agrees_with_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    codec, scenes = BlockCodec(4), Scenes([(16, 24)] * 9)
    oracle = FrechetInceptionDistance(feature=OfBytes(), input_img_size=(3, 16, 24)).set_dtype(torch.float64)
    for index in range(len(scenes)):
        image = scenes[index].image_uint8_HW3
        for pixels, real in ((image, True), (codec.decompress(codec.compress(image)), False)):
            oracle.update(torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0), real=real)
    row = run([CodecEntry("Block", codec)], [(16, 24)] * 9, frechet=Moments()).rows[1]
    assert row.frechet_distance == pytest.approx(float(oracle.compute()), rel=1e-4)
    assert row.frechet_distance > 1e-6


def test_a_distance_is_named_for_its_network_and_never_called_fid(tmp_path: Path) -> None:
    entries = [CodecEntry("Block", BlockCodec(8)), CodecEntry("Raw", RawCodec()), CodecEntry("Map", MapCodec())]
    evaluation = run(entries, SIZES, frechet=Moments())
    reference, block, raw, label_map = evaluation.rows
    assert block.frechet_network == raw.frechet_network == "moments"
    assert block.frechet_distance is not None
    assert block.frechet_distance > raw.frechet_distance == pytest.approx(0.0, abs=1e-9)
    assert reference.frechet_distance is label_map.frechet_distance is label_map.frechet_network is None
    assert block.fid is None
    header, text = markdown_table(evaluation).splitlines()[0], markdown_table(evaluation).split("\n\n")[1]
    assert "| Fréchet distance |" in header
    assert "Fréchet distance (not FID): features of moments, N = 4 against the originals" in text
    save_evaluation(evaluation, tmp_path)
    assert load_evaluation(tmp_path).rows == evaluation.rows
    result = json.loads((tmp_path / "block.json").read_text())
    assert result["results"]["frechet-distance"] == [block.frechet_distance]
    assert "fid" not in result["results"]
    assert "Fréchet distance on moments, N = 4" in result["description"]


def test_inception_alone_makes_it_the_fid(tmp_path: Path) -> None:
    evaluation = run([CodecEntry("Block", BlockCodec(8))], SIZES, frechet=Moments(FID_NETWORK))
    assert evaluation.rows[1].fid == evaluation.rows[1].frechet_distance is not None
    header, text = markdown_table(evaluation).splitlines()[0], markdown_table(evaluation).split("\n\n")[1]
    assert header.endswith("FID |")
    assert "FID: features of inception-2015-12-05, N = 4" in text
    save_evaluation(evaluation, tmp_path)
    assert set(json.loads((tmp_path / "block.json").read_text())["results"]) >= {"fid"}


def test_one_image_is_too_few() -> None:
    with pytest.raises(ConfigError, match="at least 2 images, 'scenes' has 1"):
        run([CodecEntry("Raw", RawCodec())], [(8, 8)], frechet=Moments())


def test_results_of_older_versions_are_read(tmp_path: Path) -> None:
    evaluation = run([CodecEntry("Raw", RawCodec())])
    (file, *_) = save_evaluation(evaluation, tmp_path)
    tree = json.loads(file.read_text())
    for row in tree["rows"]:
        del row["frechet_distance"], row["frechet_network"]
    file.write_text(json.dumps(tree))
    assert load_evaluation(file).rows == evaluation.rows


class TinyInception(nn.Module):
    """Answers as NVIDIA's file does: classes, or with `return_features` the features before them."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        assert img.dtype == torch.uint8
        means = img.float().mean(dim=[2, 3])
        if not return_features:
            return means
        return means.repeat(1, self.features // 3 + 1)[:, : self.features]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_inception_is_a_torchscript_file_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expert, x = Brightness().freeze(), image_to_tensor(Scenes(SIZES)[0].image_uint8_HW3)
    monkeypatch.setenv("GOSVAE_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"no inception-2015-12-05\.pt in .* or take another network"):
        load_features("inception", expert)
    path = tmp_path / f"{FID_NETWORK}.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(MissingDependencyError, match="is not a TorchScript file"):
        load_features("inception", expert)
    torch.jit.script(TinyInception(2048)).save(path)
    for network in (load_features("inception", expert), load_features("auto", expert, tmp_path)):
        assert isinstance(network, InceptionFeatures)
        assert network.name == FID_NETWORK
        assert network(x).shape == (1, 2048)
        torch.testing.assert_close(network(x)[0, :3], 255.0 * x.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-3)
    torch.jit.script(TinyInception(1000)).save(path)
    with pytest.raises(MissingDependencyError, match="is not the network of the FID"):
        load_features("inception", expert)(x)


def test_the_expert_is_a_network_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOSVAE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    expert = Brightness().freeze()
    network = load_features("auto", expert)
    assert network.name == "brightness, class probabilities in 4x4 cells"
    x = torch.rand(2, 3, 8, 12)
    features_BD = network(x)
    first_cell = expert(x).softmax(dim=1)[:, :, :2, :3].mean(dim=(2, 3))
    torch.testing.assert_close(features_BD.view(2, 3, 16)[:, :, 0], first_cell)
    with pytest.raises(ConfigError, match="unknown feature network 'inceptoin'; did you mean 'inception'"):
        load_features("inceptoin", expert)


def test_squeezenet_of_the_lpips_weights(lpips_weights: Path) -> None:
    network = load_features("squeezenet", Brightness().freeze(), lpips_weights)
    assert network.name == "squeezenet1.1"
    x = torch.rand(2, 3, 40, 48)
    assert network(x).shape == (2, 512)
    torch.testing.assert_close(network(x)[:1], network(x[:1]), rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(ShapeError, match="at least 17 pixels a side"):
        network(x[..., :16])
