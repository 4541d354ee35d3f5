"""The `gosvae` command: parses, dispatches, and turns errors into one line and exit status 2."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from gosvae.cli import demo, entropy, evaluate, evaluate_link, inspect, receive, reproduce, send, streams, train
from gosvae.errors import GosvaeError


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind every option that has one to tell, and examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        plain = action.default is None or action.default is False or action.default == []
        return action.help if plain else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, without the whole usage before it; commands inherit it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="gosvae",
        description="A goal-oriented image codec: sends what a perception model needs, in a fraction of the bytes.",
    )
    parser.add_argument("--version", action="version", version=f"gosvae {version('gosvae')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (demo, train, evaluate, evaluate_link, entropy, reproduce, streams, send, receive, inspect):
        module.add_commands(commands, _HelpFormatter)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 2 an error that the user can mend, 130 interrupted."""
    logging.basicConfig(level=logging.WARNING, format="gosvae: %(message)s")
    options = make_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except GosvaeError as error:
        print(f"gosvae: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gosvae: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # the file system's own word on a path, such as a missing permission
        print(f"gosvae: error: {error.filename or 'file system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    raise SystemExit(main())
