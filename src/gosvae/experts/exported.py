"""Any network as an expert: a TorchScript or `torch.export` file with a small JSON file beside it.

`street.pt2` (or `.pt`, `.ts`) and `street.json`:

    {"class_names": ["road", "sky"], "input_height": 256, "input_width": 512,
     "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

The network takes normalised RGB, float32 (B, 3, H, W), and returns class logits (B, m, h, w) at any scale. Both file
formats are programs: load only those whose maker you trust. Pickles (`torch.save`) are never loaded.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.config import Config, parse
from gosvae.errors import ExpertError
from gosvae.experts.base import IGNORE_INDEX, Expert, ExpertInfo

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
    resize: bool = False
    """Whether images are resized to the input size because the network takes no other; detected for a `.pt2`."""


class ExportedExpert(Expert):
    """Expert of a network from a file; see `load_exported_expert`."""

    mean_3: Tensor
    std_3: Tensor

    def __init__(
        self, info: ExpertInfo, network: nn.Module, card: ExportedExpertCard, *, batch: int | None, digest: bytes
    ) -> None:
        super().__init__(info)
        self.network = network
        self._resize = card.resize
        self._batch = batch
        self.register_buffer("mean_3", torch.tensor(card.mean))
        self.register_buffer("std_3", torch.tensor(card.std))
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
            logits = self._run(x)
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ExpertError(
                f"expert {self.info.name!r} cannot take an input of {tuple(x.shape)} ({_last_line(error)}); "
                f'if it knows one size only, set "resize": true in its JSON'
            ) from error
        if logits.shape[-2:] != image_size:
            logits = F.interpolate(logits.float(), image_size, mode="bilinear", align_corners=False)
        return logits

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
        return torch.cat(answers)[:count]


def load_exported_expert(path: Path) -> ExportedExpert:
    """Load `NAME.pt`/`NAME.ts` (TorchScript) or `NAME.pt2` (`torch.export`) with the card `NAME.json` beside it.

    A `.pt2` whose image size is fixed gets every image resized to it; one whose batch size is fixed works in parts.

    Raises:
        ExpertError: a file is missing or of another format, or the network does not return the card's classes.
        ConfigError: the card has unknown keys or impossible values.
    """
    if path.suffix not in SUFFIXES:
        raise ExpertError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}; {_HOW_TO_EXPORT}")
    if not path.is_file():
        raise ExpertError(f"no network at {path}; {_HOW_TO_EXPORT}")
    card = _load_card(path.with_suffix(".json"))
    batch: int | None = None
    if path.suffix == ".pt2":
        network, size = _load_exported_program(path)
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
    expert = ExportedExpert(info, network, card, batch=batch, digest=hashlib.sha256(path.read_bytes()).digest())
    with torch.inference_mode():  # Wrong class names are found here, before hours of training.
        expert(torch.zeros(1, 3, card.input_height, card.input_width))
    return expert


def _load_card(path: Path) -> ExportedExpertCard:
    if not path.is_file():
        keys = [name for name, field in ExportedExpertCard.model_fields.items() if field.is_required()]
        raise ExpertError(f"{path} is missing: write a JSON object there with the keys {', '.join(keys)}")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
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


def _load_exported_program(path: Path) -> tuple[nn.Module, tuple[int | None, int | None, int | None]]:
    """Return the network, and its batch size, height and width where the graph fixes them."""
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
    network = program.module()

    def stay(mode: bool = True) -> nn.Module:
        """Return the graph as it is: an exported graph has no modes, and its own `train` raises."""
        del mode
        return network

    network.train = stay  # type: ignore[method-assign, assignment]
    return network, (batch, height, width)


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
        entries: dict[str, Any] = json.loads(members.get(name, b"{}")).get("config", {})
        pickled += [key for key, entry in entries.items() if entry.get("use_pickle")]
    try:
        for name, data in members.items():
            if name.startswith("data/sample_inputs/") and data:
                torch.load(io.BytesIO(data), weights_only=True)
    except Exception:
        pickled.append("the sample inputs")
    if pickled:
        raise ExpertError(f"{path} holds pickled objects ({pickled[0]}), which are never loaded; {_HOW_TO_EXPORT}")


def _is_small(member: str) -> bool:
    """Return whether an archive member is configuration, not the raw values of a tensor."""
    return member.endswith((".json", ".pt"))


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:160]
