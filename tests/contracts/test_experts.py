"""What every expert promises, whatever network is inside."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from experts.tiny_models import (
    CLASS_NAMES,
    TRANSFORMERS_KINDS,
    TinySegmenter,
    save_tiny_transformer,
    save_tiny_unet,
    write_card,
)
from gosvae.errors import ExpertError, ShapeError
from gosvae.experts.base import Expert
from gosvae.experts.compact import random_compact_expert
from gosvae.experts.exported import load_exported_expert
from gosvae.experts.registry import load_expert

KINDS = ("compact", "unet", "torchscript", "torch.export", "onnx", *TRANSFORMERS_KINDS)


def _make(kind: str, folder: Path) -> Expert:
    if kind == "compact":
        return random_compact_expert(CLASS_NAMES, height=32, width=64)
    if kind == "unet":
        return load_expert(save_tiny_unet(folder / "unet"))
    if kind in TRANSFORMERS_KINDS:
        pytest.importorskip("transformers", reason="needs gosvae[huggingface]")
        return load_expert(str(save_tiny_transformer(kind, folder)))
    if kind == "onnx":
        pytest.importorskip("onnxruntime", reason="needs gosvae[onnx]")
        from experts.onnx_files import exported, write_onnx

        card = {"task": "segmentation", "class_names": CLASS_NAMES, "stride": 4}
        return load_expert(write_onnx(folder / "net.onnx", exported(TinySegmenter(), free=True), card))
    network, x = TinySegmenter().eval(), torch.rand(1, 3, 32, 64)
    path = folder / ("net.pt" if kind == "torchscript" else "net.pt2")
    if kind == "torchscript":
        torch.jit.trace(network, x).save(path)
    else:
        torch.export.save(torch.export.export(network, (x,)), path)
    write_card(path)
    return load_exported_expert(path, trust=True)


@pytest.fixture(scope="module", params=KINDS)
def expert(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Expert:
    torch.manual_seed(11)
    with warnings.catch_warnings():
        # PyTorch warns whoever exports to TorchScript; users have such files all the same.
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        return _make(request.param, tmp_path_factory.mktemp("expert"))


@pytest.mark.parametrize("shape", [(1, 32, 64), (2, 45, 31), (1, 1, 5)])
def test_logits_at_every_pixel_of_any_size(expert: Expert, shape: tuple[int, int, int]) -> None:
    images, height, width = shape
    logits = expert(torch.rand(images, 3, height, width))
    assert logits.shape == (images, len(CLASS_NAMES), height, width)
    assert logits.dtype == torch.float32
    assert expert.class_map(torch.rand(images, 3, height, width)).shape == (images, height, width)


def test_stays_frozen(expert: Expert) -> None:
    x = torch.rand(1, 3, 32, 64)
    before = expert(x)
    assert expert.train() is expert
    # The graph of torch.export has no modes: its flag says nothing, so what counts is that the answer is the same.
    assert not expert.training
    assert torch.equal(expert(x), before)
    assert not any(parameter.requires_grad for parameter in expert.parameters())


def test_gradients_reach_every_region_of_the_image(expert: Expert) -> None:
    x = torch.rand(1, 3, 32, 64, requires_grad=True)
    logits = expert(x)
    (logits.softmax(dim=1) * torch.rand(logits.shape)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (F.max_pool2d(x.grad.abs().sum(dim=1, keepdim=True), 8) > 0).all()


@pytest.mark.parametrize("picture", ["black", "white", "noise"])
def test_probabilities_are_finite_and_sum_to_one(expert: Expert, picture: str) -> None:
    x = {"black": torch.zeros(1, 3, 32, 64), "white": torch.ones(1, 3, 32, 64), "noise": torch.rand(1, 3, 32, 64)}
    logits = expert(x[picture])
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.softmax(dim=1).sum(dim=1), torch.ones(1, 32, 64))


def test_the_same_image_gets_the_same_answer(expert: Expert) -> None:
    x = torch.rand(2, 3, 32, 64)
    first = expert(x)
    with torch.inference_mode():
        inferred = expert(x)
    assert torch.equal(expert(x), first)
    torch.testing.assert_close(inferred, first)


def test_images_of_a_batch_do_not_see_each_other(expert: Expert) -> None:
    x = torch.rand(2, 3, 32, 64)
    torch.testing.assert_close(expert(x)[1:], expert(x[1:]), atol=1e-4, rtol=1e-4)


def test_the_fingerprint_changes_with_any_weight(expert: Expert) -> None:
    before = expert.fingerprint()
    assert expert.fingerprint() == before
    weight = list(expert.parameters())[-1]
    kept = copy.deepcopy(weight.data)
    weight.data.view(-1)[0] += 1.0
    changed = expert.fingerprint()
    weight.data.copy_(kept)
    assert changed != before
    assert expert.fingerprint() == before


@pytest.mark.parametrize("shape", [(3, 32, 64), (1, 1, 32, 64), (1, 32, 64, 3)])
def test_another_layout_is_refused(expert: Expert, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        expert(torch.rand(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_answer_that_is_not_finite_is_an_error(
    expert: Expert, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = expert(torch.rand(1, 3, 32, 64)).detach().clone()
    answer[0, 0, 3, 4] = value
    monkeypatch.setattr(type(expert), "class_logits", lambda *_: answer)
    for ask in (expert, expert.class_map):
        with pytest.raises(ExpertError, match="NaN or infinite") as caught:
            ask(torch.rand(1, 3, 32, 64))
        assert "\n" not in str(caught.value)
    for pixel in (float("nan"), float("inf"), 1e20):  # of a codec that diverges: not the fault of the expert
        expert(torch.full((1, 3, 32, 64), pixel))
