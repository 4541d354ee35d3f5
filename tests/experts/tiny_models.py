"""Tiny segmentation models with random weights, saved as `transformers` or `gosvae train-expert` saves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from gosvae.config import to_tree
from gosvae.experts.trained import ExpertCard, build_network
from gosvae.experts.unet import UNetConfig

CLASS_NAMES = ("road", "sky", "tree", "car")
LABELS: dict[str, Any] = {
    "id2label": dict(enumerate(CLASS_NAMES)),
    "label2id": {name: i for i, name in enumerate(CLASS_NAMES)},
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEIGHT, WIDTH = 64, 96
"""What the image processors of the tiny models resize to."""
TRANSFORMERS_KINDS = ("mask2former", "oneformer", "segformer", "upernet")


def _swin() -> Any:
    from transformers import SwinConfig

    stages = ["stage1", "stage2", "stage3", "stage4"]
    return SwinConfig(embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, out_features=stages)


_QUERIES: dict[str, Any] = {
    "hidden_dim": 32,
    "encoder_feedforward_dim": 16,
    "dim_feedforward": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "num_queries": 6,
}


def _oneformer() -> tuple[nn.Module, Any]:
    from transformers import OneFormerConfig, OneFormerForUniversalSegmentation, OneFormerImageProcessorPil

    text = {"text_encoder_width": 16, "text_encoder_num_layers": 1, "task_seq_len": 12}
    config = OneFormerConfig(backbone_config=_swin(), conv_dim=32, mask_dim=32, **text, **_QUERIES, **LABELS)
    return OneFormerForUniversalSegmentation(config), OneFormerImageProcessorPil


def _mask2former() -> tuple[nn.Module, Any]:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessorPil

    config = Mask2FormerConfig(backbone_config=_swin(), feature_size=32, mask_feature_size=32, **_QUERIES, **LABELS)
    return Mask2FormerForUniversalSegmentation(config), Mask2FormerImageProcessorPil


def _segformer() -> tuple[nn.Module, Any]:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessorPil

    shape = {"depths": [1] * 4, "hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
    return SegformerForSemanticSegmentation(SegformerConfig(**shape, **LABELS)), SegformerImageProcessorPil


def _upernet() -> tuple[nn.Module, Any]:
    from transformers import ConvNextConfig, SegformerImageProcessorPil, UperNetConfig, UperNetForSemanticSegmentation

    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, out_features=stages)
    head = {"hidden_size": 8, "auxiliary_in_channels": 8, "auxiliary_channels": 8, "pool_scales": [1, 2]}
    config = UperNetConfig(backbone_config=backbone, **head, **LABELS)
    return UperNetForSemanticSegmentation(config), SegformerImageProcessorPil


def _mobilevit() -> tuple[nn.Module, Any]:
    from transformers import MobileViTConfig, MobileViTForSemanticSegmentation, MobileViTImageProcessorPil

    shape = {"hidden_sizes": [16] * 3, "neck_hidden_sizes": [16] * 7, "num_attention_heads": 2}
    aspp = {"aspp_out_channels": 32, "atrous_rates": [1, 2, 3]}
    return MobileViTForSemanticSegmentation(MobileViTConfig(**shape, **aspp, **LABELS)), MobileViTImageProcessorPil


_MAKERS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "mask2former": _mask2former,
    "mobilevit": _mobilevit,
    "oneformer": _oneformer,
    "segformer": _segformer,
    "upernet": _upernet,
}


def save_tiny_transformer(kind: str, folder: Path, *, seed: int = 3) -> Path:
    """Make a tiny model with its image processor (and tokenizer) and save all of it to a folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, processor_type = _MAKERS[kind]()
    _randomise(network)
    network.save_pretrained(folder)
    processor_type(
        size={"height": HEIGHT, "width": WIDTH}, crop_size={"height": HEIGHT, "width": WIDTH}
    ).save_pretrained(folder)
    if kind == "oneformer":
        _save_clip_tokenizer(folder)
        _point_to_another_machine(folder / "preprocessor_config.json")
    return folder


def save_tiny_unet(folder: Path) -> Path:
    """Save a small U-Net with random weights as `gosvae train-expert` does."""
    config = UNetConfig(widths=(8, 8, 8, 8), blocks=(1, 1, 1), class_count=len(CLASS_NAMES))
    card = ExpertCard(name="tiny-unet", class_names=CLASS_NAMES, input_height=32, input_width=64, network=config)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_tree(card)), encoding="utf-8")
    save_file(build_network(config).state_dict(), folder / "weights.safetensors")
    return folder


def _randomise(network: nn.Module) -> None:
    """Weights so large that maps have shapes in them: freshly initialised networks answer one class everywhere."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # What makes the queries of a network differ: their features and what is predicted from them.
            gain = 20.0 if "class" in name else 4.0 if any(part in name for part in ("quer", "mask_embed")) else 1.0
            scale = 0.7 / max(parameter[0].numel(), 1) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.add_(torch.randn(parameter.shape, generator=generator) * gain * scale)
        _balance_classes(network.eval(), generator)


def _balance_classes(network: nn.Module, generator: torch.Generator) -> None:
    """Shift the classes of a query network until no class wins everywhere."""
    biases = [
        p for name, p in network.named_parameters() if name.endswith(("class_predictor.bias", "class_embed.bias"))
    ]
    if biases:
        task = {"task_inputs": torch.arange(12)[None]} if hasattr(network.config, "task_seq_len") else {}
        outputs = network(pixel_values=torch.randn(1, 3, HEIGHT, WIDTH, generator=generator), **task)
        biases[-1].sub_(outputs.class_queries_logits.mean(dim=(0, 1)))


def _save_clip_tokenizer(folder: Path) -> None:
    from transformers import CLIPTokenizer

    words = ["the</w>", "task</w>", "is</w>", "semantic</w>", "<|startoftext|>", "<|endoftext|>"]
    letters = sorted({letter for word in words[:4] for letter in word.removesuffix("</w>")})
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *words]
    CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]).save_pretrained(folder)


def _point_to_another_machine(path: Path) -> None:
    """What `OneFormerProcessor` saves: a class file under an absolute path that exists elsewhere only."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    tree |= {"repo_path": str(Path("/", "elsewhere", "models")), "class_info_file": "cityscapes_panoptic.json"}
    path.write_text(json.dumps(tree), encoding="utf-8")


class TinySegmenter(nn.Module):
    """A convolutional network that answers at a quarter of the size."""

    def __init__(self, class_count: int = len(CLASS_NAMES)) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 5, stride=4, padding=2)
        self.head = nn.Conv2d(8, class_count, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.features(x)))


def write_card(network_path: Path, **changes: Any) -> Path:
    """Write the JSON beside an exported network; a change to None leaves the key out."""
    card = {"class_names": CLASS_NAMES, "input_height": 32, "input_width": 64, "mean": MEAN, "std": STD} | changes
    path = network_path.with_suffix(".json")
    path.write_text(json.dumps({k: v for k, v in card.items() if v is not None}), encoding="utf-8")
    return path
