"""`gosvae info` and `gosvae list`."""

from __future__ import annotations

import argparse
from pathlib import Path

from gosvae import bitstream
from gosvae.cli.streams import read_stream
from gosvae.codecs.checkpoint import read_json
from gosvae.codecs.classical import CLASSICAL_CODECS
from gosvae.codecs.registry import (
    DEFAULT_CODEC,
    LABEL_MAP,
    codec_of_stream,
    embedded_codecs,
    load_trained_codec,
    models_folder,
)
from gosvae.codecs.slices import ENTROPY_MODELS
from gosvae.codecs.trained import TrainedCodec
from gosvae.datasets.registry import DATASETS
from gosvae.errors import BitstreamError, CheckpointError, ForeignStreamError
from gosvae.experts.compact import count_parameters
from gosvae.experts.registry import EXPERTS, embedded_experts, load_expert
from gosvae.recipes import load_recipe, recipe_names
from gosvae.units import kib, rate_bpp


def add_info(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae info`."""
    parser.add_argument(
        "what", help="a .gos file, a checkpoint folder, or the name of a model of the package", metavar="WHAT"
    )
    parser.set_defaults(run=run_info)


def add_list(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae list`."""
    parser.add_argument(
        "kind", nargs="?", choices=("recipes", "experts", "datasets", "codecs"), help="list only these; default: all"
    )
    parser.set_defaults(run=run_list)


def _print_table(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"  {name:<{width}}  {text}")


def run_info(options: argparse.Namespace) -> int:
    """Describe a file or a checkpoint."""
    path = Path(options.what)
    if path.is_file():
        return _info_stream(path)
    folder = path if path.is_dir() else models_folder() / options.what
    tree = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if isinstance(tree, dict) and (tree.get("kind") == "expert" or "model_type" in tree):
        return _info_expert(folder)
    return _info_codec(options.what)


def _info_stream(path: Path) -> int:
    data = read_stream(path)
    try:
        stream = bitstream.unpack_slices(data)
    except BitstreamError as error:
        raise type(error)(f"{path}: {error}", argument=error.argument) from None
    try:
        maker = codec_of_stream(data).name
    except ForeignStreamError:
        maker = "not a model of this package"
    header, lengths = stream.header, [len(payload) for payload in stream.payloads]
    model = {number: name for name, number in ENTROPY_MODELS.items()}.get(header.entropy_model_id, "the codec's own")
    cut = "" if len(lengths) == 1 else f" ({stream.layout}; {min(lengths)} to {max(lengths)} bytes each)"
    rate = rate_bpp(len(data), header.height, header.width)
    rows = {
        "format": f"gosvae stream, version {stream.version}, checksum{'s' * (len(lengths) > 1)} correct",
        "image": f"{header.width}x{header.height} pixels",
        "file": f"{len(data)} bytes = {kib(len(data)):.2f} KiB = {rate:.3f} bpp",
        "payload": f"{sum(lengths)} bytes, header and checksum {len(data) - sum(lengths)}",
        "slices": f"{len(lengths)}{cut}",
        "entropy model": f"{header.entropy_model_id} ({model})",
        "codec": f"{header.fingerprint.hex()} ({maker})",
    }
    _print_table(rows)
    return 0


def _info_codec(what: str) -> int:
    codec = load_trained_codec(what)
    card, notes = codec.checkpoint.card, codec.checkpoint.provenance
    rows = {
        "codec": f"{card.name} (recipe {card.recipe})",
        "fingerprint": codec.fingerprint.hex(),
        **codec.description,
    }
    for key in ("dataset", "images", "stages", "minutes_of_stage", "hardware", "perceptual", "revision", "date"):
        if notes.get(key) is not None:
            rows[key.replace("_", " ")] = _note(notes[key])
    if isinstance(notes.get("expert"), dict):
        rows["expert"] = f"{notes['expert']['name']} ({notes['expert']['fingerprint'][:16]})"
    _print_table(rows)
    return 0


def _note(value: object) -> str:
    """Text of a value of the provenance; a mapping such as steps by stage becomes `joint 260`."""
    return ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else str(value)


def _info_expert(folder: Path) -> int:
    expert = load_expert(folder)
    notes = read_json(folder / "provenance.json") if (folder / "provenance.json").is_file() else {}
    if not isinstance(notes, dict):
        raise CheckpointError(f"{folder / 'provenance.json'} is damaged: expected keys and values")
    rows = {
        "expert": expert.info.name,
        "fingerprint": expert.fingerprint()[:16],
        "classes": f"{len(expert.info.class_names)}: {', '.join(expert.info.class_names)}",
        "input": f"{expert.info.input_width}x{expert.info.input_height} pixels",
        "parameters": f"{count_parameters(expert) / 1e6:.2f} M",
    }
    for key in ("dataset", "images", "minutes", "hardware", "revision", "date"):
        if notes.get(key) is not None:
            rows[key] = str(notes[key])
    _print_table(rows)
    return 0


def _summary(codec: TrainedCodec) -> str:
    told = [codec.description[part] for part in ("architecture", "quantizer") if part in codec.description]
    return ", ".join(["learned", f"{codec.parameter_count / 1e6:.2f} M parameters", *told])


def run_list(options: argparse.Namespace) -> int:
    """List what can be named."""
    sections: dict[str, dict[str, str]] = {}
    recipes = {name: load_recipe(name) for name in recipe_names()}
    sections["recipes"] = {name: recipe.description for name, recipe in recipes.items()}
    sections["experts"] = {**EXPERTS, "NAME": f"{EXPERTS['NAME']}: {', '.join(embedded_experts())}"}
    sections["datasets"] = dict(DATASETS)
    learned = {name: load_trained_codec(name) for name in embedded_codecs()}
    sections["codecs"] = {
        name: _summary(codec) + (" (the default)" if name == DEFAULT_CODEC else "") for name, codec in learned.items()
    }
    sections["codecs"] |= {f"{name}[:QUALITY]": "classical" for name in CLASSICAL_CODECS}
    sections["codecs"][f"{LABEL_MAP}[:EXPERT]"] = "the expert's class map and nothing else: the bound for a single task"
    for title, rows in sections.items():
        if options.kind in (None, title):
            print(f"{title}:")
            _print_table(rows)
    return 0
