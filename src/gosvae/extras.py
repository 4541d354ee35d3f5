"""Optional packages: where one is absent, a single line names the extra of gosvae that brings it.

`pip install gosvae` brings what compressing, reconstructing and measuring need. The packages here are larger than all
of that without PyTorch; the functions that use them import them, inside `needs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal

from gosvae.errors import MissingDependencyError

Extra = Literal["coco", "completion", "jpegxl", "onnx", "plot", "tflite", "train", "video"]

PACKAGES: dict[Extra, tuple[str, ...]] = {
    "coco": ("faster_coco_eval",),
    "completion": ("shtab",),
    "jpegxl": ("imagecodecs",),
    "onnx": ("onnx", "onnxruntime"),
    "plot": ("bjontegaard", "matplotlib", "scipy"),
    "tflite": ("ai_edge_litert",),
    "train": ("diffusers", "lightning_fabric", "tensorboard"),
    "video": ("av",),
}
"""Modules that an extra brings, by the extra's name in `pyproject.toml`."""


@contextmanager
def needs(extra: Extra, purpose: str) -> Iterator[None]:
    """Turn an import that fails in this block into a `MissingDependencyError` that names the extra.

    Args:
        extra: name of the extra that brings the package.
        purpose: what needs the package, as the subject of a sentence, such as "JPEG XL".
    """
    try:
        yield
    except ImportError as error:
        raise _missing(extra, purpose, str(error)) from error


def require(extra: Extra, purpose: str) -> None:
    """Look for all packages of an extra, without importing them.

    Raises:
        MissingDependencyError: one is not installed.
    """
    for package in PACKAGES[extra]:
        if find_spec(package) is None:
            raise _missing(extra, purpose, f"No module named {package!r}")


def _missing(extra: str, purpose: str, reason: str) -> MissingDependencyError:
    line = " ".join(reason.split())
    return MissingDependencyError(
        f"{purpose} needs a package that is not installed ({line}): pip install 'gosvae[{extra}]'"
    )
