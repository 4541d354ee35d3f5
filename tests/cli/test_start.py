"""The start of the command: what needs no network appears without PyTorch, and errors name the option that helps."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gosvae
from gosvae.cli import main as main_module
from gosvae.cli.main import COMMANDS, EXIT_STATUS, OPTIONS_BY_ARGUMENT, main, make_parser, message_of
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
    text = capsys.readouterr().out.removesuffix(f"\n{EXIT_STATUS}\n")
    lines = text.splitlines()[-len(COMMANDS) :]
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


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_a_defect_is_one_line_that_says_how_to_report_it(
    debug: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: argparse.Namespace) -> int:
        raise ValueError("caf\udce9\x1b[2J\nnext")

    def add(parser: argparse.ArgumentParser) -> None:
        parser.set_defaults(run=fail)

    monkeypatch.setattr(main_module, "import_module", lambda _: argparse.Namespace(add_info=add))
    assert main(["info", *debug]) == 70
    text = capsys.readouterr().err
    line = text.splitlines()[-1]
    assert line.startswith(
        "gosvae: error: ValueError: caf\\xe9\\x1b[2J\\nnext; this is a defect of gosvae: please report"
    )
    assert ("Traceback (most recent call last)" in text) == bool(debug)
    assert debug or text.count("\n") == 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "much"])
@pytest.mark.parametrize(
    "command", [("compress", "a.png", "--kib"), ("send", "a.png", "--kbps"), ("evaluate-link", "--data", "x", "--kib")]
)
def test_numbers_that_are_none_are_refused(
    command: tuple[str, ...], value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, value])
    assert caught.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "expected a" in line or "expected one argument" in line  # -inf looks like an option


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh", "powershell"])
def test_completion_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*COMMANDS, "skip-existing", "slice-layout", "interleaved"):
        assert word in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    words = "COMP_WORDS=(gosvae decompress --skip); COMP_CWORD=2"
    program = f"source ./script; {words}; _shtab_gosvae; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "--skip-existing"


def test_renamed_options_exist() -> None:
    dests = set()
    for command in _commands().values():
        command.format_help()
        dests |= {action.dest for action in command._actions}
    assert set(OPTIONS_BY_ARGUMENT.values()) <= dests
