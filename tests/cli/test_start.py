"""The start of the command: what needs no network appears without PyTorch, and errors name the option that helps."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

import gosvae
from gosvae.cli.main import COMMANDS, OPTIONS_BY_ARGUMENT, main, make_parser, message_of
from gosvae.errors import ConfigError

START = """
import json, sys
from gosvae.cli.main import main
try:
    status = main({arguments})
except SystemExit as exit:
    status = exit.code
heavy = {{"torch", "numpy", "pydantic", "PIL", "yaml", "constriction", "tqdm"}}
print()
print(json.dumps([status, sorted(heavy & set(sys.modules))]))
"""


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--version"], 0), (["--help"], 0), (["compres", "photo.jpg"], 2), ([], 2), (["-x"], 2)]
)
def test_the_start_imports_nothing_heavy(arguments: list[str], status: int, tmp_path: Path) -> None:
    program = START.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [status, []]


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gosvae", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"gosvae {gosvae.__version__}\n")


def _commands() -> dict[str, argparse.ArgumentParser]:
    action = next(a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    commands: dict[str, argparse.ArgumentParser] = action.choices
    return commands


def test_the_help_has_one_line_for_each_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()[-len(COMMANDS) :]
    assert [line.split(maxsplit=1) for line in lines] == [[name, summary] for name, (_, summary) in COMMANDS.items()]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_something_to_run(name: str) -> None:
    command = _commands()[name]
    assert f"usage: gosvae {name} " in command.format_help()
    assert callable(command.get_default("run"))


def test_an_error_names_the_option_that_mends_it_where_the_command_has_one() -> None:
    train, info = _commands()["train"], _commands()["info"]
    train.format_help()  # adds the options
    info.format_help()
    assert message_of(ConfigError("no expert", argument="expert"), train) == "no expert (option --expert)"
    assert message_of(ConfigError("no pair", argument="overrides"), train) == "no pair (option --set)"
    assert message_of(ConfigError("no expert", argument="expert"), info) == "no expert"
    assert message_of(ConfigError("nothing to mend"), train) == "nothing to mend"


def test_renamed_options_exist() -> None:
    dests = set()
    for command in _commands().values():
        command.format_help()
        dests |= {action.dest for action in command._actions}
    assert set(OPTIONS_BY_ARGUMENT.values()) <= dests
