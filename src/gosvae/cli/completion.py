"""`gosvae completion`: a script with which a shell completes commands, options and files."""

from __future__ import annotations

import argparse

from gosvae.cli.main import make_parser
from gosvae.extras import needs

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")

EXAMPLES = """\
examples:
  gosvae completion bash > ~/.local/share/bash-completion/completions/gosvae
  gosvae completion zsh > ~/.zfunc/_gosvae            # a folder of $fpath
  gosvae completion fish > ~/.config/fish/completions/gosvae.fish
"""


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae completion`."""
    parser.epilog = EXAMPLES
    parser.add_argument("shell", choices=SHELLS, help="shell to print the script for")
    parser.set_defaults(run=run_completion)


def run_completion(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    with needs("completion", "shell completion"):
        import shtab
    parser = make_parser()
    for command in _commands(parser):
        command.format_help()  # adds the options of the command
        for action in command._actions:
            if _takes_a_path(action):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, options.shell))
    return 0


def _commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return list(action.choices.values())


def _takes_a_path(action: argparse.Action) -> bool:
    """Whether files are offered: wherever no list of choices, number or flag says that something else is expected."""
    return action.nargs != 0 and action.choices is None and action.type not in (int, float)
