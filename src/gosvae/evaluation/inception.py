"""Inception network of the FID: its published files by their SHA-256, and its layers.

The network is Inception-v3 (Szegedy et al. 2015, "Rethinking the Inception Architecture") as TensorFlow published it in
December 2015, up to the average pooling. It differs from other Inception-v3 networks in small ways: averages in the
pooling branches leave the padding out, and the last block takes a maximum.

Axis legend: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.errors import MissingDependencyError

SIDE = 299
"""Height and width in pixels that the network resizes every image to."""
FEATURES = 2048
TORCHSCRIPT_FILE = "inception-2015-12-05.pt"
STATE_FILES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
"""Names that pytorch-fid and torch-fidelity give to one file with the weights."""
INCEPTION_FILES = (TORCHSCRIPT_FILE, *STATE_FILES)
"""Names of files in the order in which they are looked for."""

PUBLISHED: Mapping[str, str] = MappingProxyType(
    {
        "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4": "NVIDIA's StyleGAN2-ADA and StyleGAN3",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2": "pytorch-fid and torch-fidelity",
    }
)
"""Publishers of the network by the SHA-256 of its file."""


def find_inception(folder: Path) -> Path | None:
    """Return the first of `INCEPTION_FILES` in a folder, else in PyTorch's hub cache; None if there is none."""
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    places = [folder / name for name in INCEPTION_FILES] + [cache / name for name in STATE_FILES]
    return next((path for path in places if path.is_file()), None)


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hexadecimal) of a file.

    Raises:
        MissingDependencyError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise MissingDependencyError(f"cannot read {path}: {error.strerror or error}") from None


class TorchScriptInception(nn.Module):
    """Network in the TorchScript file that NVIDIA published, which resizes images itself.

    Raises:
        MissingDependencyError: the file is not a TorchScript file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        with warnings.catch_warnings():
            # PyTorch 2.13 warns exporters of TorchScript; a user who loads a file can do nothing about it.
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
            try:
                self.network = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
            except (RuntimeError, ValueError) as error:
                raise MissingDependencyError(
                    f"{path} is not a TorchScript file ({_line(error)}): get it again"
                ) from None

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """Return features (B, 2048) of uint8 images.

        Raises:
            MissingDependencyError: the file contains another network.
        """
        try:
            features_BD: Tensor = self.network(pixels_B3HW, return_features=True)
            expected = features_BD.shape == (len(pixels_B3HW), FEATURES)
        except (RuntimeError, AttributeError):
            expected = False
        if not expected:
            raise MissingDependencyError(
                f"{self.path} is not the network of the FID: called with uint8 images and return_features=True, that "
                f"one gives {FEATURES} features each"
            )
        return features_BD


class _Convolution(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(
        self,
        channels: int,
        made: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, made, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(made, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class _BlockA(nn.Module):
    """Branches of 1x1, 5x5, twice 3x3, and pooling, at 35x35 positions."""

    def __init__(self, channels: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Convolution(channels, 64, 1)
        self.branch5x5_1 = _Convolution(channels, 48, 1)
        self.branch5x5_2 = _Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Convolution(channels, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, padding=1)
        self.branch_pool = _Convolution(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), wide, double, self.branch_pool(_average(x))], dim=1)


class _BlockB(nn.Module):
    """Step from 35x35 to 17x17 positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = _Convolution(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Convolution(channels, 64, 1)
        self.branch3x3dbl_2 = _Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Convolution(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], dim=1)


class _BlockC(nn.Module):
    """Branches of 1x1, 7x7 and twice 7x7 in rows and columns, and pooling, at 17x17 positions."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        row, column = {"kernel": (1, 7), "padding": (0, 3)}, {"kernel": (7, 1), "padding": (3, 0)}

        def long(channels: int, made: int, shape: Mapping[str, tuple[int, int]]) -> _Convolution:
            return _Convolution(channels, made, shape["kernel"], padding=shape["padding"])

        self.branch1x1 = _Convolution(channels, 192, 1)
        self.branch7x7_1 = _Convolution(channels, inner, 1)
        self.branch7x7_2 = long(inner, inner, row)
        self.branch7x7_3 = long(inner, 192, column)
        self.branch7x7dbl_1 = _Convolution(channels, inner, 1)
        self.branch7x7dbl_2 = long(inner, inner, column)
        self.branch7x7dbl_3 = long(inner, inner, row)
        self.branch7x7dbl_4 = long(inner, inner, column)
        self.branch7x7dbl_5 = long(inner, 192, row)
        self.branch_pool = _Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average(x))], dim=1)


class _BlockD(nn.Module):
    """Step from 17x17 to 8x8 positions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = _Convolution(channels, 192, 1)
        self.branch3x3_2 = _Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Convolution(channels, 192, 1)
        self.branch7x7x3_2 = _Convolution(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = _Convolution(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = _Convolution(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        long = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), long, F.max_pool2d(x, 3, 2)], dim=1)


class _BlockE(nn.Module):
    """Branches that end in rows and columns side by side, at 8x8 positions.

    Args:
        channels: number of channels of the input.
        maximum: whether the pooling branch takes the maximum instead of the average.
    """

    def __init__(self, channels: int, *, maximum: bool) -> None:
        super().__init__()
        self.maximum = maximum
        self.branch1x1 = _Convolution(channels, 320, 1)
        self.branch3x3_1 = _Convolution(channels, 384, 1)
        self.branch3x3_2a = _Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = _Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = _Convolution(channels, 448, 1)
        self.branch3x3dbl_2 = _Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _Convolution(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = _Convolution(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = _Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, 1, 1) if self.maximum else _average(x)
        parts = [self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled)]
        return torch.cat(parts, dim=1)


class Inception(nn.Module):
    """Inception-v3 of the FID up to the average pooling; modules are named as in the published state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _BlockA(192, 32), _BlockA(256, 64), _BlockA(288, 64)
        self.Mixed_6a, self.Mixed_6b, self.Mixed_6c = _BlockB(288), _BlockC(768, 128), _BlockC(768, 160)
        self.Mixed_6d, self.Mixed_6e, self.Mixed_7a = _BlockC(768, 160), _BlockC(768, 192), _BlockD(768)
        self.Mixed_7b, self.Mixed_7c = _BlockE(1280, maximum=False), _BlockE(2048, maximum=True)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        """Return features (B, 2048) of images with values in [0, 255], of any size and type."""
        x = (resized(pixels_B3HW.float()) - 128.0) / 128.0
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        features_BD: Tensor = x.mean(dim=(2, 3))
        return features_BD


def resized(x_BCHW: Tensor) -> Tensor:
    """Return images resized to 299x299 with the bilinear filter of TensorFlow 1, whose first pixel stays in its place.

    Position i of the result is position i * H / 299 of the image. Nothing is smoothed where an image gets smaller.
    """
    for dim in (2, 3):
        size = x_BCHW.shape[dim]
        places = torch.arange(SIDE, dtype=torch.float32, device=x_BCHW.device) * (size / SIDE)
        low = places.long().clamp_max(size - 1)
        share = (places - low).view(-1, 1) if dim == 2 else places - low
        first = x_BCHW.index_select(dim, low)
        x_BCHW = first + (x_BCHW.index_select(dim, (low + 1).clamp_max(size - 1)) - first) * share
    return x_BCHW


def inception_of(path: Path) -> nn.Module:
    """Return the network of a file: a TorchScript file (`.pt`) or a state dict (`.pth`).

    Raises:
        MissingDependencyError: the file holds no network of that kind.
    """
    if path.name not in STATE_FILES and path.suffix != ".pth":
        return TorchScriptInception(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise MissingDependencyError(f"{path} is not a PyTorch weight file ({_line(error)}): get it again") from None
    with torch.device("meta"):
        network = Inception()
    wanted = network.state_dict()
    state = dict(state) if isinstance(state, Mapping) else {}
    # The count of batches has no effect on the features, and the last layer gives the classes of ImageNet.
    kept = {
        key: state.get(key, torch.zeros((), dtype=torch.int64)) for key in wanted if key.endswith("num_batches_tracked")
    }
    kept |= {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        network.load_state_dict(kept, assign=True)
    except (RuntimeError, AttributeError, TypeError):
        raise MissingDependencyError(f"{path} does not hold the Inception network of the FID: get it again") from None
    return network


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
