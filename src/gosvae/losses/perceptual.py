"""Learned perceptual distances: LPIPS v0.1 (Zhang et al. 2018) and its shift-tolerant variant (Ghildyal and Liu 2022).

Weights are not part of this package. They are searched for, in this order, in a folder (argument `weights`, else the
environment variable GOSVAE_WEIGHTS), in PyTorch's hub cache, and in installed packages (torchmetrics has the heads of
LPIPS v0.1, stlpips-pytorch all of ST-LPIPS). Only `load_perceptual` downloads, from torchvision's address.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from gosvae.errors import ConfigError, MissingDependencyError, ShapeError, unknown_name
from gosvae.losses.backbones import (
    FeatureNetwork,
    shift_tolerant_alexnet,
    shift_tolerant_vgg16,
    squeezenet1_1,
    vgg16,
)
from gosvae.tensors import check_layout

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class _Source:
    """Source of the weights of a loss.

    Attributes:
        network: function that builds the feature network.
        trunk_files, head_files: names of files in a folder of weights; the first trunk file may be in the hub cache.
        package, packaged_heads, packaged_trunk: package that contains weights, and their paths in it.
        url: address of the first trunk file, whose name ends with the start of its SHA-256.
        advice: text that says how to get missing weights, with the place of the folder of weights.
    """

    network: Callable[[], FeatureNetwork]
    trunk_files: tuple[str, ...]
    head_files: tuple[str, ...]
    package: str
    packaged_heads: str
    packaged_trunk: str | None
    url: str | None
    advice: str


_SOURCES = {
    "lpips-vgg16": _Source(
        network=vgg16,
        trunk_files=("vgg16-397923af.pth",),
        head_files=("lpips_v0.1_vgg_heads.pth",),
        package="torchmetrics",
        packaged_heads="functional/image/lpips_models/vgg.pth",
        packaged_trunk=None,
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        advice="put torchvision's vgg16-397923af.pth into {folder}, and pip install torchmetrics",
    ),
    "lpips-squeeze": _Source(
        network=squeezenet1_1,
        trunk_files=("squeezenet1_1-b8a52dc0.pth", "squeezenet1_1_features.pth"),
        head_files=("lpips_v0.1_squeeze_heads.pth",),
        package="torchmetrics",
        packaged_heads="functional/image/lpips_models/squeeze.pth",
        packaged_trunk=None,
        url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        advice="put torchvision's squeezenet1_1-b8a52dc0.pth into {folder}, and pip install torchmetrics",
    ),
    "stlpips-vgg16": _Source(
        network=shift_tolerant_vgg16,
        trunk_files=("vgg_shift_tolerant.pth",),
        head_files=("vgg_shift_tolerant.pth",),
        package="stlpips_pytorch",
        packaged_heads="weights/vST0.0/vgg_shift_tolerant.pth",
        packaged_trunk="weights/vST0.0/vgg_shift_tolerant.pth",
        url=None,
        advice="pip install --no-deps stlpips-pytorch==0.0.2",
    ),
    "stlpips-alex": _Source(
        network=shift_tolerant_alexnet,
        trunk_files=("alex_shift_tolerant.pth",),
        head_files=("alex_shift_tolerant.pth",),
        package="stlpips_pytorch",
        packaged_heads="weights/vST0.0/alex_shift_tolerant.pth",
        packaged_trunk="weights/vST0.0/alex_shift_tolerant.pth",
        url=None,
        advice="pip install --no-deps stlpips-pytorch==0.0.2",
    ),
}
PERCEPTUAL_NAMES = tuple(_SOURCES)
"""Names of the losses, the paper's first; tables show these names."""


class PerceptualLoss(nn.Module):
    """Distance of deep features: unit-normalised over channels, squared difference, weighted, mean over positions.

    It is frozen: it stays in evaluation mode, and its weights never require gradients. Gradients flow to the images.
    """

    shift_1311: Tensor
    scale_1311: Tensor

    def __init__(self, name: str, network: FeatureNetwork, heads: list[Tensor]) -> None:
        super().__init__()
        self.name = name
        self.network = network
        # (x - shift) / scale is LPIPS v0.1's normalisation of [-1, 1]; here it starts from [0, 1].
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        self.register_buffer("shift_1311", ((shift + 1) / 2).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale_1311", (scale / 2).view(1, 3, 1, 1), persistent=False)
        self.heads = nn.ParameterList(nn.Parameter(head.detach().reshape(1, -1, 1, 1)) for head in heads)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Stay in evaluation mode, whatever `mode` is."""
        del mode
        return super().train(False)

    def _features(self, x_B3HW: Tensor) -> list[Tensor]:
        features = []
        for f in self.network((x_B3HW - self.shift_1311) / self.scale_1311):
            f = f.float()
            # The bound keeps the gradient finite where all channels are 0.
            features.append(f * f.square().sum(dim=1, keepdim=True).add(1e-10).rsqrt())
        return features

    def forward(self, x_B3HW: Tensor, x_hat_B3HW: Tensor) -> Tensor:
        """Return the distances (B,), about 0 to 1, of images (B, 3, H, W) in [0, 1].

        Raises:
            ShapeError: the shapes differ, the images are not RGB, or a side is too short (below 16 to 18 pixels).
        """
        check_layout(x_B3HW, "(B, 3, H, W)", axis_1=3)
        if x_B3HW.shape != x_hat_B3HW.shape:
            raise ShapeError(f"expected a reconstruction of shape {tuple(x_B3HW.shape)}", got=x_hat_B3HW.shape)
        if min(x_B3HW.shape[-2:]) < self.network.min_side:
            raise ShapeError(
                f"{self.name} needs images of at least {self.network.min_side} pixels a side", x_B3HW.shape
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and x_B3HW.requires_grad):
            features = self._features(x_B3HW)
        features_hat = self._features(x_hat_B3HW)
        with torch.autocast(x_hat_B3HW.device.type, enabled=False):
            levels = zip(self.heads, features, features_hat, strict=True)
            distances = [((f - g).square() * head).sum(dim=1).mean(dim=(1, 2)) for head, f, g in levels]
            return torch.stack(distances).sum(dim=0)


def _source(name: str) -> _Source:
    if name not in _SOURCES:
        raise ConfigError(unknown_name("perceptual loss", name, _SOURCES))
    return _SOURCES[name]


def _folder(weights: Path | None) -> Path | None:
    from_environment = os.environ.get("GOSVAE_WEIGHTS")
    return weights if weights is not None else Path(from_environment) if from_environment else None


def _packaged(package: str, path: str) -> Path | None:
    """Return a file of an installed package, without importing the package, which may need torchvision."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    return None


def _find(source: _Source, weights: Path | None) -> tuple[Path | None, Path | None]:
    """Return the files of trunk and heads, None for a file that is not found."""
    folder = _folder(weights)
    trunks = [folder / name for name in source.trunk_files] if folder else []
    heads = [folder / name for name in source.head_files] if folder else []
    if source.url:
        trunks.append(Path(torch.hub.get_dir()) / "checkpoints" / source.trunk_files[0])
    trunk = next((path for path in trunks if path.is_file()), None)
    head = next((path for path in heads if path.is_file()), None)
    if trunk is None and source.packaged_trunk:
        trunk = _packaged(source.package, source.packaged_trunk)
    return trunk, head or _packaged(source.package, source.packaged_heads)


def _read(path: Path) -> StateDict:
    try:
        state: StateDict = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise MissingDependencyError(f"{path} is not a PyTorch weight file ({line}): get it again") from None
    return state


def _advice(source: _Source, weights: Path | None) -> str:
    """Return how to get missing weights, with the folder that is searched for them."""
    return source.advice.format(folder=weights or "the folder GOSVAE_WEIGHTS")


def _download(name: str, source: _Source, advice: str) -> StateDict:
    if source.url is None:
        raise MissingDependencyError(f"no weights for {name}: {advice}")
    try:
        state: StateDict = torch.hub.load_state_dict_from_url(
            source.url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise MissingDependencyError(f"cannot download {source.url} ({reason}): {advice}") from None
    return state


def _trunk_state(state: StateDict) -> StateDict:
    """Return the weights with keys by position; files have torchvision's model, its `features` or ST-LPIPS's slices."""
    position = re.compile(r"^(?:features\.|net\.slice\d+\.)?(\d+\..+)$")
    matches = {key: position.match(key) for key in state}
    return {match.group(1): state[key].float() for key, match in matches.items() if match}


def _heads(state: StateDict) -> list[Tensor]:
    keys = [key for key in state if re.fullmatch(r"lin\d+\.model\.\d+\.weight", key)]
    return [state[key].float() for key in sorted(keys)]


def load_perceptual(name: str, weights: Path | None = None) -> PerceptualLoss:
    """Return a frozen perceptual loss: `lpips-vgg16` (the paper's), `lpips-squeeze`, `stlpips-vgg16`, `stlpips-alex`.

    Args:
        name: name of the loss.
        weights: folder with weight files; default the environment variable GOSVAE_WEIGHTS. Weights that are neither
            there nor installed are downloaded from torchvision's address and checked against the SHA-256 prefix in the
            name of the file.

    Raises:
        ConfigError: an unknown name.
        MissingDependencyError: the weights are not found, or do not fit; the message says how to get them.
    """
    source = _source(name)
    trunk_path, heads_path = _find(source, weights)
    advice = _advice(source, weights)
    if heads_path is None:
        raise MissingDependencyError(f"no LPIPS heads for {name}: {advice}")
    heads = _heads(_read(heads_path))
    with torch.device("meta"):  # no random weights: they take time and advance the global generator
        network = source.network()
    if [head.numel() for head in heads] != list(network.channels):
        raise MissingDependencyError(f"{heads_path} does not hold the LPIPS heads for {name}: {advice}")
    trunk = _read(trunk_path) if trunk_path else _download(name, source, advice)
    try:
        network.layers.load_state_dict(_trunk_state(trunk), assign=True)
    except RuntimeError:
        where = trunk_path or source.url
        raise MissingDependencyError(f"{where} does not hold the network of {name}: {advice}") from None
    return PerceptualLoss(name, network, heads)


def perceptual_place(name: str, weights: Path | None = None) -> str:
    """Return where the weights of a perceptual loss come from: a file, or the address of the download."""
    source = _source(name)
    return str(_find(source, weights)[0] or source.url)


def available_perceptual(weights: Path | None = None) -> list[str]:
    """Return the names that `load_perceptual` can load without a download, the preferred one first."""
    return [name for name, source in _SOURCES.items() if None not in _find(source, weights)]


def default_perceptual(weights: Path | None = None) -> str:
    """Return the preferred name that needs no download: `lpips-vgg16`, else `lpips-squeeze`, else `stlpips-vgg16`.

    Raises:
        MissingDependencyError: every loss needs a download.
    """
    names = available_perceptual(weights)
    if not names:
        raise MissingDependencyError(f"no weights for a perceptual loss: {_SOURCES['stlpips-vgg16'].advice}")
    return names[0]
