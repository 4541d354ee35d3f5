"""Any network as an expert: a TorchScript or `torch.export` file with a small JSON file beside it.

`street.pt2` (or `.pt`, `.ts`) and `street.json`:

    {"class_names": ["road", "sky"], "input_height": 256, "input_width": 512,
     "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

The network takes normalised RGB, float32 (B, 3, H, W), and returns class logits (B, m, h, w) at any scale. Both file
formats are programs, which can run any code while they are read or used: they are loaded only for a caller who says
that the maker is trusted. Pickles (`torch.save`) are never loaded.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.config import Config, parse
from gosvae.errors import ExpertError
from gosvae.experts.base import IGNORE_INDEX, Expert, ExpertInfo
from gosvae.files import is_lfs_pointer, parse_json
from gosvae.tensors import pad_to_multiple

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_FAULTS = (RuntimeError, AssertionError, ValueError, TypeError)
"""What networks raise for an input that they cannot take."""
_STRIDES = (8, 16, 32, 64)
_MOST_COMPRESSED_BYTES = 2**26
"""Largest size of what an archive compresses, which is code."""
SUFFIXES = (".pt", ".ts", ".pt2")
_HOW_TO_EXPORT = (
    "save the network with torch.export.save(torch.export.export(network, (x,)), 'NAME.pt2') "
    "or torch.jit.trace(network, x).save('NAME.pt')"
)


class ExportedExpertCard(Config):
    """Content of the JSON file beside an exported network; keys without a default are required."""

    name: str | None = None
    """Name in tables; by default the stem of the file."""
    class_names: Annotated[tuple[str, ...], Field(min_length=2, max_length=255)]
    """Names of the m classes, in the order of the logits."""
    ignore_index: int = Field(IGNORE_INDEX, ge=0, le=255)
    input_height: int = Field(gt=0)
    input_width: int = Field(gt=0)
    """Image size that the network was trained for, in pixels."""
    mean: tuple[float, float, float]
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=3, max_length=3)]
    """Means and standard deviations of red, green and blue on the [0, 1] scale; the network gets (x - mean) / std."""
    mixed_precision: bool = False
    """Whether the network follows the precision of a training, such as bf16; it computes in float32 otherwise."""
    stride: int = Field(1, ge=1, le=1024)
    """Images are padded to multiples of this number of pixels, for a network that takes no other sizes."""
    resize: bool = False
    """Whether images are resized to the input size because the network takes no other; detected for a `.pt2`."""


class ExportedExpert(Expert):
    """Expert of a network from a file; see `load_exported_expert`."""

    mean_3: Tensor
    std_3: Tensor

    def __init__(
        self,
        info: ExpertInfo,
        network: nn.Module,
        card: ExportedExpertCard,
        *,
        batch: int | None,
        digest: bytes,
        program: ExportedProgram | None = None,
    ) -> None:
        super().__init__(info)
        self.network = network
        self.mixed_precision = card.mixed_precision
        self._program = program
        self._stride = card.stride
        self._resize = card.resize
        self._batch = batch
        self.register_buffer("mean_3", torch.tensor(card.mean, dtype=torch.float32))
        self.register_buffer("std_3", torch.tensor(card.std, dtype=torch.float32))
        # A frozen TorchScript file has no parameters: the fingerprint needs the file itself.
        self.register_buffer("file_sha256", torch.tensor(list(digest), dtype=torch.uint8))
        self.freeze()

    def class_logits(self, x_B3HW: Tensor) -> Tensor:
        """Return logits (B, m, H, W), bilinearly resized from those of the network.

        Raises:
            ExpertError: the network cannot take the image size, or its answer is not logits (B, m, h, w).
        """
        image_size, network_size = x_B3HW.shape[-2:], (self.info.input_height, self.info.input_width)
        x = x_B3HW
        if self._resize and image_size != network_size:
            x = F.interpolate(x, network_size, mode="bilinear", align_corners=False, antialias=True)
        x = (x - self.mean_3[:, None, None]) / self.std_3[:, None, None]
        try:
            logits = self._padded(x, self._stride)
        except _FAULTS as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ExpertError(
                f"expert {self.info.name!r} cannot take an input of {tuple(x.shape)} ({_last_line(error)})"
                f"{self._advice(x)}"
            ) from error
        if logits.shape[-2:] != image_size:
            logits = F.interpolate(logits.float(), image_size, mode="bilinear", align_corners=False)
        return logits

    def _advice(self, x_B3hw: Tensor) -> str:
        """Return what to set in the JSON for a network that does not take the size of an image."""
        for stride in _STRIDES:
            if stride <= self._stride or not any(side % stride for side in x_B3hw.shape[-2:]):
                continue
            try:
                padded = self._run(pad_to_multiple(x_B3hw, stride))
            except (*_FAULTS, ExpertError):
                continue
            if padded.shape[0] == x_B3hw.shape[0]:
                return f'; it takes sizes that are multiples of {stride}: set "stride": {stride} in its JSON'
        own = (self.info.input_height, self.info.input_width)
        return "" if x_B3hw.shape[-2:] == own else '; if it knows one size only, set "resize": true in its JSON'

    def _padded(self, x_B3hw: Tensor, stride: int) -> Tensor:
        """Return the logits of an image whose edges are repeated up to a multiple of the stride, for its own part."""
        height, width = x_B3hw.shape[-2:]
        x = pad_to_multiple(x_B3hw, stride)
        logits = self._run(x)
        if x.shape == x_B3hw.shape:
            return logits
        if logits.shape[-2:] != x.shape[-2:]:
            logits = F.interpolate(logits.float(), x.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExportedExpert:
        """Move the program too: a graph names the device of every tensor that it makes."""
        before = self.mean_3.device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._program is not None and self.mean_3.device != before:
            from torch.export.passes import move_to_device_pass  # imported here: it is slow to load

            self._program = move_to_device_pass(self._program, self.mean_3.device)
            self.network = _module_of(self._program)
            self.freeze()
        return self

    def _run(self, x_B3hw: Tensor) -> Tensor:
        """Run the network on a batch of any size, in parts if its own batch size is fixed."""
        count = x_B3hw.shape[0]
        part = self._batch or count
        missing = -count % part
        x = torch.cat([x_B3hw, x_B3hw[-1:].expand(missing, -1, -1, -1)]) if missing else x_B3hw
        answers = [self.network(x_part) for x_part in torch.split(x, part)]
        for answer in answers:
            if not isinstance(answer, Tensor) or answer.ndim != 4 or not answer.is_floating_point():
                got = f"a tensor {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
                raise ExpertError(f"expert {self.info.name!r} returned {got} where logits (B, m, h, w) were expected")
        if torch.cat(answers).shape[0] != x.shape[0]:
            raise ExpertError(f"expert {self.info.name!r} mixes the images of a batch, or their rows: {tuple(x.shape)}")
        return torch.cat(answers)[:count]


def load_exported_expert(path: Path, *, trust: bool = False) -> ExportedExpert:
    """Load `NAME.pt`/`NAME.ts` (TorchScript) or `NAME.pt2` (`torch.export`) with the card `NAME.json` beside it.

    A `.pt2` whose image size is fixed gets every image resized to it; one whose batch size is fixed works in parts.

    Args:
        path: path of the network.
        trust: whether the maker of the file is trusted, since the file is a program.

    Raises:
        ExpertError: a file is missing or of another format, its maker is not trusted, or the network does not return
            the card's classes.
        ConfigError: the card has unknown keys or impossible values.
    """
    if path.suffix not in SUFFIXES:
        raise ExpertError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}; {_HOW_TO_EXPORT}")
    if not path.is_file():
        raise ExpertError(f"no network at {path}; {_HOW_TO_EXPORT}")
    card = _load_card(path.with_suffix(".json"))
    batch: int | None = None
    program: ExportedProgram | None = None
    if is_lfs_pointer(path):
        raise ExpertError(f"{path} is a Git LFS pointer, not the network itself: run git lfs pull in {path.parent}")
    if not trust:
        kind = "torch.export" if path.suffix == ".pt2" else "TorchScript"
        raise ExpertError(
            f"{path} is a {kind} file, which is a program and can run any code: load it with trust=True if you trust "
            "its maker, or use an expert of safetensors files",
            argument="trust",
        )
    _check_unpacked(path)
    if path.suffix == ".pt2":
        program, size = _load_exported_program(path)
        network = _module_of(program)
        batch, height, width = size
        for axis, fixed, said in (("height", height, card.input_height), ("width", width, card.input_width)):
            if fixed not in (None, said):
                raise ExpertError(f"{path} was exported for an input {axis} of {fixed}, its JSON says {said}")
        card = card.model_copy(update={"resize": card.resize or height is not None or width is not None})
    else:
        network = _load_torchscript(path)
    info = ExpertInfo(
        card.name or path.stem, card.class_names, card.input_height, card.input_width, ignore_index=card.ignore_index
    )
    digest = hashlib.sha256(path.read_bytes()).digest()
    expert = ExportedExpert(info, network, card, batch=batch, digest=digest, program=program)
    with torch.inference_mode():  # Wrong class names are found here, before hours of training.
        expert(torch.zeros(1, 3, card.input_height, card.input_width, dtype=torch.float32))
    return expert


def _load_card(path: Path) -> ExportedExpertCard:
    if not path.is_file():
        keys = [name for name, field in ExportedExpertCard.model_fields.items() if field.is_required()]
        raise ExpertError(f"{path} is missing: write a JSON object there with the keys {', '.join(keys)}")
    try:
        tree = parse_json(path.read_bytes())
    except ValueError as error:
        if is_lfs_pointer(path):
            raise ExpertError(f"{path} is a Git LFS pointer: run git lfs pull in {path.parent}") from None
        raise ExpertError(f"{path} is not valid JSON: {error}") from None
    return parse(ExportedExpertCard, tree, source=str(path))


def _load_torchscript(path: Path) -> nn.Module:
    with warnings.catch_warnings():
        # PyTorch 2.13 advises exporters against TorchScript; a user who loads a file can do nothing about it.
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
        try:
            network: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise ExpertError(
                f"{path} is not a TorchScript file ({_last_line(error)}); weights from torch.save are never loaded, "
                f"{_HOW_TO_EXPORT}"
            ) from None
    return network


def _load_exported_program(path: Path) -> tuple[ExportedProgram, tuple[int | None, int | None, int | None]]:
    """Return the program, and its batch size, height and width where the graph fixes them."""
    _check_archive(path)
    try:
        program = torch.export.load(path)
    except Exception as error:  # The reader raises errors of any type on a damaged or newer archive.
        raise ExpertError(f"{path} cannot be read by PyTorch {torch.__version__}: {_last_line(error)}") from None
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    shape = tuple(inputs[0].meta["val"].shape) if len(inputs) == 1 else ()
    if len(shape) != 4 or shape[1] != 3:
        got = shape if len(inputs) == 1 else f"{len(inputs)} inputs"
        raise ExpertError(f"{path}: expected a network of one input (B, 3, H, W), got {got}")
    batch, height, width = (n if isinstance(n, int) else None for n in (shape[0], shape[2], shape[3]))
    return program, (batch, height, width)


def _module_of(program: ExportedProgram) -> nn.Module:
    """Return the network of a program, whose mode cannot be changed."""
    network = program.module()

    def stay(mode: bool = True) -> nn.Module:
        """Return the graph as it is: an exported graph has no modes, and its own `train` raises."""
        del mode
        return network

    network.train = stay  # type: ignore[method-assign, assignment]
    return network


def _check_unpacked(path: Path) -> None:
    """Raise an error for an archive that unpacks to far more than its size; both formats store tensors uncompressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError):
        return  # the readers of the formats say what is wrong
    if n_bytes > path.stat().st_size + _MOST_COMPRESSED_BYTES:
        raise ExpertError(f"{path} unpacks to {n_bytes} bytes, more than it can hold: it is not what torch writes")


def _check_archive(path: Path) -> None:
    """Raise an error unless the file is a `torch.export` archive without pickled objects, which could run any code."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist() if _is_small(name)}
    except (zipfile.BadZipFile, OSError) as error:
        raise ExpertError(f"{path} is not a torch.export archive ({error}); {_HOW_TO_EXPORT}") from None
    if "models/model.json" not in members or "data/weights/model_weights_config.json" not in members:
        raise ExpertError(f"{path} is not a torch.export archive of this generation; {_HOW_TO_EXPORT}")
    pickled = [name for name in members if name.startswith(("data/weights/", "data/constants/")) and name[-3:] == ".pt"]
    for name in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json"):
        pickled += _pickled_entries(path, members.get(name, b"{}"))
    try:
        for name, data in members.items():
            if name.startswith("data/sample_inputs/") and data:
                torch.load(io.BytesIO(data), weights_only=True)
    except Exception:
        pickled.append("the sample inputs")
    if pickled:
        raise ExpertError(f"{path} holds pickled objects ({pickled[0]}), which are never loaded; {_HOW_TO_EXPORT}")


def _pickled_entries(path: Path, data: bytes) -> list[str]:
    """Return the names of the pickled tensors in a list of a `torch.export` archive."""
    try:
        entries: dict[str, Any] = parse_json(data).get("config", {})
        return [key for key, entry in entries.items() if entry.get("use_pickle")]
    except (ValueError, AttributeError):
        raise ExpertError(f"{path} has a damaged list of tensors; {_HOW_TO_EXPORT}") from None


def _is_small(member: str) -> bool:
    """Return whether an archive member is configuration, not the raw values of a tensor."""
    return member.endswith((".json", ".pt"))


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:160]
