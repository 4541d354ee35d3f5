"""`gosvae info` and `gosvae list`: describe a file, and list the names that commands accept."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gosvae import bitstream
from gosvae.cli.loading import add_no_verify, verify_of
from gosvae.cli.sequence_files import describe_sequence, is_sequence_file
from gosvae.cli.streams import read_stream
from gosvae.cli.targets import STANDARD
from gosvae.codecs.checkpoint import read_json
from gosvae.codecs.classical import CLASSICAL_CODECS
from gosvae.codecs.classical_video import VIDEO_CODECS
from gosvae.codecs.layered import layers_of
from gosvae.codecs.registry import (
    DEFAULT_CODEC,
    LABEL_MAP,
    LAYERED,
    codec_of_stream,
    embedded_codecs,
    load_trained_codec,
    models_folder,
)
from gosvae.codecs.slices import ENTROPY_MODELS
from gosvae.codecs.trained import TrainedCodec
from gosvae.datasets.registry import DATASETS
from gosvae.errors import BitstreamError, CheckpointError, ConfigError, ForeignStreamError, unknown_name
from gosvae.experts.compact import count_parameters
from gosvae.experts.registry import EMBEDDED, EXPERTS, embedded_experts, load_expert
from gosvae.recipes import load_recipe, recipe_names
from gosvae.units import kib, rate_bpp
from gosvae.walk import expanded, printable


def add_info(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae info`."""
    parser.add_argument(
        "what",
        help="a .gos or .gosv file, - for a .gos file on standard input, a checkpoint folder, or the name of a model",
        metavar="WHAT",
    )
    add_no_verify(parser)
    _add_json(parser)
    parser.set_defaults(run=run_info)


def add_list(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae list`."""
    parser.add_argument(
        "kind", nargs="?", choices=("recipes", "experts", "datasets", "codecs"), help="list only these; default: all"
    )
    _add_json(parser)
    parser.set_defaults(run=run_list)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _print_table(rows: Mapping[str, object]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"  {name:<{width}}  {printable(str(value))}")


def _print_json(tree: object) -> None:
    print(json.dumps(tree, indent=2))


def run_info(options: argparse.Namespace) -> int:
    """Describe a file or a checkpoint."""
    rows, numbers = _describe(options.what, verify=verify_of(options))
    if options.json:
        _print_json({name.replace(" ", "_"): value for name, value in {**rows, **numbers}.items()})
    else:
        _print_table(rows)
    return 0


def _describe(what: str, *, verify: bool = True) -> tuple[dict[str, str], dict[str, object]]:
    """Return the lines on a file or a checkpoint, and the values that stand in JSON in place of some of them."""
    if is_sequence_file(what):
        return describe_sequence(what)
    if what == STANDARD:
        return _describe_stream(read_stream(None), "standard input")
    path = expanded(what)
    if path.is_file():
        return _describe_stream(read_stream(path), str(path))
    name = EMBEDDED if what == "embedded" else what
    folder = path if path.is_dir() else models_folder() / name
    known = [*embedded_codecs(), *embedded_experts()]
    if not path.is_dir() and name.partition(":")[0] not in known:
        if len(path.parts) > 1 or path.suffix:
            raise ConfigError(f"no such file or folder: {name}; gosvae list shows the names of the package's models")
        raise ConfigError(f"{unknown_name('model', name, known)}, and there is no file or folder of that name")
    tree = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if isinstance(tree, dict) and (tree.get("kind") == "expert" or "model_type" in tree):
        return _describe_expert(folder, verify), {}
    return _describe_codec(what, verify), {}


def _describe_stream(data: bytes, label: str) -> tuple[dict[str, str], dict[str, object]]:
    try:
        stream = bitstream.unpack_slices(data)
    except BitstreamError as error:
        raise type(error)(f"{label}: {error}", argument=error.argument) from None
    try:
        maker = codec_of_stream(data).name
    except ForeignStreamError:
        maker = "not a model of this package"
    header, lengths = stream.header, [len(payload) for payload in stream.payloads]
    model = {number: name for name, number in ENTROPY_MODELS.items()}.get(header.entropy_model_id, "the codec's own")
    layers = "" if not stream.detail_count else f"; the last {stream.detail_count} for detail"
    cut = "" if len(lengths) == 1 else f" ({stream.layout}; {min(lengths)} to {max(lengths)} bytes each)"
    rate = rate_bpp(len(data), header.height, header.width)
    rows = {
        "format": f"gosvae stream, version {stream.version}, checksum{'s' * (len(lengths) > 1)} correct",
        "image": f"{header.width}x{header.height} pixels",
        "file": f"{len(data)} bytes = {kib(len(data)):.2f} KiB = {rate:.3f} bpp",
        "payload": f"{sum(lengths)} bytes, header and checksum {len(data) - sum(lengths)}",
        "slices": f"{len(lengths)}{cut}{layers}",
        "entropy model": f"{header.entropy_model_id} ({model})",
        "codec": f"{header.fingerprint.hex()} ({maker})",
    }
    if layers_of(data).detail_bytes:
        rows["shows"] = str(layers_of(data))
    numbers: dict[str, object] = {
        "version": stream.version,
        "width": header.width,
        "height": header.height,
        "bytes": len(data),
        "bpp": rate,
        "payload": sum(lengths),
        "slices": len(lengths),
        "detail_slices": stream.detail_count,
    }
    return rows, numbers


def _describe_codec(what: str, verify: bool) -> dict[str, str]:
    codec = load_trained_codec(what, verify=verify)
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
    return rows | _other_runs(notes)


def _other_runs(notes: Mapping[str, Any]) -> dict[str, str]:
    """Return lines on the runs before the one that the other lines describe, and on that of the context model."""
    runs = notes.get("earlier_runs") or []
    rows = {f"earlier run {number}": _run(run) for number, run in enumerate(runs, 1)}
    first = runs[0] if runs else notes
    if first.get("init") is not None:
        rows["started from"] = f"{first['init']}, whose own runs are not recorded: the lines above are of later ones"
    if isinstance(notes.get("context"), dict):
        rows["context model"] = _run(notes["context"])
    return rows


def _run(run: Mapping[str, Any]) -> str:
    """Return one line on a run."""
    recipe = run.get("recipe")
    parts = [recipe.get("name") if isinstance(recipe, dict) else recipe, _note(run.get("stages") or {})]
    minutes = run.get("minutes_of_stage")
    parts += [run.get("dataset"), None if minutes is None else f"{minutes} minutes (last stage)", run.get("hardware")]
    return ", ".join(str(part) for part in [*parts, run.get("date")] if part)


def _note(value: object) -> str:
    """Return a value of the provenance as text; a mapping such as steps by stage becomes `joint 260`."""
    return ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else str(value)


def _describe_expert(folder: Path, verify: bool) -> dict[str, str]:
    expert = load_expert(folder, verify=verify)
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
    return rows


def _summary(codec: TrainedCodec) -> str:
    told = [codec.description[part] for part in ("architecture", "quantizer") if part in codec.description]
    return ", ".join(["learned", f"{codec.parameter_count / 1e6:.2f} M parameters", *told])


def run_list(options: argparse.Namespace) -> int:
    """List the recipes, experts, data sets and codecs that commands accept by name."""
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
    sections["codecs"] |= {f"{name}[:CRF]": "classical, for videos (gosvae evaluate-video)" for name in VIDEO_CODECS}
    sections["codecs"][f"{LAYERED}[:NAME][:RATE]"] = (
        "two layers: a task layer by a variable-rate codec, and a faithful picture (the default of gosvae compress)"
    )
    sections["codecs"][f"{LABEL_MAP}[:EXPERT]"] = "the expert's class map and nothing else: the bound for a single task"
    chosen = {title: rows for title, rows in sections.items() if options.kind in (None, title)}
    if options.json:
        _print_json(chosen)
        return 0
    for title, rows in chosen.items():
        print(f"{title}:")
        _print_table(rows)
    return 0
