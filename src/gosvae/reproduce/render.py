"""Rendering of tables and figures as one self-contained HTML page and as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template

from gosvae.reproduce.tables import Table


@dataclass(frozen=True)
class Picture:
    """Figure: an image file beside the report, or None if it could not be made, for the reason in the notes, if any."""

    name: str
    title: str
    file: str | None
    alternative: str
    notes: tuple[str, ...] = ()


Section = Table | Picture

_NOT_YET = "Not made yet."

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --sheet: #fff; --band: #f3f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa4af; --line: #3d444d; --sheet: #0f1318; --band: #181e25; }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--sheet); margin: 0 auto;
  padding: 2rem 1.2rem 4rem; max-width: 82rem; }
h1 { font-size: 1.7rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 3rem; }
p, li { max-width: 52rem; } .note { color: var(--soft); font-size: 0.88rem; }
.scroll { overflow-x: auto; } nav a { margin-right: 1rem; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 13rem; }
thead th { border-bottom: 1px solid var(--ink); font-weight: 600; } thead tr:first-child th { border-bottom: 0; }
th.group { text-align: center; } .first { border-left: 1px solid var(--line); }
tr.added td { background: var(--band); } img { max-width: 100%; height: auto; background: #fff; }
</style>
</head>
<body>
<h1>$title</h1>
$introduction
<nav>$links</nav>
$sections
</body>
</html>
""")


def html_page(title: str, introduction: Sequence[str], sections: Sequence[Section], folder: Path) -> str:
    """Return a self-contained page: the figures in `folder` are part of the file, and nothing is fetched."""
    parts = [_html_table(s) if isinstance(s, Table) else _html_picture(s, folder) for s in sections]
    return _PAGE.substitute(
        title=escape(title),
        introduction="\n".join(f"<p>{escape(line)}</p>" for line in introduction),
        links=" ".join(f'<a href="#{s.name}">{escape(s.title.partition(":")[0])}</a>' for s in sections),
        sections="\n".join(parts),
    )


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="note">{escape(note)}</p>\n' for note in notes)


def _html_table(table: Table) -> str:
    groups = [(name, len(list(members))) for name, members in groupby(table.columns, key=lambda c: c[0])]
    starts, place = set(), 0
    for _, width in groups:
        starts.add(place)
        place += width

    def cell(tag: str, column: int, text: str) -> str:
        mark = ' class="first"' if column in starts and column else ""
        return f"<{tag}{mark}>{escape(text)}</{tag}>"

    top = "".join(f'<th class="group" colspan="{width}">{escape(name)}</th>' for name, width in groups)
    heads = "".join(cell("th", i, column) for i, (_, column) in enumerate(table.columns))
    lines = []
    for line, added in zip(table.lines, table.added, strict=True):
        cells = "".join(cell("td", i, text) for i, text in enumerate(line))
        start = '<tr class="added">' if added else "<tr>"
        lines.append(f"{start}{cells}</tr>")
    body = "\n".join(lines)
    shaded = ("Shaded rows have no number of the paper beside them.",) if any(table.added) else ()
    return (
        f'<h2 id="{table.name}">{escape(table.title)}</h2>\n<div class="scroll"><table>\n<thead><tr>{top}</tr>\n'
        f"<tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n{_notes((*table.notes, *shaded))}"
    )


def _html_picture(picture: Picture, folder: Path) -> str:
    shown = "" if picture.notes else f"<p>{_NOT_YET}</p>"
    if picture.file is not None:
        data = base64.b64encode((folder / picture.file).read_bytes()).decode("ascii")
        kind = picture.file.rpartition(".")[2]
        shown = f'<img src="data:image/{kind};base64,{data}" alt="{escape(picture.alternative)}">'
    return f'<h2 id="{picture.name}">{escape(picture.title)}</h2>\n{shown}\n{_notes(picture.notes)}'


def markdown_report(title: str, introduction: Sequence[str], sections: Sequence[Section]) -> str:
    """Return the same content as Markdown; figures are files beside it."""
    parts = [f"# {title}", *introduction]
    for section in sections:
        parts.append(f"## {section.title}")
        if isinstance(section, Table):
            parts.append(_markdown_table(section))
        elif section.file is not None:
            parts.append(f"![{section.alternative}]({section.file})")
        elif not section.notes:
            parts.append(_NOT_YET)
        parts += section.notes
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    heads = [f"{group}: {name}" if group else name for group, name in table.columns]
    rule = [":---", *["---:"] * (len(heads) - 1)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in [heads, rule, *table.lines]
    )
