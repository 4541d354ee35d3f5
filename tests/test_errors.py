"""The exception tree is the one that is drawn, and its messages are for both readers: of Python and of the command."""

from __future__ import annotations

import argparse
import ast
import pickle
import re
from pathlib import Path

import pytest

from gosvae import errors
from gosvae.cli.main import COMMANDS, make_parser
from gosvae.errors import ConfigError, GosvaeError

SOURCE = Path(errors.__file__).parent


def drawn_tree() -> dict[str, str]:
    """Parent of each class by the drawing in the module's docstring."""
    parents, open_branches = {}, ["GosvaeError"]
    for line in (errors.__doc__ or "").splitlines():
        branch = re.match(r" {4}([│ ]*)[├└]── (\w+)", line)
        if branch:
            depth = len(branch[1]) // 4 + 1
            open_branches[depth:] = [branch[2]]
            parents[branch[2]] = open_branches[depth - 1]
    return parents


def test_the_drawing_shows_every_error_at_its_place() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, GosvaeError)]
    assert drawn_tree() == {c.__name__: c.__base__.__name__ for c in classes if c is not GosvaeError and c.__base__}


def test_an_error_keeps_its_argument_on_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ConfigError("no expert", argument="expert")))
    assert (str(error), error.argument) == ("no expert", "expert")


def flags() -> set[str]:
    """Options of all commands that begin with two dashes."""
    action = next(a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    found: set[str] = set()
    for name in COMMANDS:
        command = action.choices[name]
        command.format_help()
        found |= {option for a in command._actions for option in a.option_strings if option.startswith("--")}
    return found


@pytest.mark.parametrize("suffix", [".py", ".yaml"])
def test_no_text_of_the_library_names_an_option_of_the_command(suffix: str) -> None:
    known = flags()
    assert {"--expert", "--set"} <= known
    found = []
    for file in SOURCE.rglob(f"*{suffix}"):
        if file.is_relative_to(SOURCE / "cli"):
            continue
        text = file.read_text(encoding="utf-8")
        strings = [text]
        if suffix == ".py":
            strings = [n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant)]
        for string in strings:
            if isinstance(string, str):
                named = known & set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", string))
                found += [f"{file.relative_to(SOURCE)}: {flag}" for flag in sorted(named)]
    assert not found, found
