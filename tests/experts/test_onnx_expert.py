"""ONNX files as experts: a real detector, exported networks of several makers, cards, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from experts.onnx_files import exported, graph_model, write_onnx  # noqa: E402
from experts.tiny_models import CLASS_NAMES, MEAN, STD, TinySegmenter  # noqa: E402
from gosvae import plugins  # noqa: E402
from gosvae.cli.main import main  # noqa: E402
from gosvae.errors import ConfigError, ExpertError  # noqa: E402
from gosvae.evaluation.boxes import boxes_of  # noqa: E402
from gosvae.experts.base import Expert  # noqa: E402
from gosvae.experts.onnx import runtime  # noqa: E402
from gosvae.experts.onnx.expert import load_onnx_expert  # noqa: E402
from gosvae.experts.onnx.network import OPERATORS  # noqa: E402
from gosvae.experts.onnx.runtime import RuntimeNetwork, compare  # noqa: E402
from gosvae.experts.registry import load_expert, load_task_expert  # noqa: E402
from gosvae.images import read_image  # noqa: E402
from gosvae.tasks.registry import load_task  # noqa: E402
from gosvae.tensors import image_to_tensor  # noqa: E402

FASTESTDET = {
    "task": "detection",
    "boxes": "fastestdet",
    "class_names": [f"class {i}" for i in range(80)],
    "channel_order": "bgr",
}
CARD = {"task": "segmentation", "class_names": CLASS_NAMES, "mean": MEAN, "std": STD}


TASK_OF_A_PACKAGE = """
import gosvae


class Mean(gosvae.Meter):
    def __init__(self):
        self.differences = []

    def update(self, reference, seen):
        self.differences.append(abs(reference - seen))

    def values(self):
        return {"closeness": 1 / (1 + sum(self.differences))}


class Brightness(gosvae.Task):
    name = "brightness"
    columns = ("closeness",)

    def distance(self, original, reconstruction):
        return (original[0].detach() - reconstruction[0]).square().mean()

    def results(self, output):
        return [float(each) for each in output[0].mean(dim=(1, 2, 3))]

    def arrays(self, result):
        return {}

    def describe(self, result):
        return f"brightness {result:.2f}"

    def meter(self):
        return Mean()

    def draw(self, image_uint8_HW3, result):
        return image_uint8_HW3
"""


@pytest.fixture(scope="module")
def fastestdet(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    original = shared_dir / "weights" / "onnx" / "fastestdet-coco-352.onnx"
    if not original.is_file():
        pytest.skip("needs weights/onnx/fastestdet-coco-352.onnx in the shared data")
    path = tmp_path_factory.mktemp("detector") / "fastestdet.onnx"
    path.write_bytes(original.read_bytes())
    path.with_suffix(".json").write_text(json.dumps(FASTESTDET), encoding="utf-8")
    return path


def frames(camvid_root: Path, count: int) -> list[Tensor]:
    """Frames of CamVid's validation set at the size of the detector."""
    files = sorted((camvid_root / "val").glob("*.png"))
    chosen = files[:: len(files) // count][:count]
    assert len(chosen) == count
    pictures = (Image.fromarray(read_image(file)).resize((352, 352), Image.Resampling.BILINEAR) for file in chosen)
    return [image_to_tensor(np.array(picture)) for picture in pictures]


def test_fastestdet_answers_as_onnx_runtime_on_20_frames(fastestdet: Path, camvid_root: Path) -> None:
    expert = load_onnx_expert(fastestdet)
    assert expert.fingerprint() == load_onnx_expert(fastestdet).fingerprint()
    reference = RuntimeNetwork(onnx.load(fastestdet))
    worst = 0.0
    for x in frames(camvid_root, 20):
        inputs = expert.model.arguments(x)[0]
        with torch.no_grad():
            worst = max(worst, compare(expert.model.network(*inputs), reference(*inputs)).difference)
    print(f"largest difference on 20 frames: {worst:.2e}")
    assert worst <= 1e-4


def test_the_boxes_are_those_of_the_evaluation(fastestdet: Path, camvid_root: Path) -> None:
    expert = load_task_expert(fastestdet)
    reference, task = RuntimeNetwork(onnx.load(fastestdet)), load_task(expert)
    found = 0
    for x in frames(camvid_root, 3):
        (boxes,) = task.results(expert(x))
        (output,) = reference(x.flip(1))
        expected = boxes_of(output[0].double().numpy())
        assert np.array_equal(boxes.classes_N, expected.classes_N)
        np.testing.assert_allclose(boxes.corners_N4, expected.corners_N4, atol=1e-4)
        np.testing.assert_allclose(boxes.scores_N, expected.scores_N, atol=1e-4)
        found += len(boxes.above(0.5).scores_N)
    assert found > 0


def test_gradients_of_fastestdet_are_finite_and_those_of_differences(fastestdet: Path, camvid_root: Path) -> None:
    """The derivative along 20 random directions against a central difference, in double precision."""
    network = load_onnx_expert(fastestdet).model.network.double()
    x = frames(camvid_root, 1)[0].flip(1).double()
    weights = torch.randn(1, 85, 22, 22, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x.requires_grad_()
    (network(x)[0] * weights).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (F.max_pool2d(x.grad.abs().sum(dim=1, keepdim=True), 32) > 0).all()
    largest = x.grad.abs().flatten().topk(2000).indices
    with torch.no_grad():
        for place in largest[torch.randperm(2000, generator=torch.Generator().manual_seed(2))[:20]]:
            step = torch.zeros_like(x).flatten()
            step[place] = 1e-7
            step = step.view_as(x)
            high, low = ((network(x + sign * step)[0] * weights).sum() for sign in (1, -1))
            measured = float((high - low) / 2e-7)
            assert measured == pytest.approx(float(x.grad.flatten()[place]), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("free", [True, False], ids=["free sizes", "one size"])
def test_a_segmenter_answers_as_the_network_itself(tmp_path: Path, free: bool) -> None:
    network = TinySegmenter().eval()
    path = write_onnx(tmp_path / "net.onnx", exported(network, free=free), {**CARD, "stride": 4})
    expert = load_expert(path)
    assert isinstance(expert, Expert)
    assert (expert.info.input_height, expert.info.input_width) == ((256, 256) if free else (64, 64))
    x = torch.rand(3, 3, 64, 64)
    normalised = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    expected = F.interpolate(network(normalised), (64, 64), mode="bilinear")
    torch.testing.assert_close(expert(x), expected, atol=1e-4, rtol=1e-4)
    assert expert(torch.rand(2, 3, 45, 70)).shape == (2, len(CLASS_NAMES), 45, 70)


def test_the_card_says_order_scale_and_size(tmp_path: Path) -> None:
    network = TinySegmenter().eval()
    model = exported(network, free=True)
    changes = {"channel_order": "bgr", "scale": 255.0, "input_height": 32, "input_width": 32}
    path = write_onnx(tmp_path / "net.onnx", model, {**CARD, **changes, "mean": [1, 2, 3], "std": [4, 5, 6]})
    x = torch.rand(1, 3, 32, 32)
    shown = (x.flip(1) * 255 - torch.tensor([1.0, 2, 3])[:, None, None]) / torch.tensor([4.0, 5, 6])[:, None, None]
    expected = F.interpolate(network(shown), (32, 32), mode="bilinear")
    torch.testing.assert_close(load_expert(path)(x), expected, atol=1e-3, rtol=1e-3)


def test_a_letterbox_keeps_the_proportions_and_gives_boxes_on_the_image(tmp_path: Path) -> None:
    """A network whose only box is the middle half of its input: in the image, it is taller or wider."""

    class OneBox(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen = x.mean(dim=(1, 2, 3)).sigmoid()
            box = torch.tensor([32.0, 32.0, 32.0, 32.0]) + 0 * seen[:, None]
            return torch.cat([box, seen[:, None], 0 * seen[:, None]], dim=1)[:, :, None]

    card = {"task": "detection", "boxes": "yolov8", "class_names": ["a", "b"], "fit": "letterbox"}
    expert = load_task_expert(write_onnx(tmp_path / "net.onnx", exported(OneBox()), card))
    corners = expert(torch.rand(1, 3, 32, 64)).corners_BN4[0, 0]
    torch.testing.assert_close(corners, torch.tensor([0.25, 0.0, 0.75, 1.0]))


def test_without_a_card_all_outputs_are_features(tmp_path: Path) -> None:
    expert = load_task_expert(write_onnx(tmp_path / "net.onnx", exported(TinySegmenter())))
    assert expert.task == "features"
    (maps,) = expert(torch.rand(2, 3, 50, 40))
    assert maps.shape == (2, len(CLASS_NAMES), 16, 16)
    with pytest.raises(ExpertError, match="the task 'features': an expert of segmentation is needed"):
        load_expert(tmp_path / "net.onnx")


def test_values_within_the_graph_may_be_the_answer(tmp_path: Path) -> None:
    model = exported(TinySegmenter())
    inner = model.graph.node[0].output[0]
    path = write_onnx(tmp_path / "net.onnx", model, {"outputs": [inner]})
    assert load_task_expert(path)(torch.rand(1, 3, 64, 64))[0].shape == (1, 8, 16, 16)
    write_onnx(path, model, {"outputs": ["none"]})
    with pytest.raises(ExpertError, match="unknown output 'none'"):
        load_task_expert(path)


def test_an_answer_before_an_unknown_operator_has_gradients(tmp_path: Path) -> None:
    make = onnx.helper.make_node
    constants = {"scale": np.float32(0.1), "zero": np.uint8(0)}
    nodes = [
        make("Mul", ["x", "scale"], ["before"]),
        make("QuantizeLinear", ["before", "scale", "zero"], ["q"]),
        make("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    model = graph_model(nodes, {"x": [1, 3, 8, 8]}, ["y"], constants)
    path = write_onnx(tmp_path / "net.onnx", model)
    with pytest.raises(ExpertError, match=r"QuantizeLinear .* or name values before it as 'outputs' of the card"):
        load_task_expert(path)
    write_onnx(path, model, {"outputs": ["before"]})
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    (found,) = load_task_expert(path)(x)
    found.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.1))


def test_the_metadata_of_ultralytics_describe_a_detector(tmp_path: Path) -> None:
    class Yolo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(3, 6, 16, stride=16)

        def forward(self, x: Tensor) -> Tensor:
            rows = self.head(x).flatten(2)
            return torch.cat([rows[:, :4].exp() * 16, rows[:, 4:].sigmoid()], dim=1)

    model = exported(Yolo())
    for key, value in {"task": "detect", "names": "{0: 'person', 1: 'car'}"}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    expert = load_task_expert(write_onnx(tmp_path / "yolo.onnx", model))
    assert (expert.task, expert.info.class_names) == ("detection", ("person", "car"))
    assert expert(torch.rand(1, 3, 48, 64)).classes_BNm.shape == (1, 16, 2)


def test_further_inputs_get_their_values_from_the_card(tmp_path: Path) -> None:
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    model = graph_model([make("Mul", ["x", "factor"], ["y"])], {"x": [1, 3, 8, 8]}, ["y"])
    model.graph.input.append(info("factor", onnx.TensorProto.FLOAT, [1]))
    path = write_onnx(tmp_path / "net.onnx", model)
    with pytest.raises(ExpertError, match=r"first input is images .*, got x \(1, 3, 8, 8\) float32, factor"):
        load_task_expert(path)
    write_onnx(path, model, {"constants": {"factor": [2.0]}})
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(load_task_expert(path)(x)[0], 2 * x)


def test_an_unknown_operator_is_named_and_the_network_may_judge(tmp_path: Path) -> None:
    make = onnx.helper.make_node
    constants = {"scale": np.float32(0.1), "zero": np.uint8(0)}
    nodes = [
        make("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="eight_bits"),
        make("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    path = write_onnx(tmp_path / "net.onnx", graph_model(nodes, {"x": [1, 3, 8, 8]}, ["y"], constants))
    with pytest.raises(ExpertError, match=r"net\.onnx: the operator QuantizeLinear \(node 'eight_bits', opset 17\)"):
        load_task_expert(path)
    judge = load_task_expert(path, gradients=False)
    with torch.inference_mode():
        (seen,) = judge(torch.rand(2, 3, 8, 8))
    assert seen.shape == (2, 3, 8, 8)
    with pytest.raises(ExpertError, match="gives no gradient: it can judge"):
        judge(torch.rand(1, 3, 8, 8, requires_grad=True))


def test_the_first_operator_that_differs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_onnx(tmp_path / "net.onnx", exported(TinySegmenter()))
    monkeypatch.setitem(OPERATORS, "Relu", lambda _node, x: x.clamp(min=0.25))
    with pytest.raises(ExpertError, match=r"differs from ONNX Runtime's by .*, first at Relu \(node ") as caught:
        load_task_expert(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("opset", [9, 23])
def test_other_operator_sets_are_refused(tmp_path: Path, opset: int) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    path = write_onnx(tmp_path / "net.onnx", graph_model([node], {"x": [1, 3, 8, 8]}, ["y"], opset=opset))
    with pytest.raises(ExpertError, match=f"uses operator set {opset}, expected 11 to 22: convert"):
        load_task_expert(path)


def test_files_and_cards_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(ExpertError, match=r"no ONNX file at .*net\.onnx"):
        load_task_expert(path)
    path.write_bytes(os.urandom(200))
    with pytest.raises(ExpertError, match=r"net\.onnx is not an ONNX file"):
        load_task_expert(path)
    write_onnx(path, exported(TinySegmenter()), {"task": "detection"})
    with pytest.raises(ConfigError, match="a detector needs 'boxes'"):
        load_task_expert(path)
    for task in ("segmentaton", "mine.py:Mine"):  # a card is data and cannot name a program
        write_onnx(path, exported(TinySegmenter()), {**CARD, "task": task})
        with pytest.raises(ConfigError, match=rf"task: unknown task '{task}'.* \(known: depth, detection, "):
            load_task_expert(path)
    write_onnx(path, exported(TinySegmenter()), {**CARD, "class_names": ["one", "two"]})
    with pytest.raises(ExpertError, match="check the class names"):
        load_task_expert(path)
    write_onnx(path, exported(TinySegmenter()), {**FASTESTDET})
    with pytest.raises(ExpertError, match=r"returned \(1, 4, 16, 16\) where \(B, 85, h, w\) was expected"):
        load_task_expert(path)


def test_a_card_may_name_the_task_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "their_task.py").write_text(TASK_OF_A_PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_task", raising=False)
    point = EntryPoint("brightness", "their_task:Brightness", "gosvae.tasks")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])
    path = write_onnx(tmp_path / "net.onnx", exported(TinySegmenter()), {"task": "brightness"})
    expert = load_task_expert(path)
    assert expert.task == "brightness"
    assert isinstance(expert(torch.rand(1, 3, 64, 96)), tuple)
    assert main(["check", "--expert", str(path), "--data", "streets:2", "--images", "2", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "expert: net, brightness, " in out
    assert "closeness of images at an eighth of their size: " in out
    assert float(out.partition("gradient at the pixels: ")[2].splitlines()[0]) > 0


def test_a_graph_out_of_order_is_refused(tmp_path: Path) -> None:
    make = onnx.helper.make_node
    nodes = [make("Neg", ["y"], ["z"], name="early"), make("Relu", ["x"], ["y"])]
    path = write_onnx(tmp_path / "net.onnx", graph_model(nodes, {"x": [1, 3, 8, 8]}, ["z"]))
    with pytest.raises(ExpertError, match=r"Neg \(node 'early', opset 17\) takes 'y', which nothing before it makes"):
        load_task_expert(path)


def test_a_damaged_constant_is_refused(tmp_path: Path) -> None:
    model = graph_model(
        [onnx.helper.make_node("Mul", ["x", "c"], ["y"])], {"x": [1, 3, 8, 8]}, ["y"], {"c": np.ones(4, np.float32)}
    )
    model.graph.initializer[0].raw_data = b"123"
    path = write_onnx(tmp_path / "net.onnx", model)
    with pytest.raises(ExpertError, match="it holds a value that cannot be read") as caught:
        load_task_expert(path)
    assert "\n" not in str(caught.value)


def test_the_fingerprint_depends_on_the_file(tmp_path: Path) -> None:
    prints = set()
    for number in range(2):
        path = write_onnx(tmp_path / f"{number}.onnx", exported(TinySegmenter()))
        prints |= {load_task_expert(path).fingerprint(), load_task_expert(path).fingerprint()}
    assert len(prints) == 2


def test_the_fingerprint_depends_on_the_card(tmp_path: Path) -> None:
    model, prints = exported(TinySegmenter()), []
    for card in ({}, {"name": "other"}, {"channel_order": "bgr"}, {"scale": 255.0}, {"fit": "letterbox"}):
        path = write_onnx(tmp_path / "net.onnx", model, card)
        prints.append(load_task_expert(path).fingerprint())
    assert prints[0] == prints[1]  # the name is for people
    assert len(set(prints)) == 4


def _timm_like() -> nn.Module:
    def layer(a: int, b: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, groups=1), nn.BatchNorm2d(b), nn.Hardswish())

    return nn.Sequential(layer(3, 8), layer(8, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


def _transformer(maker: Callable[[Any], tuple[Any, Any]]) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="needs gosvae[huggingface]")
    config, model = maker(transformers)

    class Plain(nn.Module):
        """Answers with the tensors alone."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model(config)
            for parameter in self.model.parameters():  # Freshly initialised, deep networks answer almost nothing.
                if parameter.ndim > 1:
                    nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            outputs = self.model(pixel_values=x)
            names = ("logits", "pred_boxes", "predicted_depth", "last_hidden_state")
            return tuple(outputs[name] for name in names if name in outputs)

    return Plain()


def _segformer(t: Any) -> tuple[Any, Any]:
    sizes = {"depths": [1] * 4, "hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
    return t.SegformerConfig(**sizes), t.SegformerForSemanticSegmentation


def _yolos(t: Any) -> tuple[Any, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return t.YolosConfig(**sizes, image_size=[64, 64], num_detection_tokens=6), t.YolosForObjectDetection


def _dpt(t: Any) -> tuple[Any, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    more = {"image_size": 64, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4}
    return t.DPTConfig(**sizes, **more, fusion_hidden_size=8, is_hybrid=False), t.DPTForDepthEstimation


def _depth_anything(t: Any) -> tuple[Any, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    backbone = t.Dinov2Config(
        **sizes, image_size=56, patch_size=14, out_indices=[1, 2, 3, 4], reshape_hidden_states=False
    )
    config = t.DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip
    return config, t.DepthAnythingForDepthEstimation


def _dinov2(t: Any) -> tuple[Any, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return t.Dinov2Config(**sizes, image_size=64, patch_size=8), t.Dinov2Model


def _mobilevit(t: Any) -> tuple[Any, Any]:
    sizes = {"hidden_sizes": [16] * 3, "neck_hidden_sizes": [16] * 7, "num_attention_heads": 2}
    aspp = {"aspp_out_channels": 16, "atrous_rates": [1, 2, 3]}
    return t.MobileViTConfig(**sizes, **aspp), t.MobileViTForSemanticSegmentation


def _resnet_detr(t: Any) -> tuple[Any, Any]:
    backbone = t.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1] * 4, out_features=["stage4"], layer_type="basic"
    )
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    feed = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    config = t.DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        **sizes, **heads, **feed,
    )  # fmt: skip
    return config, t.DetrForObjectDetection


MADE = [
    ("convolutions", 11, _timm_like),
    ("segmenter", 13, TinySegmenter),
    *(
        (maker.__name__.strip("_"), opset, lambda maker=maker: _transformer(maker))
        for maker, opset in (
            (_segformer, 17), (_yolos, 14), (_dpt, 16), (_depth_anything, 18), (_dinov2, 17), (_mobilevit, 12),
            (_resnet_detr, 16),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "opset", "maker"), MADE, ids=[name for name, _, _ in MADE])
def test_exported_networks_answer_as_onnx_runtime_and_have_gradients(
    tmp_path: Path, name: str, opset: int, maker: Callable[[], nn.Module]
) -> None:
    side = 56 if name == "depth_anything" else 64
    path = write_onnx(tmp_path / f"{name}.onnx", exported(maker(), height=side, width=side, opset=opset))
    expert = load_task_expert(path)
    assert len(expert.fingerprint()) == 64
    x = torch.rand(2, 3, side, side, requires_grad=True)
    found = expert(x)
    with torch.inference_mode():
        expected = [RuntimeNetwork(onnx.load(path))(each) for each in x.detach().split(1)]
    assert compare(found, [torch.cat(rows) for rows in zip(*expected, strict=True)]).difference < runtime.SAME
    sum((y * torch.randn_like(y)).sum() for y in found).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["*_det_*.onnx", "*_cls_*.onnx"], ids=["finds text", "turns text"])
def test_networks_of_paddlepaddle_load(name: str) -> None:
    found = importlib.util.find_spec("rapidocr")
    if found is None or found.origin is None:
        pytest.skip("needs rapidocr, whose files of PaddlePaddle are read")
    (path, *_) = sorted((Path(found.origin).parent / "models").glob(name))
    expert = load_task_expert(path)
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    sum(y.sum() for y in expert(x)).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_an_output_that_is_not_of_images_is_named(tmp_path: Path) -> None:
    node = onnx.helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0)
    path = write_onnx(tmp_path / "net.onnx", graph_model([node], {"x": [2, 3, 8, 8]}, ["mean"]))
    with pytest.raises(ExpertError, match=r"its output 'mean' is \(\), expected 2 images first"):
        load_task_expert(path)
