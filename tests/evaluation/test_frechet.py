"""The Fréchet distance against closed forms and torchmetrics, and that only Inception's is called FID."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from small_world import BlockCodec, Brightness, MapCodec, RawCodec, Scenes, run
from torch import Tensor, nn

from gosvae.errors import ConfigError, MissingDependencyError, ShapeError
from gosvae.evaluation import CodecEntry, load_evaluation, save_evaluation
from gosvae.evaluation import features as features_module
from gosvae.evaluation.features import FeatureExtractor, InceptionFeatures, load_features
from gosvae.evaluation.inception import PUBLISHED, STATE_FILES, TORCHSCRIPT_FILE, Inception, resized
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


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def publish(path: Path, patch: pytest.MonkeyPatch) -> None:
    """Let a file be one of the published ones."""
    patch.setattr(features_module, "PUBLISHED", {**PUBLISHED, digest_of(path): "a test"})


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_inception_is_a_published_file_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expert, x = Brightness().freeze(), image_to_tensor(Scenes(SIZES)[0].image_uint8_HW3)
    monkeypatch.setenv("GOSVAE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"no inception-2015-12-05\.pt or .* or take another network"):
        load_features("inception", expert)
    path = tmp_path / TORCHSCRIPT_FILE
    path.write_bytes(b"nothing")
    publish(path, monkeypatch)
    with pytest.raises(MissingDependencyError, match="is not a TorchScript file"):
        load_features("inception", expert)
    torch.jit.script(TinyInception(2048)).save(path)
    publish(path, monkeypatch)
    for network in (load_features("inception", expert), load_features("auto", expert, tmp_path)):
        assert isinstance(network, InceptionFeatures)
        assert network.name == FID_NETWORK
        assert network(x).shape == (1, 2048)
        torch.testing.assert_close(network(x)[0, :3], 255.0 * x.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-3)
    torch.jit.script(TinyInception(1000)).save(path)
    publish(path, monkeypatch)
    with pytest.raises(MissingDependencyError, match="is not the network of the FID"):
        load_features("inception", expert)(x)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_file_of_nobody_is_no_fid(tmp_path: Path) -> None:
    """A random network with 2,048 outputs is refused; if it is accepted, no table calls its distance FID."""
    path = tmp_path / TORCHSCRIPT_FILE
    torch.jit.script(TinyInception(2048)).save(path)
    for name in ("inception", "auto"):
        with pytest.raises(
            MissingDependencyError, match=r"has the SHA-256 .* f58cb9b6\.\.\. \(NVIDIA's .* 6726825d\.\.\."
        ) as error:
            load_features(name, None, tmp_path)
        assert error.value.argument == "any_inception"
    network = load_features("inception", None, tmp_path, any_inception=True)
    assert network.name == f"file sha256:{digest_of(path)[:16]}"
    evaluation = run([CodecEntry("Block", BlockCodec(8))], SIZES, frechet=network)
    assert evaluation.rows[1].fid is None
    table = markdown_table(evaluation, details=True)
    assert f"Fréchet distance ({network.name})" in table
    assert "Fréchet distance (not FID)" in table


def random_state() -> dict[str, torch.Tensor]:
    """A state dict of the shapes of the published one, with numbers that depend on the names of its tensors alone."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Inception().state_dict().items()}
    state = {}
    for name, shape in {**shapes, "fc.weight": (1008, 2048), "fc.bias": (1008,)}.items():
        random = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little"))
        if name.endswith(("running_var", "bn.weight")):
            values = random.uniform(0.5, 1.5, shape)
        elif name.endswith(("bn.bias", "running_mean")):
            values = random.normal(0, 0.1, shape)
        elif name.endswith("num_batches_tracked"):
            continue
        else:
            values = random.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
        state[name] = torch.from_numpy(values).float()
    return state


def test_the_state_dict_of_pytorch_fid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes and features are those of torch-fidelity 0.4.0 (`FeatureExtractorInceptionV3`, "inception-v3-compat").

    Its numbers for the state dict of `random_state` were computed with its own code and are the oracle here.
    """
    state, path = random_state(), tmp_path / STATE_FILES[0]
    kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
    listing = "\n".join(f"{name} {tuple(value.shape)}" for name, value in sorted(kept.items()))
    assert hashlib.sha256(listing.encode()).hexdigest() == (
        "e22ffc91a09f7caa1af2ce051c7ddf26018012910da85827a0b035b343f00177"
    )
    torch.save(state, path)
    with pytest.raises(MissingDependencyError, match="and the Inception network of the FID has"):
        load_features("inception", None, tmp_path)
    publish(path, monkeypatch)
    network = load_features("inception", None, tmp_path)
    assert network.name == FID_NETWORK
    random = np.random.default_rng(7)
    small = random.integers(0, 256, (2, 3, 64, 96), dtype=np.uint8)
    large = random.integers(0, 256, (1, 3, 320, 310), dtype=np.uint8)
    for pixels, first in ((small, [0.0, 4.48322, 0.23776, 2.45869]), (large, [0.0, 5.03334, 0.3036, 2.89737])):
        features_BD = network(torch.from_numpy(pixels[:1]).float() / 255.0)
        assert features_BD.shape == (1, 2048)
        torch.testing.assert_close(features_BD[0, :4], torch.tensor(first), rtol=1e-4, atol=1e-4)
    del state["Mixed_7c.branch1x1.conv.weight"]
    torch.save(state, path)
    publish(path, monkeypatch)
    with pytest.raises(MissingDependencyError, match="does not hold the Inception network of the FID"):
        load_features("inception", None, tmp_path)


def test_the_filter_of_tensorflow_leaves_the_first_pixel_in_its_place() -> None:
    ramp = torch.arange(598.0).view(1, 1, 1, 598).expand(1, 1, 10, 598)
    torch.testing.assert_close(resized(ramp)[0, 0, 0], torch.arange(0.0, 598.0, 2.0))
    assert resized(torch.ones(1, 1, 5, 7)).shape == (1, 1, 299, 299)


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
