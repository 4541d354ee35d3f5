"""The `gosvae` command: parses, dispatches, and turns errors into one line and exit status 2.

The module of a command is imported when the command is called, so that the version, the help and a refusal of an
unknown command appear at once, without PyTorch.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from gosvae.errors import GosvaeError, unknown_name

COMMANDS = {
    "compress": ("streams:add_compress", "compress images"),
    "decompress": ("streams:add_decompress", "reconstruct images"),
    "info": ("inspect:add_info", "describe a stream, a checkpoint or a model"),
    "list": ("inspect:add_list", "list recipes, experts, data sets and codecs"),
    "demo": ("demo:add_demo", "compare the package's models with JPEG, AVIF and others"),
    "evaluate": ("evaluate:add_evaluate", "measure codecs: bytes, task quality, distortion"),
    "evaluate-link": ("evaluate_link:add_evaluate_link", "measure codecs over channels that lose or damage packets"),
    "entropy": ("entropy:add_entropy", "measure the entropy models of a codec: bits, bytes, times"),
    "train": ("train:add_train", "train a codec against an expert"),
    "train-expert": ("train:add_train_expert", "train an expert on labelled images"),
    "train-entropy": ("entropy:add_train_entropy", "train a context model of a codec, for fewer bytes"),
    "adapt-expert": ("train:add_adapt_expert", "fine-tune an expert on a codec's images, without labels"),
    "export": ("train:add_export", "copy a finished codec without its training state"),
    "send": ("send:add_send", "send images to a receiver"),
    "receive": ("receive:add_receive", "receive images, apply the expert, answer, show a live page"),
    "reproduce": ("reproduce:add_reproduce", "make the paper's tables and figures"),
}
"""Commands by name: the function that adds its options, as MODULE:FUNCTION under `gosvae.cli`, and its summary."""

OPTIONS_BY_ARGUMENT = {"use_labels": "no_labels", "client_authority": "client_ca", "token": "token_file"}
"""Options whose name is not that of the argument of the Python API that they stand for."""


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the default of every option that has one, and examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if isinstance(default, list) and default:
            return f"{action.help} (default: {' '.join(str(value) for value in default)})"
        hidden = default is None or default is False or default == []
        return action.help if hidden else super()._get_help_string(action)


class _Version(argparse.Action):
    """Prints the version of the installed package."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version  # imported here: no other command waits for it

        print(f"gosvae {version('gosvae')}")
        parser.exit()


class _MainHelpFormatter(argparse.HelpFormatter):
    """Gives each command one line: argparse does not count that commands are indented further than options."""

    def format_help(self) -> str:
        self._action_max_length += self._indent_increment
        return super().format_help()


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, without the whole usage before it; commands inherit it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


class _MainParser(_Parser):
    """Parser of the command's name, which it corrects where it is unknown."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action.choices, dict) and value not in action.choices:
            self.error(unknown_name("command", str(value), action.choices))


class _CommandParser(_Parser):
    """Parser of one command, whose options are added when they are needed first."""

    place = ""

    def _load(self) -> None:
        if self.place:
            module, function = self.place.split(":")
            self.place = ""
            add: Callable[[argparse.ArgumentParser], None] = getattr(import_module(f"gosvae.cli.{module}"), function)
            add(self)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        self._load()
        return super().parse_known_args(*args, **kwargs)

    def format_help(self) -> str:
        self._load()
        return super().format_help()


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _MainParser(
        prog="gosvae",
        formatter_class=_MainHelpFormatter,
        description="A goal-oriented image codec: sends what a perception model needs, in a fraction of the bytes.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_CommandParser)
    for name, (place, summary) in COMMANDS.items():
        sentence = f"{summary[0].upper()}{summary[1:]}."
        command = commands.add_parser(name, help=summary, description=sentence, formatter_class=_HelpFormatter)
        command.place = place
        command.set_defaults(parser=command)
    return parser


def message_of(error: GosvaeError, parser: argparse.ArgumentParser) -> str:
    """Return an error's line; where the command has an option for what mends it, that option stands behind."""
    dest = OPTIONS_BY_ARGUMENT.get(error.argument or "", error.argument)
    for action in parser._actions if dest else ():
        if action.dest == dest and action.option_strings:
            return f"{error} (option {action.option_strings[-1]})"
    return str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 2 an error that the user can mend, 130 interrupted."""
    logging.basicConfig(level=logging.WARNING, format="gosvae: %(message)s")
    options = make_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except GosvaeError as error:
        print(f"gosvae: error: {message_of(error, options.parser)}", file=sys.stderr)
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
