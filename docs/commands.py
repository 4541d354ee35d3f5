"""A hook of MkDocs: the page of all commands, made from the parser that runs them."""

from __future__ import annotations

import argparse
from functools import partial

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from gosvae.cli.main import make_parser

WIDTH = 88


def page() -> str:
    """Markdown with the help text of every command."""
    parser = make_parser()
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    lines = ["# Commands", "", "What `gosvae --help` and `gosvae COMMAND --help` print."]
    lines += ["", "```text", parser.format_help().rstrip(), "```"]
    for name, command in commands.choices.items():
        command.formatter_class = partial(command.formatter_class, width=WIDTH)
        lines += ["", f"## gosvae {name}", "", "```text", command.format_help().rstrip(), "```"]
    return "\n".join(lines) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site."""
    files.append(File.generated(config, "cli.md", content=page()))
    return files
