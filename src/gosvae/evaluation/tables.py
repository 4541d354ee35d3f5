"""Tables of an evaluation: Markdown for pages, plain text for terminals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from gosvae.evaluation.cells import caption, cells
from gosvae.evaluation.evaluation import Evaluation
from gosvae.walk import printable

_MARKDOWN = str.maketrans({mark: f"\\{mark}" for mark in "\\|`<>[]*"})


def in_markdown(name: str) -> str:
    """Return a name as Markdown shows it: marks of Markdown and of HTML are escaped, and control characters too."""
    return printable(name).translate(_MARKDOWN)


def markdown_table(evaluation: Evaluation, *, details: bool = False) -> str:
    """Return a Markdown table with aligned columns and a caption.

    Columns without any value are left out. `details` adds bytes without headers, the zero-order entropy and times.
    """
    header, *lines = cells(evaluation.provenance, evaluation.rows, details=details, shown=in_markdown)
    note = caption(evaluation.provenance, evaluation.rows, details=details, shown=in_markdown)
    return f"{markdown_of(header, lines)}\n{note}\n"


def markdown_of(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return cells as a Markdown table: the first column is left-aligned, numbers are right-aligned."""
    widths = _widths([header, *lines])
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(_padded(texts, widths)) + " |" for texts in [header, rule, *lines]) + "\n"


def terminal_table(evaluation: Evaluation, *, details: bool = False) -> str:
    """Return the table for a terminal: columns two spaces apart under a rule."""
    header, *lines = cells(evaluation.provenance, evaluation.rows, details=details)
    widths = _widths([header, *lines])
    rule = ["-" * width for width in widths]
    note = caption(evaluation.provenance, evaluation.rows, details=details)
    table = "\n".join("  ".join(_padded(texts, widths)).rstrip() for texts in [header, rule, *lines])
    return f"{table}\n\n{textwrap.fill(note, max(80, sum(widths)))}\n"


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]


def _padded(texts: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the cells padded to their widths: the first column is left-aligned, numbers are right-aligned."""
    return [texts[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(texts[1:], widths[1:], strict=True))]
