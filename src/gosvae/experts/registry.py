"""Experts by name: an expert of the package, `hf:ORGANISATION/MODEL`, or the path of a folder or file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gosvae import walk
from gosvae.errors import ExpertError
from gosvae.experts import exported
from gosvae.experts.base import Expert, TaskExpert
from gosvae.experts.exported import load_exported_expert
from gosvae.experts.huggingface import huggingface_class_names, load_huggingface_expert
from gosvae.experts.onnx.card import load_card
from gosvae.experts.onnx.expert import SUFFIX as ONNX_SUFFIX
from gosvae.experts.onnx.expert import load_onnx_expert
from gosvae.experts.tflite import SUFFIX as TFLITE_SUFFIX
from gosvae.experts.tflite import load_tflite_expert
from gosvae.experts.trained import load_trained_expert
from gosvae.files import is_lfs_pointer, parse_json
from gosvae.plugins import find_plugin, made_by

EXPERTS: Mapping[str, str] = MappingProxyType(
    {
        "embedded": "the compact network that ships in the package (CamVid's 11 classes)",
        "NAME": "any expert of the package by its name",
        "hf:ID": "a transformers model of the Hugging Face hub: segmentation (OneFormer, Mask2Former, SegFormer, ...), "
        "detection (DETR, YOLOS, RT-DETR, ...) or depth (DPT, Depth Anything, ...)",
        "FOLDER": "a transformers model saved to a folder, or what gosvae train-expert wrote",
        "hf:ID?short=N": "a transformers model (FOLDER?short=N too) whose input has a short side of N pixels, in place "
        "of the size of its image processor",
        "FILE.onnx": "any ONNX network, with FILE.json beside it where its task is not that of features",
        "FILE.tflite": "any TensorFlow Lite network, with FILE.json beside it; it judges, and cannot be trained with",
        "FILE.pt2": "any network as a torch.export file with FILE.json beside it; a program, so that it needs trust",
        "FILE.pt": "any network as a TorchScript file (also .ts) with FILE.json beside it; a program too",
    }
)
"""Descriptions of the kinds of experts, by the way to name them."""

_LARGEST_SHORT = 8192
EMBEDDED = "expert-camvid"
"""Name of the expert that `embedded` stands for."""


def embedded_experts() -> list[str]:
    """Return the names of the experts in the package."""
    configs = _models_folder().glob("*/config.json")
    return sorted(path.parent.name for path in configs if _kind_of(path) == "expert")


def is_embedded(source: str) -> bool:
    """Return whether a string names an expert of the package, and no file or package of anyone else."""
    return source == "embedded" or source in embedded_experts()


def is_program(spec: str) -> bool:
    """Return whether a string names a file that is a program: a `.pt2`, a TorchScript file or `FILE.py:NAME`."""
    return ".py:" in spec or walk.expanded(spec).suffix in exported.SUFFIXES


def known_classes(spec: str) -> tuple[str, ...] | None:
    """Return the class names of a transformers model, which a small file beside its weights holds.

    None means that only loading the expert tells its classes.

    Raises:
        ExpertError: there is no such model, or its input size is not a number of pixels.
        MissingDependencyError: a package that it needs is not installed.
    """
    spec, _ = input_size(spec)
    if spec.startswith("hf:"):
        return huggingface_class_names(spec.removeprefix("hf:"))
    return None if _model_type(spec) is None else huggingface_class_names(walk.expanded(spec))


def is_oneformer(spec: str) -> bool:
    """Return whether a string names a OneFormer, from a hub model's name or the configuration in a folder.

    Raises:
        ExpertError: its input size is not a number of pixels.
    """
    spec, _ = input_size(spec)
    return "oneformer" in spec.lower() if spec.startswith("hf:") else _model_type(spec) == "oneformer"


def _model_type(folder: str) -> object:
    """Return the `model_type` of a transformers model in a folder; None if there is no such model."""
    try:
        tree = parse_json((walk.expanded(folder) / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    return tree.get("model_type") if isinstance(tree, dict) else None


def load_expert(spec: str | Path, *, trust: bool = False, verify: bool = True) -> Expert:
    """Load the segmentation expert that a string names; `EXPERTS` lists the ways.

    Folders and models of the Hugging Face hub are data. A `.pt2` or TorchScript file is a program. `FILE.py:NAME` and
    entry points of other packages are programs too, which run because they are named.

    Args:
        spec: name, folder or file.
        trust: whether the maker of a `.pt2` or TorchScript file is trusted.
        verify: whether the weights of a folder must be those that its `config.json` names by their SHA-256.

    Raises:
        ExpertError: the string names no expert, what it names is not a usable one, is one of another task, or is a
            program without `trust`.
        ConfigError: the configuration beside the weights has unknown keys or impossible values.
        MissingDependencyError: a package that it needs is not installed.
    """
    expert = load_task_expert(spec, trust=trust, verify=verify)
    if not isinstance(expert, Expert):
        raise _other_task(expert.info.name, expert.task)
    return expert


def check_segmentation(spec: str) -> None:
    """Refuse an expert of another task, as `load_expert` does, if the card beside its file names the task.

    This is quick, as nothing is loaded.

    Raises:
        ExpertError: the task is not segmentation, or the card is not JSON.
        ConfigError: the card has unknown keys or impossible values.
    """
    path = walk.expanded(spec)
    card = path.with_suffix(".json")
    if path.suffix not in (ONNX_SUFFIX, TFLITE_SUFFIX) or not card.is_file():
        return
    facts = load_card(card, {})
    if facts.task != "segmentation":
        raise _other_task(facts.name or path.stem, facts.task)


def _other_task(name: str, task: str) -> ExpertError:
    return ExpertError(f"expert {name!r} has the task {task!r}: an expert of segmentation is needed here")


def load_task_expert(
    spec: str | Path, *, gradients: bool = True, trust: bool = False, verify: bool = True
) -> TaskExpert:
    """Load the expert of any task that a string names; `EXPERTS` lists the ways.

    Args:
        spec: name, folder or file.
        gradients: whether gradients are needed, as for training. If not, ONNX Runtime computes an ONNX network that
            cannot be imported onto PyTorch.
        trust, verify: see `load_expert`.

    Raises:
        GosvaeError: as `load_expert`, except that any task will do.
    """
    expert = _load(str(spec), gradients, trust, verify)
    expert.info = replace(expert.info, source=str(spec))
    return expert


def _load(text: str, gradients: bool, trust: bool, verify: bool) -> TaskExpert:
    """Return the expert that a string names, without its source; errors are those of `load_task_expert`."""
    if text == "embedded":
        return load_trained_expert(_embedded_folder(), verify=verify)
    if text in embedded_experts():
        return load_trained_expert(_models_folder() / text, verify=verify)
    text, short = input_size(text)
    if text.startswith("hf:"):
        return load_huggingface_expert(text.removeprefix("hf:"), short=short)
    path = walk.expanded(text)
    if short is not None and not (path.is_dir() and "model_type" in _tree_of(path)):
        raise ExpertError(f"{text} is no transformers model: ?short=N sets the input size of those alone, leave it out")
    if path.suffix == ONNX_SUFFIX:
        return load_onnx_expert(path, gradients=gradients)
    if path.suffix == TFLITE_SUFFIX:
        return load_tflite_expert(path, gradients=gradients)
    if path.suffix in exported.SUFFIXES:
        return load_exported_expert(path, trust=trust)
    if text and path.is_dir():
        return _load_folder(path, verify, short)
    found = find_plugin("experts", text) if text else None
    if found is not None:
        expert: TaskExpert = made_by(found[0], text, TaskExpert, *([found[1]] if found[1] else []))
        return expert.freeze()
    hint = f"no file or folder {text!r}" if text else "the name is empty"
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        hint += f" (did you mean hf:{text}?)"
    base, _, weight = text.rpartition(":")
    known = base in ("embedded", *embedded_experts()) or walk.expanded(base).is_file()
    if known and re.fullmatch(r"\d+(\.\d+)?", weight):
        hint += f" (only a training takes a weight: leave out :{weight})"
    near = get_close_matches(text, ["embedded", *embedded_experts()], n=1)
    if near:
        hint += f" (did you mean {near[0]}?)"
    ways = ", ".join(EXPERTS).replace("NAME", f"NAME ({', '.join(embedded_experts()) or 'none is installed'})")
    raise ExpertError(f"unknown expert: {hint}; expected one of {ways}")


def input_size(text: str) -> tuple[str, int | None]:
    """Return the name of an expert without `?short=N`, and N; None where there is no size.

    Raises:
        ExpertError: what stands behind the name is not such a size.
    """
    base, separator, query = text.rpartition("?")
    if not separator or walk.expanded(text).exists():
        return text, None
    key, _, number = query.partition("=")
    if key != "short" or not number.isdecimal() or not 1 <= int(number) <= _LARGEST_SHORT:
        raise ExpertError(
            f"expert {text!r}: expected ?short=N behind the name, the short side of the network's input in pixels, "
            f"from 1 to {_LARGEST_SHORT}"
        )
    return base, int(number)


def _load_folder(folder: Path, verify: bool, short: int | None) -> TaskExpert:
    """Return the expert in a folder: a transformers model names its `model_type`, a model of gosvae its `kind`."""
    tree = _tree_of(folder)
    if "model_type" in tree:
        return load_huggingface_expert(folder, short=short)
    if tree.get("kind") == "expert":
        return load_trained_expert(folder, verify=verify)
    raise ExpertError(
        f'{folder / "config.json"} describes no expert: expected "kind": "expert" or the "model_type" of a '
        "transformers model"
    )


def _tree_of(folder: Path) -> dict[str, Any]:
    """Return the `config.json` in a folder; an empty one if it is no mapping."""
    path = folder / "config.json"
    try:
        tree = parse_json(path.read_bytes())
    except OSError as error:
        raise ExpertError(f"{folder} holds no expert: cannot read {path.name} ({error.strerror})") from None
    except ValueError:
        if is_lfs_pointer(path):
            raise ExpertError(f"{path} is a Git LFS pointer: run git lfs pull in {folder}") from None
        raise ExpertError(f"{path} is not valid JSON") from None
    return tree if isinstance(tree, dict) else {}


def _kind_of(config: Path) -> object:
    """Return the `kind` in a `config.json`; None if it has no kind or cannot be read."""
    try:
        tree = parse_json(config.read_bytes())
    except (OSError, ValueError):
        return None
    return tree.get("kind") if isinstance(tree, dict) else None


def _models_folder() -> Path:
    return Path(str(resources.files("gosvae"))) / "models"


def _embedded_folder() -> Path:
    folder = _models_folder() / EMBEDDED
    if not folder.is_dir():
        raise ExpertError(
            f"this installation has no embedded expert at {folder}: install gosvae again, or give another"
        )
    return folder
