"""A hook of MkDocs: one reference page for each module or package of `gosvae`, found in the source, so none is missing.

A page holds the docstrings (mkdocstrings renders them); there is nothing here to keep up to date.
"""

from __future__ import annotations

import ast
import re
from operator import itemgetter
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def pages(source: Path) -> dict[str, str]:
    """Markdown by path: public modules and packages under `source`, those without any content left out."""
    found = {}
    for entry in sorted(source.iterdir()):
        name = entry.stem
        files = sorted(entry.rglob("*.py")) if entry.is_dir() else [entry]
        if name.startswith("_") or not any(file.suffix == ".py" and file.stat().st_size for file in files):
            continue
        found[f"reference/{name}.md"] = f"# gosvae.{name}\n\n::: gosvae.{name}\n"
    return found


def summary(source: Path, name: str) -> str:
    """First line of a module's docstring; empty where it has none."""
    file = source / f"{name}.py"
    file = file if file.is_file() else source / name / "__init__.py"
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def public_names(source: Path) -> str:
    """Table of the names at the root of the package, from its stub."""
    stub = (source / "__init__.pyi").read_text(encoding="utf-8")
    found = re.findall(r"^from ([\w.]+) import (\w+) as \2$", stub, re.MULTILINE)
    rows = [f"| [`gosvae.{name}`][{module}.{name}] | `{module}` |" for module, name in sorted(found, key=itemgetter(1))]
    return "| name | defined in |\n|---|---|\n" + "\n".join(rows) + "\n"


def source_of(config: MkDocsConfig) -> Path:
    """The package's folder, beside the configuration file."""
    return Path(config.config_file_path).parent / "src" / "gosvae"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages to the navigation."""
    names = [Path(path).stem for path in pages(source_of(config))]
    listed = [{name: f"reference/{name}.md"} for name in names]
    config.nav = [*(config.nav or []), {"Reference": [{"Overview": "reference/index.md"}, *listed]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and their overview to the site."""
    source = source_of(config)
    contents = pages(source)
    rows = [f"| [`{Path(path).stem}`]({Path(path).name}) | {summary(source, Path(path).stem)} |" for path in contents]
    overview = (
        "# Reference\n\nMade from the docstrings.\n\n## Modules\n\n| module | what it holds |\n|---|---|\n"
        + "\n".join(rows)
    )
    overview += "\n\n## Public names\n\nThe interface for programs; all other names may change in any version.\n\n"
    overview += public_names(source)
    for path, content in {**contents, "reference/index.md": overview + "\n"}.items():
        files.append(File.generated(config, path, content=content))
    return files
