"""The pages keep to the code: marked Python blocks run, and every command in a shell block is one that parses."""

from __future__ import annotations

import ast
import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gosvae
from conftest import REPOSITORY
from gosvae.cli.main import make_parser
from gosvae.codecs import registry
from gosvae.codecs.checkpoint import save_codec
from gosvae.recipes import load_recipe, recipe_names
from gosvae.training.codecs import TrainableRecipe
from tiny import checkpoint, streets, variable_checkpoint

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
FENCE = re.compile(r"^(<!-- tested -->\n+)?```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TESTED = [page for page in PAGES if "<!-- tested -->" in page.read_text(encoding="utf-8")]


def blocks(page: Path, language: str, *, marked: bool = False) -> Iterator[tuple[str, str]]:
    """(what stands behind the language, code) of a page's fenced blocks."""
    for mark, name, more, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if name == language and (mark or not marked):
            yield more.strip(), code


def commands(page: Path) -> Iterator[list[str]]:
    """Words of each command line in a page's shell blocks; continued lines are one."""
    for _, code in blocks(page, "sh"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a picture, a folder of images and the recipe files that the pages show."""
    (tmp_path / "images").mkdir()
    for sample in (streets()[i] for i in range(3)):
        Image.fromarray(sample.image_uint8_HW3).save(tmp_path / "images" / f"{sample.name}.png")
    Image.fromarray(np.full((48, 64, 3), 127, np.uint8)).save(tmp_path / "street.jpg")
    for page in PAGES:
        for more, code in blocks(page, "yaml"):
            title = re.fullmatch(r'title="([\w-]+\.yaml)"', more)
            if title:
                (tmp_path / title[1]).write_text(code)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", TESTED, ids=lambda page: page.stem)
def test_marked_python_runs(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A small stand-in for the released model: pages are right or wrong whatever its weights are.
    save_codec(workplace / "models" / registry.DEFAULT_CODEC, variable_checkpoint(name=registry.DEFAULT_CODEC))
    save_codec(workplace / "models" / registry.PAPER_CODEC, checkpoint(name=registry.PAPER_CODEC))
    monkeypatch.setattr(registry, "models_folder", lambda: workplace / "models")
    before = set(workplace.iterdir())
    names: dict[str, Any] = {"__name__": "__page__"}  # the blocks of a page are one program
    code = [code for _, code in blocks(page, "python", marked=True)]
    assert code
    for block in code:
        exec(compile(block, str(page), "exec"), names)
    assert set(workplace.iterdir()) > before  # each page's program leaves a file


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_uses_public_names_only(page: Path) -> None:
    for _, code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            match node:
                case ast.ImportFrom(module=str(module), names=names) if module.partition(".")[0] == "gosvae":
                    assert module == "gosvae", f"{page.name}: from {module} import ..."
                    assert {alias.name for alias in names} <= set(gosvae.__all__), ast.unparse(node)
                case ast.Import(names=names):
                    assert not [alias.name for alias in names if alias.name.startswith("gosvae.")], ast.unparse(node)
                case ast.Attribute(value=ast.Name(id="gosvae"), attr=name):
                    assert name in gosvae.__all__, f"{page.name}: gosvae.{name}"


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for words in commands(page):
        line = " ".join(words)
        if words[0] == "make":
            for target in (word for word in words[1:] if "=" not in word):
                assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), line
        if words[0].startswith(("scripts/", ".ci/")):
            assert (REPOSITORY / words[0]).is_file(), line
        if words[0].rpartition("/")[2] != "gosvae":
            continue
        try:
            options = make_parser().parse_args(words[1:])
        except SystemExit:
            pytest.fail(f"{page.name}: {line}: {capsys.readouterr().err}")
        if "recipe" in options and "$" not in line:  # a shell variable of a loop is not known here
            load_recipe(options.recipe, options.overrides)


def test_the_unit_and_the_image_of_the_service_start_a_command_that_parses(tmp_path: Path) -> None:
    page = REPOSITORY / "docs" / "service.md"
    (unit,) = (code for _, code in blocks(page, "ini"))
    (image,) = (code for _, code in blocks(page, "dockerfile"))
    starts = [shlex.split(line.partition("=")[2]) for line in joined(unit) if line.startswith("ExecStart=")]
    starts += [json.loads(line.partition(" ")[2]) for line in joined(image) if line.startswith("ENTRYPOINT ")]
    assert len(starts) == 2
    for program, *words in starts:
        assert program.rpartition("/")[2] == "gosvae"
        assert make_parser().parse_args(words).run.__name__ == "run_receive"
    assert configparser.ConfigParser(strict=False, interpolation=None).read_string(unit) is None
    (check,) = (line.partition("CMD ")[2] for line in joined(image) if line.startswith("HEALTHCHECK "))
    program, option, code = json.loads(check)
    assert (program, option) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    if shutil.which("systemd-analyze"):
        file = tmp_path / "gosvae-receive.service"
        file.write_text(unit.replace("/opt/gosvae/bin/gosvae", sys.executable))
        done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def joined(code: str) -> list[str]:
    """Return the lines of a file whose lines may be continued with a backslash."""
    return code.replace("\\\n", " ").splitlines()


def test_recipes_of_the_table_are_those_of_the_package() -> None:
    page = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \|[^|\n]*\|[^|\n]*\| ([^|`\n]+) \|$", page, re.MULTILINE)
    assert sorted(name for name, _ in rows) == recipe_names()
    for name, cell in rows:
        terms = [set(stage.split(" + ")) for stage in cell.split(", then ")]
        recipe = load_recipe(name)
        assert [set(stage.weights) - {"codebook", "commitment"} for stage in recipe.stages] == terms, name
        table = re.search(r"Table (I|IV)\b", recipe.reference or "") if isinstance(recipe, TrainableRecipe) else None
        assert table is None or name == "gosvae-finetune" or f"| `{name}` | {table[0]}, " in page, name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_front_pages_exist(page: str) -> None:
    # MkDocs checks the links of the other pages.
    links = re.findall(r"\]\(([^)#\s]+)", (REPOSITORY / page).read_text(encoding="utf-8"))
    assert all("://" in link or (REPOSITORY / link).is_file() for link in links), links


def test_docs_hold_figures_and_tables_only() -> None:
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "docs"]
    listing = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    files = [REPOSITORY / name for name in filter(None, listing.stdout.split("\0"))]
    assert not [file for file in files if file.name == "evaluation.json" or file.suffix == ".html"]
    assert sum(file.stat().st_size for file in files if file.is_file()) < 3_500_000


def test_tests_that_the_pages_name_exist() -> None:
    for page in PAGES:
        for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text(encoding="utf-8")):
            text = (REPOSITORY / path).read_text(encoding="utf-8")
            assert not name or f"\ndef {name}(" in text, f"{page.name}: {path}::{name}"
