"""Detectors and depth networks of `transformers` as experts, with small random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("transformers", reason="needs gosvae[huggingface]")

from gosvae.errors import ExpertError
from gosvae.experts.registry import load_expert, load_task_expert
from gosvae.tasks.registry import load_task

SIDE = 64
LABELS: dict[str, Any] = {"id2label": {0: "person", 1: "car", 2: "bus"}, "label2id": {"person": 0, "car": 1, "bus": 2}}
TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}


def _yolos() -> tuple[nn.Module, Any]:
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessorPil

    config = YolosConfig(**TRANSFORMER, image_size=[SIDE, SIDE], num_detection_tokens=6, **LABELS)
    return YolosForObjectDetection(config), YolosImageProcessorPil


def _deformable() -> tuple[nn.Module, Any]:
    from transformers import DetrImageProcessorPil, RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    stages = ["stage2", "stage3", "stage4"]
    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1] * 4, out_features=stages, layer_type="basic"
    )
    sizes = {"d_model": 16, "encoder_hidden_dim": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 5}
    config = RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[8, 8, 16], feat_strides=[8, 16, 32], decoder_layers=1,
        decoder_in_channels=[16] * 3, encoder_attention_heads=2, decoder_attention_heads=2, **sizes, **LABELS,
    )  # fmt: skip
    return RTDetrForObjectDetection(config), DetrImageProcessorPil


def _dpt() -> tuple[nn.Module, Any]:
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessorPil

    more = {"image_size": SIDE, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4}
    config = DPTConfig(**TRANSFORMER, **more, fusion_hidden_size=8, is_hybrid=False)
    return DPTForDepthEstimation(config), DPTImageProcessorPil


def _depth_anything() -> tuple[nn.Module, Any]:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil

    backbone = Dinov2Config(
        **TRANSFORMER, image_size=56, patch_size=14, out_indices=[1, 2, 3, 4], reshape_hidden_states=False
    )
    config = DepthAnythingConfig(
        backbone_config=backbone, patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8, head_hidden_size=8,
    )  # fmt: skip
    return DepthAnythingForDepthEstimation(config), DPTImageProcessorPil


MODELS = {"yolos": _yolos, "rt-detr": _deformable, "dpt": _dpt, "depth-anything": _depth_anything}


@pytest.fixture(scope="module", params=list(MODELS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network, processor = MODELS[request.param]()
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
            elif name.endswith("head.head.4.bias") or name.endswith("head.conv3.bias"):
                nn.init.constant_(parameter, 1.0)  # of the last layer, before ReLU
    network.save_pretrained(folder)
    side = 56 if request.param == "depth-anything" else SIDE
    processor(size={"height": side, "width": side}).save_pretrained(folder)
    return folder


def test_the_expert_answers_for_its_task_with_gradients(folder: Path) -> None:
    expert = load_task_expert(folder)
    task = load_task(expert)
    x = torch.rand(2, 3, 48, 80, requires_grad=True)
    output, other = expert(x), expert(torch.rand(2, 3, 48, 80))
    detects = folder.name.startswith(("yolos", "rt-detr"))
    assert task.name == ("detection" if detects else "depth")
    assert expert.info.class_names == (("person", "car", "bus") if detects else ())
    assert len(task.results(output)) == 2
    task.distance(other, output).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    picture = task.draw(np.zeros((48, 80, 3), np.uint8), task.results(output)[0])
    assert picture.shape == (48, 80, 3)


def test_the_boxes_are_those_of_the_library(folder: Path) -> None:
    expert = load_task_expert(folder)
    if expert.task != "detection":
        pytest.skip("gives no boxes")
    x = torch.rand(1, 3, SIDE, SIDE)
    output = expert(x)
    raw = expert.run(x)
    softmax = raw.logits.shape[-1] == 4
    expected = raw.logits.softmax(-1)[..., :-1] if softmax else raw.logits.sigmoid()
    torch.testing.assert_close(output.objectness_BN[..., None] * output.classes_BNm, expected, atol=1e-5, rtol=1e-4)
    centre, size = raw.pred_boxes[..., :2], raw.pred_boxes[..., 2:]
    torch.testing.assert_close(output.corners_BN4, torch.cat([centre - size / 2, centre + size / 2], -1))


def test_a_segmentation_expert_is_asked_for(folder: Path) -> None:
    with pytest.raises(ExpertError, match=r"has the task .* an expert of segmentation is needed here"):
        load_expert(folder)
