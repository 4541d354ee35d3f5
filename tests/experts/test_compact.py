"""The compact expert: trained in the package, read from its folder, refused where something is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gosvae.config import parse
from gosvae.datasets.base import Dataset
from gosvae.datasets.folder import ImageFolder
from gosvae.errors import ConfigError, DatasetError, ExpertError
from gosvae.experts.compact import balanced_class_weights, count_parameters
from gosvae.experts.registry import load_expert
from gosvae.experts.trained import build_network, load_trained_expert
from gosvae.images import write_image
from gosvae.recipes import load_recipe
from gosvae.tensors import image_to_tensor
from gosvae.training.experts import ExpertRecipe, label_counts, train_expert
from tiny import run_config, streets

RECIPE = {
    "kind": "expert",
    "name": "tiny-expert",
    "description": "for tests",
    "widths": [8, 8, 8, 8],
    "blocks": [1, 1, 1],
    "stages": [
        {
            "name": "supervised",
            "weights": {"cross_entropy": 1.0},
            "steps": 3,
            "learning_rate": 0.01,
            "batches": {"batch_size": 2, "crop_height": 32, "crop_width": 48, "brightness": 0.2, "scale": 0.2},
        }
    ],
}


def train(folder: Path, data: Dataset | None = None, **options: float) -> bool:
    recipe = parse(ExpertRecipe, RECIPE)
    outcome = train_expert(recipe, data or streets(), (64, 96), run_config(), folder, progress=False, **options)
    return outcome.complete


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("expert")
    assert train(path)
    return path


def test_training_goes_on_bit_for_bit_and_leaves_global_state_alone(folder: Path, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    assert [train(tmp_path, max_minutes=0) for _ in range(3)] == [False, False, True]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert load_expert(tmp_path).fingerprint() == load_expert(folder).fingerprint()


def test_it_is_an_expert_for_pictures_of_any_size(folder: Path) -> None:
    expert = load_expert(folder)
    assert expert.info.name == "tiny-expert"
    assert (expert.info.input_height, expert.info.input_width) == (64, 96)
    x_B3HW = torch.rand(2, 3, 37, 51, requires_grad=True)
    logits_BmHW = expert(x_B3HW)
    assert logits_BmHW.shape == (2, 11, 37, 51)
    logits_BmHW.logsumexp(1).sum().backward()
    assert x_B3HW.grad is not None
    assert float((x_B3HW.grad != 0).any(1).float().mean()) > 0.9
    assert not expert.train().training
    assert not any(p.requires_grad for p in expert.parameters())
    tall = image_to_tensor(streets()[0].image_uint8_HW3)
    assert torch.equal(expert.class_map(tall), expert(tall).argmax(1))


@pytest.mark.parametrize("name", ["expert-compact", "expert-unet"])
def test_the_default_has_the_size_that_its_recipe_says(name: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, ExpertRecipe)
    network = build_network(recipe.network(11))
    assert f"{count_parameters(network) / 1e6:.1f} M" in recipe.description


def test_a_card_of_the_first_kind_names_no_network(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "old"))
    tree = json.loads((copy / "config.json").read_text())
    assert tree["network"].pop("kind") == "compact"
    (copy / "config.json").write_text(json.dumps(tree))
    assert load_expert(copy).fingerprint() == load_expert(folder).fingerprint()


def test_labels_are_needed(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", streets()[0].image_uint8_HW3)
    with pytest.raises(DatasetError, match=r"'folder' has no labels: training an expert needs them"):
        train(tmp_path / "run", ImageFolder(tmp_path))


def test_rare_classes_weigh_more() -> None:
    counts_m = label_counts(streets())
    assert int(counts_m.sum()) == 4 * 64 * 96
    expected = np.bincount(np.concatenate([streets()[i].labels_uint8_HW.ravel() for i in (0, 2)]), minlength=11)
    np.testing.assert_array_equal(label_counts(streets(), most=2), expected)
    weights_m = balanced_class_weights(torch.tensor([1000, 10, 0]))
    assert weights_m[0] < weights_m[1] < weights_m[2]
    assert float(weights_m.mean()) == pytest.approx(1.0)


def test_incomplete_and_misfitting_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    for name in ("config.json", "weights.safetensors"):
        (copy(f"no-{name}") / name).unlink()
        with pytest.raises(ExpertError, match=f"{name} is missing; make one with gosvae train-expert"):
            load_trained_expert(tmp_path / f"no-{name}")
    (copy("cut") / "weights.safetensors").write_bytes(b"123")
    with pytest.raises(ExpertError, match=r"is not the file that config\.json names") as caught:
        load_expert(tmp_path / "cut")
    assert "\n" not in str(caught.value)
    path = copy("classes") / "config.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "class_names": tree["class_names"][:-1]}))
    with pytest.raises(ConfigError, match=r"10 class_names, but network.class_count 11"):
        load_expert(path.parent)
    tree["network"]["blocks"] = [1, 1, 2]
    path.write_text(json.dumps(tree))
    with pytest.raises(ExpertError, match=r"does not fit"):
        load_expert(path.parent)
