"""Names of codecs: one string names a model of the package, a checkpoint folder, or a classical codec."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib import resources
from pathlib import Path

import torch

from gosvae import bitstream
from gosvae.codecs.adapter import AdapterCard, adapter_card, with_adapter
from gosvae.codecs.base import ImageCodec
from gosvae.codecs.cards import VariableRateCard
from gosvae.codecs.checkpoint import CodecCheckpoint, kind_of, load_codec_checkpoint, read_json
from gosvae.codecs.classical import CLASSICAL_CODECS, load_classical
from gosvae.codecs.fusion import Fusion, Selection, load_fusion
from gosvae.codecs.kinds import KINDS, check_options, chosen_options
from gosvae.codecs.label_map import LabelMapCodec
from gosvae.codecs.layered import LayeredCodec, LayeredOptions
from gosvae.codecs.scene import load_scene
from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.sequence.encoder import SequenceOptions
from gosvae.codecs.sequence.format import SessionHeader
from gosvae.codecs.slices import DEFAULT_OPTIONS, StreamOptions, xor_mark
from gosvae.codecs.temporal_model import has_temporal_model, load_temporal_model
from gosvae.codecs.trained import TrainedCodec, card_of
from gosvae.codecs.variable import VariableRateCodec, VariableRateOptions
from gosvae.codecs.vq import VqCodec, VqOptions
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import ConfigError, ForeignStreamError, unknown_name
from gosvae.experts.registry import load_expert
from gosvae.plugins import find_plugin, made_by
from gosvae.precision import Precision, usable_device
from gosvae.walk import expanded

DEFAULT_CODEC = "gosvae-variable-camvid"
"""Name of the model that `gosvae compress` uses by default."""
PAPER_CODEC = "gosvae-camvid"
"""Name of the paper's GOS-VAE."""

LAYERED = "layered"
"""Name of the codec of two layers; `layered:NAME` has another task layer than the default model."""
FUSION_FOLDER = "fusion"
"""Name of the folder, in that of a variable-rate codec, with the fusion network of its codec of two layers."""
LABEL_MAP = "label-map"
"""Name of the codec that sends the expert's class map; `label-map:EXPERT` has another expert than the embedded one."""


def models_folder() -> Path:
    """Return the folder of the models that ship in the package."""
    return Path(str(resources.files("gosvae"))) / "models"


def embedded_codecs() -> list[str]:
    """Return the names of the trained codecs that ship in the package."""
    folders = models_folder().glob("*/config.json")
    return sorted(path.parent.name for path in folders if kind_of(read_json(path)) in KINDS)


def build_codec(
    checkpoint: CodecCheckpoint,
    *,
    rate: str = "",
    options: StreamOptions = DEFAULT_OPTIONS,
    device: str | torch.device = "cpu",
    precision: Precision = "32",
) -> TrainedCodec:
    """Return the codec of a checkpoint, by its kind; `rate` is the part of a name behind the colon, as in `load_codec`.

    Raises:
        ConfigError: this kind of codec does not have the option or the rate, or cannot meet it.
        CheckpointError: the weights do not fit the configuration.
    """
    name, kind = checkpoint.card.name, KINDS[checkpoint.card.kind]
    chosen = chosen_options(options, precision)
    if rate and "level" not in kind.option_names:
        raise ConfigError(f"the rate of {name!r} is fixed: leave out :{rate}")
    check_options(name, chosen, kind.option_names)
    return kind.build(checkpoint, options=kind.options(**chosen, **_level_or_budget(name, rate)), device=device)


def checkpoint_folder(name_or_folder: str | Path) -> Path:
    """Return the folder of a model of the package, or the folder itself.

    Raises:
        ConfigError: neither a known name nor a folder.
    """
    folder = expanded(name_or_folder)
    if str(name_or_folder) in embedded_codecs():
        folder = models_folder() / str(name_or_folder)
    elif not folder.is_dir():
        if len(folder.parts) > 1 or folder.suffix:
            raise ConfigError(f"no such checkpoint folder: {name_or_folder}; gosvae list codecs shows the names")
        known = [*embedded_codecs(), *CLASSICAL_CODECS, LAYERED, LABEL_MAP]
        raise ConfigError(f"{unknown_name('codec', str(name_or_folder), known)}, and it is not a checkpoint folder")
    return folder


def split_rate(spec: str) -> tuple[str, str]:
    """Return the name or folder of a trained codec and its rate, empty where none stands behind a colon.

    A folder that exists is never cut, so that its path may hold colons.
    """
    if spec.partition(":")[0] == LAYERED:
        return LAYERED, split_layered(spec)[1]
    name, _, rate = spec.rpartition(":")
    if not name or not rate or spec in embedded_codecs() or expanded(spec).is_dir():
        return spec, ""
    known = name in embedded_codecs() or expanded(name).is_dir()
    return (name, rate) if known or "/" not in rate else (spec, "")


def option_names(spec: str) -> tuple[str, ...]:
    """Return the names of the options that a codec takes, given its name with or without a rate."""
    name, _ = split_rate(spec)
    if name == LAYERED:
        return tuple(field.name for field in fields(LayeredOptions))
    folder = models_folder() / name if name in embedded_codecs() else expanded(name)
    if not name or not (folder / "config.json").is_file():
        return ()
    adapter = adapter_card(folder)
    folder = folder if adapter is None else _base_folder(folder, adapter)
    kind = KINDS.get(kind_of(read_json(folder / "config.json")))
    return () if kind is None else kind.option_names


def load_trained_codec(
    name_or_folder: str | Path,
    *,
    options: StreamOptions = DEFAULT_OPTIONS,
    device: str | torch.device = "cpu",
    precision: Precision = "32",
    verify: bool = True,
) -> TrainedCodec:
    """Load a model of the package by name, or any checkpoint or adapter by its folder, whatever its kind.

    Raises:
        ConfigError: neither a known name nor a folder.
        CheckpointError: the folder is not a finished, intact codec.
    """
    name, rate = split_rate(str(name_or_folder))
    folder = checkpoint_folder(name)
    adapter = adapter_card(folder)
    if adapter is None:
        checkpoint = load_codec_checkpoint(folder, verify=verify)
    else:
        base = load_codec_checkpoint(_base_folder(folder, adapter), verify=verify)
        checkpoint = with_adapter(base, folder, adapter, verify=verify)
    return build_codec(checkpoint, rate=rate, options=options, device=device, precision=precision)


def _base_folder(folder: Path, adapter: AdapterCard) -> Path:
    """Return the folder of the codec that an adapter changes, which may be named relative to the adapter."""
    beside = folder / adapter.base
    return beside if beside.is_dir() else checkpoint_folder(adapter.base)


def split_layered(spec: str) -> tuple[str, str]:
    """Return the codec of the task layer and the rate of `layered[:NAME][:RATE]`."""
    rest = spec.partition(":")[2]
    if rest.isdecimal() or split_budget(f":{rest}")[1] is not None:
        return DEFAULT_CODEC, rest
    return split_rate(rest) if rest else (DEFAULT_CODEC, "")


def load_layered_codec(
    spec: str = LAYERED,
    *,
    options: StreamOptions = DEFAULT_OPTIONS,
    device: str | torch.device = "cpu",
    precision: Precision = "32",
    verify: bool = True,
) -> LayeredCodec:
    """Load a codec of two layers, given as in `load_codec`.

    Raises:
        ConfigError: neither a known name nor a folder, or the codec cannot meet the options.
        CheckpointError: the folder is not a finished, intact variable-rate codec.
    """
    name, rate = split_layered(spec)
    folder = checkpoint_folder(name)
    chosen = chosen_options(options, precision)
    check_options(spec, chosen, option_names(LAYERED))
    chosen |= _level_or_budget(LAYERED, rate)
    checkpoint = load_codec_checkpoint(folder, verify=verify)
    return _layered(checkpoint, folder, LayeredOptions(**chosen), device, verify=verify)


def _layered(
    checkpoint: CodecCheckpoint,
    folder: Path,
    options: LayeredOptions,
    device: str | torch.device,
    *,
    verify: bool = True,
) -> LayeredCodec:
    """Return the codec of two layers of a task layer with what its folder holds for them."""
    card_of(checkpoint, VariableRateCard, "a variable-rate codec for the task layer")
    of_task = {field.name: getattr(options, field.name) for field in fields(VariableRateOptions)}
    task = VariableRateCodec(
        checkpoint, options=VariableRateOptions(**{**of_task, "level": None, "budget_bytes": None}), device=device
    )
    fusion: Fusion = Selection()
    if (folder / FUSION_FOLDER).is_dir():
        fusion = load_fusion(folder / FUSION_FOLDER, device=task.device, verify=verify)
    return LayeredCodec(task, options=options, fusion=fusion, scene=load_scene(folder))


def load_vq_codec(
    name_or_folder: str | Path, *, options: VqOptions | None = None, device: str | torch.device = "cpu"
) -> VqCodec:
    """Load a VQ codec as `load_trained_codec` does; raise `CheckpointError` for a checkpoint of another kind."""
    return VqCodec.load(checkpoint_folder(name_or_folder), options=options, device=device)


def load_codec(
    spec: str | Path = DEFAULT_CODEC,
    *,
    options: StreamOptions = DEFAULT_OPTIONS,
    device: str | torch.device = "cpu",
    precision: Precision = "32",
    trust: bool = False,
    verify: bool = True,
) -> ImageCodec:
    """Load any codec: a model of the package, a checkpoint folder, a name of `CLASSICAL_CODECS`, or `label-map`.

    The quality of a classical codec follows a colon: `jpeg:30`. The rate of a variable-rate codec follows a colon too,
    as a level of 0..255 or as the KiB that an image may take: `gosvae-variable-camvid:96`,
    `gosvae-variable-camvid:1.5KiB`. `layered` is the codec of two layers; its task layer is the default model, or
    another one in `layered:NAME`, and its rate follows in the same way: `layered:4KiB`. So does the expert of the
    label-map codec: `label-map:hf:ORGANISATION/MODEL`; `label-map` alone has the embedded expert.

    A checkpoint folder is data: reading it runs no code and follows no path or name in it, except those of experts and
    quantizers that are installed and, in the folder of an adapter, that of the codec that it changes.

    Args:
        spec: name, folder, or name with a rate.
        options: layout of the streams.
        device: device of the networks.
        precision: precision of a variable-rate codec, see `VariableRateCodec`.
        trust: whether the expert of a label map may be a program, see `load_expert`.
        verify: whether the weights must be those that `config.json` names by their SHA-256.

    Raises:
        ConfigError: the name is unknown, the quality is impossible, the device is not there, or the codec cannot meet
            the options or precision.
        CheckpointError: the folder is not a finished, intact codec.
        ExpertError: a label map's expert cannot be loaded.
    """
    name, separator, quality = str(spec).partition(":")
    if name == LAYERED:
        return load_layered_codec(str(spec), options=options, device=device, precision=precision, verify=verify)
    if name == LABEL_MAP or name in CLASSICAL_CODECS:
        check_options(name, chosen_options(options, precision), ())
    if name == LABEL_MAP:
        expert = load_expert(quality if separator else "embedded", trust=trust, verify=verify)
        expert.to(usable_device(device))
        return LabelMapCodec(expert)
    if name in CLASSICAL_CODECS:
        if separator and not quality.isdigit():
            raise ConfigError(f"quality of {name!r} must be a whole number, got {quality!r}; for example {name}:50")
        return load_classical(name, int(quality) if separator else None)
    if name not in embedded_codecs() and not expanded(spec).is_dir():
        found = find_plugin("codecs", str(spec))
        if found is not None:
            check_options(name, chosen_options(options, precision), ())
            made: ImageCodec = made_by(found[0], str(spec), ImageCodec, *([found[1]] if found[1] else []))
            return made
    return load_trained_codec(spec, options=options, device=device, precision=precision, verify=verify)


def split_budget(spec: str) -> tuple[str, int | None]:
    """Return the name and the bytes of `NAME:1.5KiB`, or the whole spec and None if there is no such budget."""
    name, separator, rate = spec.rpartition(":")
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)kib", rate.lower())
    return (name, int(1024 * float(match[1]))) if separator and match else (spec, None)


def _level_or_budget(name: str, rate: str) -> dict[str, int]:
    """Return the option after the colon of a variable-rate codec: a level like `96`, or a budget like `1.5KiB`."""
    budget_bytes = split_budget(f":{rate}")[1]
    if not rate:
        return {}
    if budget_bytes is not None:
        return {"budget_bytes": budget_bytes}
    if not rate.isdecimal():
        raise ConfigError(f"{rate!r} is not a rate: give a level of 0..255 ({name}:96) or a budget ({name}:1.5KiB)")
    return {"level": int(rate)}


def _made(checkpoint: CodecCheckpoint, header: bitstream.Header) -> bool:
    """Return whether a codec made a stream."""
    marked = header.entropy_model_id == KINDS[checkpoint.card.kind].context_id
    mark = checkpoint.context_mark() if marked else b""
    return bitstream.made_by(header, xor_mark(checkpoint.fingerprint(), mark))


def codec_of_stream(data: bytes) -> TrainedCodec | LayeredCodec:
    """Return the model of the package that made a stream, found by its fingerprint; one of two layers if it has both.

    Raises:
        BitstreamError: the bytes are not an intact stream.
        ForeignStreamError: no model of the package made it.
    """
    stream = bitstream.unpack_slices(data)
    header = stream.header
    for name in embedded_codecs():
        checkpoint = load_codec_checkpoint(models_folder() / name)
        if not _made(checkpoint, header):
            continue
        if stream.detail_count or header.entropy_model_id == EntropyModelId.AV1_STILL:
            return _layered(checkpoint, models_folder() / name, LayeredOptions(), "cpu")
        return build_codec(checkpoint)
    raise ForeignStreamError(
        f"no model of this package has the stream's fingerprint {header.fingerprint.hex()}: "
        "name the checkpoint that made it",
        argument="codec",
    )


def load_sequence_codec(
    spec: str | Path = DEFAULT_CODEC,
    *,
    options: SequenceOptions | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "32",
    verify: bool = True,
) -> SequenceCodec:
    """Load the trained video codec of a model of the package, or of a checkpoint folder; `NAME:LEVEL` sets its level.

    For a codec of two layers, such as `layered:NAME`, it is the video codec of its task layer. The other arguments are
    those of `SequenceCodec.load`.

    Raises:
        ConfigError: neither the name of a model with a temporal model nor a folder, or a rate that is no level.
        CheckpointError: the folder is not a finished variable-rate codec with a temporal model.
    """
    layered = str(spec).partition(":")[0] == LAYERED
    name, rate = split_layered(str(spec)) if layered else split_rate(str(spec))
    if rate and not rate.isdecimal():
        raise ConfigError(f"{rate!r} is not a level of 0..255, such as {name}:64")
    known = [each for each in embedded_codecs() if has_temporal_model(models_folder() / each)]
    if name not in known and not expanded(name).is_dir():
        raise ConfigError(
            f"no codec with a temporal model, which sequences need, is called {name!r}: take {' or '.join(known)}, or "
            "a checkpoint folder",
            argument="codec",
        )
    folder = checkpoint_folder(name)
    codec = SequenceCodec.load(folder, options=options, device=device, precision=precision, verify=verify)
    return codec.at(int(rate)) if rate else codec


def sequences_of(codec: ImageCodec, spec: str | Path, *, slices: int = 1, verify: bool = True) -> SequenceCodec | None:
    """Return the video codec of a codec that `load_codec` returned for a name or folder; None if it has none.

    Args:
        codec: the codec.
        spec: its name or folder.
        slices: number of interleaved slices of its frames.
        verify: whether the temporal model must be the one that `temporal.json` names by its SHA-256.
    """
    if not isinstance(codec, VariableRateCodec):
        return None
    folder = checkpoint_folder(split_rate(str(spec))[0])
    if not has_temporal_model(folder):
        return None
    model = load_temporal_model(folder, codec.checkpoint.fingerprint(), verify=verify)
    return SequenceCodec(codec, model, SequenceOptions(level=codec.level, slices=slices, layout="interleaved"))


def sequence_codec_of(
    header: SessionHeader, *, device: str | torch.device = "cpu", verify: bool = True
) -> SequenceCodec:
    """Return the model of the package that made a sequence, found by its fingerprint.

    Raises:
        ForeignStreamError: no model of the package made it.
    """
    for name in embedded_codecs():
        folder = models_folder() / name
        if not has_temporal_model(folder):
            continue
        if load_codec_checkpoint(folder, verify=verify).fingerprint().startswith(header.fingerprint):
            codec = SequenceCodec.load(folder, device=device, verify=verify)
            codec.frame_coder(header)
            return codec
    raise ForeignStreamError(
        f"no model of this package has the sequence's fingerprint {header.fingerprint.hex()}: "
        "name the checkpoint that made it",
        argument="codec",
    )
