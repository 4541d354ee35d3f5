"""The `gosvae` command: parses, dispatches, and turns every error into one line and an exit status.

The module of a command is imported when the command is called, so that the version, the help and a refusal of an
unknown command appear at once, without PyTorch.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NoReturn

from gosvae.errors import GosvaeError, unknown_name
from gosvae.walk import printable

COMMANDS = {
    "compress": ("streams:add_compress", "compress images"),
    "decompress": ("streams:add_decompress", "reconstruct images"),
    "truncate": ("truncate:add_truncate", "make streams shorter, without a model"),
    "info": ("inspect:add_info", "describe a stream, a checkpoint or a model"),
    "list": ("inspect:add_list", "list recipes, experts, data sets and codecs"),
    "demo": ("demo:add_demo", "compare the package's models with JPEG, AVIF and others"),
    "check": ("check:add_check", "check that an expert fits a data set"),
    "evaluate": ("evaluate:add_evaluate", "measure codecs: bytes, task quality, distortion"),
    "evaluate-link": ("evaluate_link:add_evaluate_link", "measure codecs over channels that lose or damage packets"),
    "evaluate-video": (
        "evaluate_video:add_evaluate_video",
        "measure video codecs on clips: kbit/s, task quality",
    ),
    "entropy": ("entropy:add_entropy", "measure the entropy models of a codec: bits, bytes, times"),
    "train": ("train:add_train", "train a codec against an expert"),
    "train-expert": ("train:add_train_expert", "train an expert on labelled images"),
    "train-entropy": ("entropy:add_train_entropy", "train a context model of a codec, for fewer bytes"),
    "train-temporal": ("temporal:add_train_temporal", "train a temporal model of a codec, for videos"),
    "adapt": ("adapt:add_adapt", "tune a small part of a codec's decoder to another expert"),
    "adapt-expert": ("train:add_adapt_expert", "fine-tune an expert on a codec's images, without labels"),
    "export": ("train:add_export", "copy a finished codec without its training state"),
    "send": ("send:add_send", "send images to a receiver"),
    "receive": ("receive:add_receive", "receive images, apply the expert, answer, show a live page"),
    "reproduce": ("reproduce:add_reproduce", "make the paper's tables and figures"),
    "completion": ("completion:add_completion", "print the completion script of a shell"),
}
"""Commands by name: the function that adds their options (MODULE:FUNCTION under `gosvae.cli`), and their summary."""

EXIT_STATUS = """\
exit status:
  0    done
  1    done, but some of several inputs could not be used; each of them is named on standard error
  2    refused, or nothing could be done: one line on standard error says why
  70   a defect of gosvae
  130  interrupted (Ctrl-C)
  141  the reader of standard output has gone"""

OPTIONS_BY_ARGUMENT = {
    "use_labels": "no_labels",
    "client_authority": "client_ca",
    "token": "token_file",
    "verify": "no_verify",
}
"""Names of options by the argument of the Python API that they stand for, where the two names differ."""


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help formatter that shows the default of every option that has one, and examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if isinstance(default, list) and default:
            return f"{action.help} (default: {' '.join(str(value) for value in default)})"
        hidden = default is None or default is False or default == []
        return action.help if hidden else super()._get_help_string(action)


class _StandardError(logging.StreamHandler[Any]):
    """Writes to what standard error is at the time: programs that call `main` may replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.setStream(sys.stderr)
        super().emit(record)


class _Version(argparse.Action):
    """Option that prints the version of the installed package."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import version  # imported here, so that no other command waits for it

        print(f"gosvae {version('gosvae')}")
        parser.exit()


class _MainHelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help formatter that leaves room for each command on one line: commands are indented further than options."""

    def format_help(self) -> str:
        self._action_max_length += self._indent_increment
        return super().format_help()


class _Parser(argparse.ArgumentParser):
    """Parser that reports an error in one line, without the usage before it; parsers of commands inherit this."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", float, _finite)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def _finite(text: str) -> float:
    """Return the number of an option: `nan` and `inf` are refused, since no option has a meaning for them."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}")
    return value


class _MainParser(_Parser):
    """Parser of the command's name; for an unknown name it suggests a similar one."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action.choices, dict) and value not in action.choices:
            self.error(unknown_name("command", str(value), action.choices))


class _CommandParser(_Parser):
    """Parser of one command, whose options are added when they are first needed."""

    place = ""

    def _load(self) -> None:
        if self.place:
            module, function = self.place.split(":")
            self.place = ""
            add: Callable[[argparse.ArgumentParser], None] = getattr(import_module(f"gosvae.cli.{module}"), function)
            add(self)
            _add_debug(self)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        self._load()
        return super().parse_known_args(*args, **kwargs)

    def format_help(self) -> str:
        self._load()
        return super().format_help()


def _add_debug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="print the traceback of an error too"
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _MainParser(
        prog="gosvae",
        formatter_class=_MainHelpFormatter,
        description="A goal-oriented image codec: sends what a perception model needs, in a fraction of the bytes.",
        epilog=EXIT_STATUS,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    _add_debug(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_CommandParser)
    for name, (place, summary) in COMMANDS.items():
        sentence = f"{summary[0].upper()}{summary[1:]}."
        command = commands.add_parser(name, help=summary, description=sentence, formatter_class=_HelpFormatter)
        command.place = place
        command.set_defaults(parser=command)
    return parser


def message_of(error: GosvaeError, parser: argparse.ArgumentParser) -> str:
    """Return the printable line of an error, followed by the option of the command that mends it, if there is one."""
    line = printable(str(error))
    dest = OPTIONS_BY_ARGUMENT.get(error.argument or "", error.argument)
    for action in parser._actions if dest else ():
        if action.dest == dest and action.option_strings:
            return f"{line} (option {action.option_strings[-1]})"
    return line


def _refuse(line: str, options: argparse.Namespace, status: int = 2) -> int:
    """Print the line of an error, after its traceback if that was asked for, and return the exit status."""
    if getattr(options, "debug", False):
        traceback.print_exc()
    print(f"gosvae: error: {line}", file=sys.stderr)
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status, see `EXIT_STATUS`."""
    logging.basicConfig(level=logging.WARNING, format="gosvae: %(message)s", handlers=[_StandardError()])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a character that the terminal lacks never ends a command
    options = make_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except GosvaeError as error:
        return _refuse(message_of(error, options.parser), options)
    except KeyboardInterrupt:
        print("gosvae: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output, such as `| head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # an error of the file system for a path, such as a missing permission
        return _refuse(printable(f"{error.filename or 'file system'}: {error.strerror or error}"), options)
    except Exception as error:  # a defect
        advice = "this is a defect of gosvae: please report it, with the output of the same command and --debug"
        return _refuse(printable(f"{type(error).__name__}: {error}; {advice}"), options, status=70)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
