"""Hugging Face experts against the library's own processing, with tiny models from a folder and no network."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from experts.tiny_models import CLASS_NAMES, HEIGHT, TRANSFORMERS_KINDS, WIDTH, save_tiny_transformer
from gosvae.errors import ExpertError, MissingDependencyError
from gosvae.experts.huggingface import HuggingFaceExpert, load_huggingface_expert, query_logits
from gosvae.experts.registry import load_expert
from gosvae.seeding import numpy_generator
from gosvae.tensors import ImageArray, image_to_tensor

pytest.importorskip("transformers", reason="needs gosvae[huggingface]")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is off, and any attempt to reach it is an error that the test sees."""

    def refuse(*args: object) -> None:
        raise OSError(f"a test tried to connect to {args[-1]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: save_tiny_transformer(kind, root / kind) for kind in (*TRANSFORMERS_KINDS, "mobilevit")}


@pytest.fixture(params=TRANSFORMERS_KINDS)
def expert(request: pytest.FixtureRequest, folders: dict[str, Path]) -> HuggingFaceExpert:
    return load_huggingface_expert(folders[request.param])


def _picture(height: int, width: int) -> ImageArray:
    coarse = numpy_generator(5).random((1, 3, 8, 12))
    fine = F.interpolate(torch.from_numpy(coarse), (height, width), mode="bicubic").clamp(0, 1)
    image: ImageArray = (fine[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return image


def _library_result(folder: Path, image: ImageArray, target: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Map and scores that a user of `transformers` gets: processor, model, the processor's own post-processing."""
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

    kind = json.loads((folder / "config.json").read_text())["model_type"]
    universal = kind in ("mask2former", "oneformer")
    auto_model = AutoModelForUniversalSegmentation if universal else AutoModelForSemanticSegmentation
    network = auto_model.from_pretrained(folder)
    if kind == "oneformer":
        from transformers import AutoTokenizer, OneFormerProcessor

        processor = AutoImageProcessor.from_pretrained(folder, class_info_file=None)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        whole = OneFormerProcessor(processor, tokenizer, task_seq_length=network.config.task_seq_len)
        inputs = whole(images=image, task_inputs=["semantic"], return_tensors="pt")
        inputs.pop("pixel_mask")
    else:
        processor = AutoImageProcessor.from_pretrained(folder)
        inputs = processor(image, return_tensors="pt")
    with torch.no_grad():
        outputs = network(**inputs)
    (result,) = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[target], return_segmentation_scores=True
    )
    return result.segmentation, result.segmentation_scores


@pytest.mark.parametrize("kind", TRANSFORMERS_KINDS)
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (70, 131)])
def test_map_is_that_of_the_library(folders: dict[str, Path], kind: str, size: tuple[int, int]) -> None:
    image = _picture(*size)
    ours = load_huggingface_expert(folders[kind]).class_map(image_to_tensor(image))[0]
    theirs, _ = _library_result(folders[kind], image, size)
    assert len(torch.unique(theirs)) > 1, "a map of one class would agree with anything"
    # At the network's own size only ties may differ; elsewhere Pillow rounds the resized picture to 8 bits, we do not.
    assert (ours == theirs).float().mean() >= (0.999 if size == (HEIGHT, WIDTH) else 0.98)


@pytest.mark.parametrize("kind", ["mask2former", "oneformer"])
def test_probabilities_are_the_normalised_scores_of_the_library(folders: dict[str, Path], kind: str) -> None:
    image = _picture(HEIGHT, WIDTH)
    ours = load_huggingface_expert(folders[kind])(image_to_tensor(image)).softmax(dim=1)[0]
    _, scores = _library_result(folders[kind], image, (HEIGHT, WIDTH))
    torch.testing.assert_close(ours, scores / scores.sum(dim=0), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", [*TRANSFORMERS_KINDS, "mobilevit"])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (70, 131), (33, 40)])
def test_preprocessing_is_that_of_the_image_processor(
    folders: dict[str, Path], kind: str, size: tuple[int, int]
) -> None:
    from transformers import AutoImageProcessor

    extra = {"class_info_file": None} if kind == "oneformer" else {}
    processor = AutoImageProcessor.from_pretrained(folders[kind], **extra)
    image = _picture(*size)
    theirs = processor(image, return_tensors="pt")["pixel_values"]
    ours = load_huggingface_expert(folders[kind]).preprocess(image_to_tensor(image))
    # Pillow rounds to 8 bits after each of its two passes.
    one_level = 1.0 / 255 / (0.224 if kind != "mobilevit" else 1.0)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < (1e-5 if size == (HEIGHT, WIDTH) else 1.5 * one_level)


def test_the_gradient_reaches_every_region(expert: HuggingFaceExpert) -> None:
    x = image_to_tensor(_picture(40, 56)).requires_grad_()
    logits = expert(x)
    (logits.softmax(dim=1) * torch.rand(logits.shape)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (F.max_pool2d(x.grad.abs().sum(dim=1, keepdim=True), 8) > 0).all()
    assert all(p.grad is None for p in expert.parameters())


def test_info_comes_from_the_model(expert: HuggingFaceExpert) -> None:
    assert expert.info.class_names == CLASS_NAMES
    assert (expert.info.input_height, expert.info.input_width) == (HEIGHT, WIDTH)


def test_query_logits_are_the_shares_of_the_scores() -> None:
    classes, masks = torch.randn(2, 5, 4) * 2, torch.randn(2, 5, 6, 7) * 3
    shifted = np.exp(classes.numpy())
    shares_BQm = (shifted / shifted.sum(-1, keepdims=True))[..., :-1]
    scores = np.einsum("bqm,bqhw->bmhw", shares_BQm, 1 / (1 + np.exp(-masks.numpy())))
    expected = scores / scores.sum(1, keepdims=True)
    actual = query_logits(classes, masks, (6, 7)).softmax(dim=1)
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e8])
def test_query_logits_and_their_gradients_stay_finite(scale: float) -> None:
    classes = (torch.randn(1, 5, 4) * scale).requires_grad_()
    masks = (torch.randn(1, 5, 6, 7) * scale - scale).requires_grad_()
    logits = query_logits(classes, masks, (12, 14))
    target = torch.zeros(1, 12, 14, dtype=torch.long)
    F.cross_entropy(logits, target).backward()
    assert logits.isfinite().all()
    for given in (classes, masks):
        assert given.grad is not None
        assert given.grad.isfinite().all()


def test_query_logits_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = query_logits(torch.randn(1, 5, 4).bfloat16(), torch.randn(1, 5, 6, 7).bfloat16(), (6, 7))
    assert logits.dtype == torch.float32


def test_gradients_flow_after_inference_mode_at_the_same_size(expert: HuggingFaceExpert) -> None:
    """Position tables that the library caches in inference mode must not spoil training."""
    image = image_to_tensor(_picture(48, 48))
    expert.class_map(image)
    x = image.clone().requires_grad_()
    expert(x).sum().backward()
    assert x.grad is not None


def test_oneformer_is_asked_for_the_semantic_task(folders: dict[str, Path]) -> None:
    expert = load_huggingface_expert(folders["oneformer"])
    assert expert.task_tokens is not None
    assert expert.task_tokens.shape == (1, 12)
    x = torch.rand(1, 3, HEIGHT, WIDTH)
    before = expert(x)
    expert.task_tokens.zero_()
    assert not torch.equal(expert(x), before)


@pytest.mark.parametrize("kind", TRANSFORMERS_KINDS)
def test_an_input_size_replaces_that_of_the_image_processor(kind: str, folders: dict[str, Path]) -> None:
    plain, small = (load_expert(f"{folders[kind]}{query}") for query in ("", "?short=32"))
    assert isinstance(small, HuggingFaceExpert)
    assert isinstance(plain, HuggingFaceExpert)
    assert small.info.source == f"{folders[kind]}?short=32"
    assert plain.preprocess(torch.rand(1, 3, 64, 128)).shape[-2:] == (HEIGHT, WIDTH)
    assert small.preprocess(torch.rand(1, 3, 64, 128)).shape[-2:] == (32, 64)
    assert small.preprocess(torch.rand(1, 3, 96, 48)).shape[-2:] == (64, 32)
    assert plain.fingerprint() != small.fingerprint() == load_expert(f"{folders[kind]}?short=32").fingerprint()
    x = torch.rand(1, 3, 64, 128, requires_grad=True)
    logits = small(x)
    assert logits.shape[-2:] == (64, 128)
    assert torch.autograd.grad(logits.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("query", ["?short=0", "?short=x", "?long=256", "?short=99999"])
def test_an_impossible_input_size_is_refused(query: str, folders: dict[str, Path]) -> None:
    with pytest.raises(ExpertError, match=r"expected \?short=N"):
        load_expert(f"{folders['segformer']}{query}")
    with pytest.raises(ExpertError, match="is no transformers model"):
        load_expert("embedded?short=64")


def test_loading_is_quiet(folders: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    load_huggingface_expert(folders["segformer"])
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ExpertError, match=r"no config\.json in it"):
        load_huggingface_expert(tmp_path)
    with pytest.raises(ExpertError, match="no folder"):
        load_huggingface_expert(tmp_path / "absent")
    (tmp_path / "config.json").write_text('{"model_type": "street-reader"}')
    with pytest.raises(ExpertError, match="cannot be loaded as a transformers model"):
        load_huggingface_expert(tmp_path)


def test_a_model_that_does_not_segment(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ExpertError, match="'bert' model, which has no semantic segmentation"):
        load_huggingface_expert(tmp_path)


def test_a_classifier_of_a_segmentation_family(tmp_path: Path, folders: dict[str, Path]) -> None:
    from transformers import SegformerForImageClassification

    network = SegformerForImageClassification.from_pretrained(folders["segformer"])
    network.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_bytes(
        (folders["segformer"] / "preprocessor_config.json").read_bytes()
    )
    with pytest.raises(
        ExpertError, match="holds a SegformerForImageClassification, which gives no class to each pixel"
    ):
        load_huggingface_expert(tmp_path)


@pytest.mark.parametrize("missing", ["preprocessor_config.json", "model.safetensors"])
def test_an_incomplete_folder(tmp_path: Path, folders: dict[str, Path], missing: str) -> None:
    for path in folders["segformer"].iterdir():
        if path.name != missing:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    said = "has no image processor" if missing.startswith("preprocessor") else "cannot be loaded"
    with pytest.raises(ExpertError, match=said) as caught:
        load_huggingface_expert(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_hub_out_of_reach() -> None:
    with pytest.raises(ExpertError, match="hf download nobody/nothing --local-dir FOLDER") as caught:
        load_huggingface_expert("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_transformers_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingDependencyError, match=r"gosvae\[huggingface\]"):
        load_huggingface_expert(tmp_path)


def test_a_broken_torchvision_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folders: dict[str, Path]
) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(MissingDependencyError, match=r"torchvision is broken .*nms does not exist"):
        load_huggingface_expert(folders["segformer"])


def test_a_model_of_masks_that_is_not_supported_is_refused_in_true_words(tmp_path: Path) -> None:
    from transformers import EomtConfig

    EomtConfig(architectures=["EomtForUniversalSegmentation"]).save_pretrained(tmp_path)
    with pytest.raises(ExpertError, match=r"'eomt' model: transformers segments with it, gosvae does not yet"):
        load_huggingface_expert(tmp_path)


def test_a_folder_without_an_image_processor(tmp_path: Path, folders: dict[str, Path]) -> None:
    shutil.copytree(folders["segformer"], tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    with pytest.raises(ExpertError, match=r"has no image processor .*save_pretrained") as caught:
        load_huggingface_expert(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, folders: dict[str, Path]) -> None:
    shutil.copytree(folders["segformer"], tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(ExpertError, match=r"model\.safetensors is a Git LFS pointer.*git lfs pull"):
        load_huggingface_expert(tmp_path / "model")
