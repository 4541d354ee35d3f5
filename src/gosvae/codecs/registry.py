"""One string names any codec: a model of the package, a checkpoint folder, or a classical codec."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import torch

from gosvae import bitstream
from gosvae.checkpoint import CARDS, CodecCard, CodecCheckpoint, VariableRateCard, load_codec_checkpoint, read_json
from gosvae.codecs.autoencoder import AutoencoderCodec
from gosvae.codecs.base import ImageCodec
from gosvae.codecs.classical import CLASSICAL_CODECS, load_classical
from gosvae.codecs.gesco import GescoCodec
from gosvae.codecs.label_map import LabelMapCodec
from gosvae.codecs.learned import LearnedCodec
from gosvae.codecs.slices import DEFAULT_OPTIONS, StreamOptions, marked_fingerprint, xor_mark
from gosvae.codecs.trained import TrainedCodec
from gosvae.codecs.variable import VariableRateCodec, context_mark
from gosvae.entropy.context import ContextModel
from gosvae.entropy.latent import LatentContextModel
from gosvae.errors import CheckpointError, ConfigError, ForeignStreamError, unknown_name
from gosvae.experts.registry import load_expert
from gosvae.precision import Precision

DEFAULT_CODEC = "gosvae-variable-camvid"
"""The model that `gosvae compress` takes where none is named."""
PAPER_CODEC = "gosvae-camvid"
"""The paper's GOS-VAE."""

LABEL_MAP = "label-map"
"""Names the codec that sends the expert's class map; `label-map:EXPERT` with another expert than the embedded one."""


def models_folder() -> Path:
    """Folder of the models that ship in the package."""
    return Path(str(resources.files("gosvae"))) / "models"


def embedded_codecs() -> list[str]:
    """Names of the learned codecs that ship in the package."""
    folders = models_folder().glob("*/config.json")
    return sorted(path.parent.name for path in folders if read_json(path).get("kind") in CARDS)


def _refuse_options(options: StreamOptions, why: str) -> None:
    if options != DEFAULT_OPTIONS:
        raise ConfigError(f"entropy model, slices, container version and effort are for codecs of indices only: {why}")


def _refuse_precision(precision: Precision, why: str) -> None:
    if precision != "32":
        raise ConfigError(f"precision {precision} is for variable-rate codecs only: {why}; take 32")


def build_codec(
    checkpoint: CodecCheckpoint,
    *,
    rate: str = "",
    options: StreamOptions = DEFAULT_OPTIONS,
    device: str | torch.device = "cpu",
    precision: Precision = "32",
) -> TrainedCodec:
    """The codec of a checkpoint, by its kind; `rate` is what `load_codec` takes behind a colon.

    Raises:
        ConfigError: options or a rate for a kind that knows one way to code only, or that the codec cannot meet.
        CheckpointError: the weights do not fit the configuration.
    """
    kind = checkpoint.card.kind
    level, budget_bytes = _level_or_budget(checkpoint.card.name, rate)
    if rate and kind != "variable-rate":
        raise ConfigError(f"the rate of {checkpoint.card.name!r} is fixed: leave out :{rate}")
    if kind == "codec" and options.effort != DEFAULT_OPTIONS.effort:
        raise ConfigError(
            f"an effort is for variable-rate codecs only: {checkpoint.card.name!r} is of kind {kind!r}",
            argument="effort",
        )
    if kind != "variable-rate":
        _refuse_precision(precision, f"{checkpoint.card.name!r} is of kind {kind!r}")
    if kind not in ("codec", "variable-rate"):
        _refuse_options(options, f"{checkpoint.card.name!r} is of kind {kind!r}")
    match kind:
        case "codec":
            return LearnedCodec(checkpoint, options=options, device=device)
        case "autoencoder":
            return AutoencoderCodec(checkpoint, device=device)
        case "gesco":
            return GescoCodec(checkpoint, device=device)
        case "variable-rate":
            return VariableRateCodec(
                checkpoint, level=level, budget_bytes=budget_bytes, options=options, device=device, precision=precision
            )
    raise CheckpointError(f"{checkpoint.card.name!r} is of the unknown kind {kind!r}: upgrade gosvae")


def checkpoint_folder(name_or_folder: str | Path) -> Path:
    """Folder of a model of the package, or the folder itself.

    Raises:
        ConfigError: neither a known name nor a folder.
    """
    folder = Path(name_or_folder).expanduser()
    if str(name_or_folder) in embedded_codecs():
        folder = models_folder() / str(name_or_folder)
    elif not folder.is_dir():
        if len(folder.parts) > 1 or folder.suffix:
            raise ConfigError(f"no such checkpoint folder: {name_or_folder}; gosvae list codecs shows the names")
        known = [*embedded_codecs(), *CLASSICAL_CODECS, LABEL_MAP]
        raise ConfigError(f"{unknown_name('codec', str(name_or_folder), known)}, and it is not a checkpoint folder")
    return folder


def trained_kind(spec: str) -> str | None:
    """Kind of the trained codec that a string names, with its rate or without; None for all others."""
    name = spec if spec in embedded_codecs() or Path(spec).is_dir() else spec.rpartition(":")[0]
    folder = models_folder() / name if name in embedded_codecs() else Path(name)
    if not name or not (folder / "config.json").is_file():
        return None
    kind = read_json(folder / "config.json").get("kind", "codec")
    return str(kind)


def load_trained_codec(
    name_or_folder: str | Path,
    *,
    options: StreamOptions = DEFAULT_OPTIONS,
    device: str | torch.device = "cpu",
    precision: Precision = "32",
) -> TrainedCodec:
    """Load a model of the package by name, or any checkpoint by its folder, whatever its kind.

    Raises:
        ConfigError: neither a known name nor a folder.
        CheckpointError: the folder is not a finished, intact codec.
    """
    name, _, rate = str(name_or_folder).partition(":")
    if not rate or Path(name_or_folder).is_dir():
        name, rate = str(name_or_folder), ""
    checkpoint = load_codec_checkpoint(checkpoint_folder(name))
    return build_codec(checkpoint, rate=rate, options=options, device=device, precision=precision)


def load_learned_codec(
    name_or_folder: str | Path, *, options: StreamOptions = DEFAULT_OPTIONS, device: str | torch.device = "cpu"
) -> LearnedCodec:
    """As `load_trained_codec`, for VQ codecs only; a checkpoint of another kind is a `CheckpointError`."""
    return LearnedCodec.load(checkpoint_folder(name_or_folder), options=options, device=device)


def load_codec(
    spec: str | Path = DEFAULT_CODEC,
    *,
    options: StreamOptions = DEFAULT_OPTIONS,
    device: str | torch.device = "cpu",
    precision: Precision = "32",
) -> ImageCodec:
    """Load any codec: a model of the package, a checkpoint folder, a name of `CLASSICAL_CODECS`, or `label-map`.

    A classical codec takes its quality behind a colon: `jpeg:30`. A variable-rate codec takes its level there, 0..255,
    or the KiB that an image may take: `gosvae-variable-camvid:96`, `gosvae-variable-camvid:1.5KiB`.
    The label-map codec takes its expert there: `label-map:hf:ORGANISATION/MODEL`; `label-map` alone has the embedded
    one. A `precision` is for variable-rate codecs, see `VariableRateCodec`.

    Raises:
        ConfigError: an unknown name, an impossible quality, or options or a precision that the codec cannot meet.
        CheckpointError: the folder is not a finished, intact codec.
        ExpertError: a label map's expert cannot be loaded.
    """
    name, separator, quality = str(spec).partition(":")
    if name == LABEL_MAP or name in CLASSICAL_CODECS:
        _refuse_options(options, f"{name!r} is none")
        _refuse_precision(precision, f"{name!r} is none")
    if name == LABEL_MAP:
        expert = load_expert(quality if separator else "embedded")
        expert.to(device)
        return LabelMapCodec(expert)
    if name in CLASSICAL_CODECS:
        if separator and not quality.isdigit():
            raise ConfigError(f"quality of {name!r} must be a whole number, got {quality!r}; for example {name}:50")
        return load_classical(name, int(quality) if separator else None)
    return load_trained_codec(spec, options=options, device=device, precision=precision)


def split_budget(spec: str) -> tuple[str, int | None]:
    """The name of `NAME:1.5KiB` and its bytes; of other specs the whole spec, and None."""
    name, separator, rate = spec.rpartition(":")
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)kib", rate.lower())
    return (name, int(1024 * float(match[1]))) if separator and match else (spec, None)


def _level_or_budget(name: str, rate: str) -> tuple[int | None, int | None]:
    """Level and bytes of what stands behind the colon of a variable-rate codec: `96` or `1.5KiB`."""
    budget_bytes = split_budget(f":{rate}")[1]
    if not rate or budget_bytes is not None:
        return None, budget_bytes
    if not rate.isdecimal():
        raise ConfigError(f"{name}:{rate} is no rate: give a level of 0..255 ({name}:96) or a budget ({name}:1.5KiB)")
    return int(rate), None


def _made(checkpoint: CodecCheckpoint, header: bitstream.Header) -> bool:
    """Whether a codec made a stream."""
    fingerprint, card = checkpoint.fingerprint(), checkpoint.card
    if header.entropy_model_id == ContextModel.model_id and isinstance(card, CodecCard) and card.context is not None:
        fingerprint = marked_fingerprint(fingerprint, ContextModel(card.context, checkpoint.context))
    if isinstance(card, VariableRateCard) and header.entropy_model_id == LatentContextModel.model_id:
        fingerprint = xor_mark(fingerprint, context_mark(checkpoint))
    return bitstream.made_by(header, fingerprint)


def codec_of_stream(data: bytes) -> TrainedCodec:
    """The model of the package that made a stream, found by its fingerprint.

    Raises:
        BitstreamError: the bytes are no intact stream.
        ForeignStreamError: no model of the package made it.
    """
    header = bitstream.unpack_slices(data).header
    for name in embedded_codecs():
        checkpoint = load_codec_checkpoint(models_folder() / name)
        if _made(checkpoint, header):
            return build_codec(checkpoint)
    raise ForeignStreamError(
        f"no model of this package has the stream's fingerprint {header.fingerprint.hex()}: "
        "name the checkpoint that made it",
        argument="codec",
    )
