"""Codecs, experts, tasks, channels and quantizers of other packages or of a Python file, found by name.

A package registers a class or function under one of the entry points `gosvae.codecs`, `gosvae.experts`,
`gosvae.tasks`, `gosvae.channels` and `gosvae.quantizers`. A file needs no package: `FILE.py:NAME` names a class or
function in it. Both are programs, which run when they are named.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from gosvae.errors import ConfigError
from gosvae.walk import expanded

Kind = Literal["codecs", "experts", "tasks", "channels", "quantizers"]


def plugin_names(kind: Kind) -> list[str]:
    """Return the names that other packages registered."""
    return sorted(point.name for point in entry_points(group=f"gosvae.{kind}"))


def find_plugin(kind: Kind, spec: str) -> tuple[Any, str] | None:
    """Return the class or function that a name stands for, and what stands behind the name after a colon.

    Args:
        kind: kind of thing that is looked for.
        spec: name of an entry point or `FILE.py:NAME`, either with `:REST` behind it.

    Returns:
        None if the name is that of no entry point and of no file.

    Raises:
        ConfigError: the file or the package cannot be run, or the file has no such name.
    """
    file, separator, rest = spec.partition(".py:")
    if separator:
        name, _, rest = rest.partition(":")
        return _from_file(expanded(f"{file}.py"), name), rest
    name, _, rest = spec.partition(":")
    for point in entry_points(group=f"gosvae.{kind}"):
        if point.name == name:
            try:
                return point.load(), rest
            except Exception as error:
                raise ConfigError(f"plugin {name!r} ({point.value}) cannot be loaded: {_line(error)}") from error
    return None


def _from_file(path: Path, name: str) -> Any:
    if not path.is_file():
        raise ConfigError(f"no such file: {path}; expected FILE.py:NAME")
    module_name = f"gosvae_plugin_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(module_name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{path} cannot be run: {_line(error)}") from error
    if not callable(getattr(module, name, None)):
        raise ConfigError(f"{path} has no class or function {name!r}")
    return getattr(module, name)


def made_by(plugin: Any, name: str, expected: type, *arguments: Any) -> Any:
    """Return what a plugin makes.

    Raises:
        ConfigError: it fails, or makes something else than expected.
    """
    try:
        made = plugin(*arguments)
    except Exception as error:
        raise ConfigError(f"plugin {name!r} fails: {_line(error)}") from error
    if not isinstance(made, expected):
        raise ConfigError(f"plugin {name!r} makes a {type(made).__name__}, expected a gosvae.{expected.__name__}")
    return made


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
