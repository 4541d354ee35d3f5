"""Small models, data and judges that train in milliseconds: what tests of training, recipes and commands share."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gosvae.codecs.autoencoder_model import AutoencoderModelConfig, ScalarAutoencoder
from gosvae.codecs.cards import AutoencoderCard, VariableRateCard, VqCard
from gosvae.codecs.checkpoint import CodecCheckpoint, half_weights
from gosvae.codecs.classical import load_classical
from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.sequence.encoder import SequenceOptions
from gosvae.codecs.temporal_model import TemporalCard, TemporalModel
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.variable_model import VariableRateAutoencoder, VariableRateConfig
from gosvae.codecs.vq_model import VqAutoencoder, VqModelConfig
from gosvae.config import parse
from gosvae.datasets.geometry import GeometryConfig, Prepared
from gosvae.datasets.streets import Streets
from gosvae.entropy.temporal_network import ACTIVITIES, TemporalConfig, TemporalContextNetwork
from gosvae.errors import MissingDependencyError
from gosvae.experts.base import DenseBoxes, ExpertInfo, NetworkExpert, TaskExpert
from gosvae.experts.compact import random_compact_expert
from gosvae.losses.backbones import FeatureNetwork
from gosvae.losses.perceptual import PerceptualLoss
from gosvae.nn.blocks import Residual
from gosvae.nn.pyramid import Modulation
from gosvae.seeding import seed_everything
from gosvae.tensors import image_to_tensor
from gosvae.training.machine.config import RunConfig
from gosvae.training.variable import VariableRateRecipe
from gosvae.training.vq import VqRecipe

QUANTIZERS: dict[str, dict[str, Any]] = {
    "vq": {"kind": "vq", "codebook_size": 16, "code_dim": 4},
    "vq-ema": {"kind": "vq-ema", "codebook_size": 16, "code_dim": 4},
    "fsq": {"kind": "fsq", "levels": [4, 4]},
}


@cache
def streets(count: int = 4) -> Prepared:
    """Scenes of 64x96 pixels, drawn once."""
    return Prepared(Streets(count, seed=7, height=64, width=96), GeometryConfig(), cache_bytes=2**20)


def expert() -> NetworkExpert:
    """An untrained expert for the classes of `streets`, the same at every call."""
    seed_everything(11)
    return random_compact_expert(streets().class_names, height=64, width=96)


TASK_INFO = ExpertInfo("tiny", ("person", "car", "bus"), 32, 48)


class TaskNetwork(TaskExpert):
    """An untrained convolution whose output has the layout of a task."""

    def __init__(self, task: str) -> None:
        super().__init__(TASK_INFO)
        self.task = task
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.layer = nn.Conv2d(3, 8, 8, stride=8)
        self.freeze()

    def dense(self, x_B3HW: Tensor) -> Any:
        y = self.layer(x_B3HW)
        if self.task == "detection":
            cells = y.flatten(2).transpose(1, 2)
            centre, size = cells[..., :2].sigmoid(), 0.1 + 0.4 * cells[..., 2:4].sigmoid()
            corners = torch.cat([centre - size / 2, centre + size / 2], dim=-1)
            return DenseBoxes((8 * cells[..., 4]).sigmoid(), (8 * cells[..., 5:8]).sigmoid(), corners)
        if self.task == "depth":
            return y[:, :1].exp()
        if self.task == "features":
            return y, y.mean(dim=(2, 3))
        return y[:, :3]


def perceptual(seed: int = 12) -> PerceptualLoss:
    """A stand-in for LPIPS: the features of one random convolution."""
    seed_everything(seed)
    network = FeatureNetwork([nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()], taps=(1,), channels=(4,), min_side=1)
    return PerceptualLoss("tiny", network, [torch.ones(4)])


def autoencoder(**more: Any) -> dict[str, Any]:
    """Settings of a small autoencoder, shallow and of stride 4 unless said otherwise."""
    return {"stride": 4, "width": 8, "hidden_width": 4, "blocks": 1, **more}


def model_config(quantizer: str = "vq", **more: Any) -> VqModelConfig:
    """A small model with one of `QUANTIZERS`."""
    return parse(VqModelConfig, {"autoencoder": autoencoder(**more), "quantizer": QUANTIZERS[quantizer]})


def checkpoint(model: VqModelConfig | None = None, *, seed: int = 0, name: str = "tiny") -> CodecCheckpoint:
    """A codec with random weights that uses many of its codes."""
    model = model or model_config()
    seed_everything(seed)
    network = VqAutoencoder(model)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Residual):  # these start as the identity: let them do something
                module.second.weight.normal_(std=0.1)
        last = network.encoder.network.get_submodule("to_latent")
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        z_BDhw = network.encoder(image_to_tensor(streets()[0].image_uint8_HW3))
        mean_D, deviation_D = z_BDhw.mean(dim=(0, 2, 3)), z_BDhw.std(dim=(0, 2, 3))
        last.weight.div_(deviation_D.view(-1, 1, 1, 1))
        last.bias.sub_(mean_D).div_(deviation_D)
        if "codebook_KD" in network.quantizer.state_dict():
            network.quantizer.state_dict()["codebook_KD"].normal_()
    counts_K = torch.randint(1, 1000, (network.quantizer.codebook_size,))
    card = VqCard(name=name, recipe="none", model=model)
    return CodecCheckpoint(card, half_weights(network.state_dict()), counts_K, {"dataset": "none"})


def recipe_tree(quantizer: str = "vq", *, steps: tuple[int, int] = (4, 3)) -> dict[str, Any]:
    """Two short stages, pixels and imitation, as they stand in a recipe's file."""
    own = {} if quantizer == "fsq" else {"commitment": 0.25} | ({"codebook": 1.0} if quantizer == "vq" else {})
    common = {"learning_rate": 0.01, "warmup_steps": 2, "ema_decay": 0.5}
    batches = {"batch_size": 2, "crop_height": 32, "crop_width": 48}
    return {
        "name": "tiny",
        "description": "for tests",
        "model": {"autoencoder": autoencoder(), "quantizer": QUANTIZERS[quantizer]},
        "stages": [
            {"name": "pixels", "weights": {"mse": 1.0, **own}, "steps": steps[0], "batches": batches, **common},
            {
                "name": "imitation",
                "weights": {"mse": 1.0, "lpips": 1.0, "jsd": 1.0, **own},
                "steps": steps[1],
                "ramp_steps": 2,
                "batches": batches,
                **common,
            },
        ],
    }


def recipe(quantizer: str = "vq", *, steps: tuple[int, int] = (4, 3)) -> VqRecipe:
    """The recipe of `recipe_tree`."""
    return parse(VqRecipe, recipe_tree(quantizer, steps=steps))


def run_config(**more: Any) -> RunConfig:
    """On the CPU, every step logged, no TensorBoard."""
    defaults = {"accelerator": "cpu", "precision": "32", "log_steps": 1, "tensorboard": False}
    return parse(RunConfig, {**defaults, **more})


def scalar_checkpoint(*, seed: int = 0, name: str = "tiny-autoencoder", **model: Any) -> CodecCheckpoint:
    """A plain autoencoder with random weights; the tables are broad bells."""
    settings = {"autoencoder": autoencoder(stride=8), "latent_channels": 3, "fine_levels": 20, "step": 4, **model}
    config = parse(AutoencoderModelConfig, settings)
    seed_everything(seed)
    network = ScalarAutoencoder(config)
    fine_F = torch.arange(config.largest_step) - config.fine_levels
    widths_D1 = torch.arange(1, config.latent_channels + 1).unsqueeze(1) * config.fine_levels
    counts_DF = 10000 // (1 + fine_F**2 // widths_D1) ** 2 + 1
    card = AutoencoderCard(name=name, recipe="none", model=config)
    return CodecCheckpoint(card, half_weights(network.state_dict()), counts_DF, {"dataset": "none"})


def variable_config(**more: Any) -> VariableRateConfig:
    """A small variable-rate model of stride 16."""
    pyramid = {"encoder_widths": [8, 8, 8], "decoder_widths": [8, 8, 8], "encoder_blocks": [1, 0, 1]}
    pyramid |= {"decoder_blocks": [1, 0, 1]}
    context = {"channels": 8, "group": 4, "bound": 3, "anchors": 3, "embedding_width": 8, "width": 16}
    return parse(VariableRateConfig, {"pyramid": pyramid, "context": {**context, "taps": [4, 6, 8]}, **more})


def variable_recipe(**more: Any) -> VariableRateRecipe:
    """One short stage of rate and task together, for the model of `variable_config`."""
    weights = {"mse": 3.0, "lpips": 1.0, "jsd": 1.0, "features": 0.5, "rate": 1.0, "bits": 1.0}
    stage = {"name": "joint", "weights": weights, "steps": 4, "learning_rate": 0.01, "warmup_steps": 1}
    stage |= {"ema_decay": 0.5, "batches": {"batch_size": 2, "crop_height": 48, "crop_width": 64}}
    tree = {"name": "tiny-variable", "description": "for tests", "model": variable_config().model_dump()}
    return parse(VariableRateRecipe, {**tree, "balance_classes": True, "stages": [stage], **more})


def variable_checkpoint(
    *, seed: int = 0, name: str = "tiny-variable", config: VariableRateConfig | None = None
) -> CodecCheckpoint:
    """A variable-rate codec with random weights; its integers differ from place to place."""
    config = config or variable_config()
    seed_everything(seed)
    network = VariableRateAutoencoder(config)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Residual):
                module.second.weight.normal_(std=0.1)
            if isinstance(module, Modulation):
                module.linear.weight.normal_(std=0.3)
        network.encoder.to_latent.weight.mul_(4.0)
    weights = {k: v for k, v in network.state_dict().items() if not k.startswith("context.")}
    card = VariableRateCard(name=name, recipe="none", model=config)
    nothing = torch.ones(0, dtype=torch.int64)
    return CodecCheckpoint(card, half_weights(weights), nothing, {"dataset": "none"}, network.context.freeze())


@cache
def has_vvc() -> bool:
    """Whether the command ffmpeg is on the path and brings VVenC."""
    try:
        load_classical("vvc", 0).compress(np.zeros((64, 64, 3), np.uint8))
    except MissingDependencyError:
        return False
    return True


def temporal_model(codec: VariableRateCodec) -> TemporalModel:
    """A temporal model whose symbols stay as they are most of the time."""
    context = codec.config.context
    config = TemporalConfig(context=context, taps=5)
    network = TemporalContextNetwork(config)
    network.start_from(codec.checkpoint.context)
    values = torch.arange(context.values)
    same = (values[:, None] == values).float()
    with torch.no_grad():
        network.direct.copy_(8.0 * same.repeat(len(network.direct) // context.values, 1))
    counts = (1000 * same).to(torch.uint16).expand(ACTIVITIES, context.channels, -1, -1).contiguous()
    card = TemporalCard(codec=codec.checkpoint.fingerprint().hex(), model=config)
    return TemporalModel(card, network.freeze(), counts, {"dataset": "none"})


def sequence_codec(**options: Any) -> SequenceCodec:
    """A video codec with random weights."""
    codec = VariableRateCodec(variable_checkpoint())
    return SequenceCodec(codec, temporal_model(codec), SequenceOptions(**options))
