"""gosvae: a goal-oriented image codec. It sends what a perception model needs, in a fraction of the bytes.

>>> import gosvae
>>> codec = gosvae.load_codec()
>>> data = codec.compress(gosvae.read_image("street.jpg"))
>>> gosvae.write_image("seen.png", codec.decompress(data))

The names of this page are the public interface; `__init__.pyi` lists them, for type checkers and for this module alike.
A name is imported when it is used first (PEP 562), so importing the package takes no time.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.2.0"

_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_MODULES = {name: module for module, name in re.findall(r"^from ([\w.]+) import (\w+) as \2$", _STUB, re.MULTILINE)}
"""Module of each public name."""

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'gosvae' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
