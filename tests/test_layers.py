"""The layers of the package, read from the source: a module imports lower layers only.

A group is a module or a package directly under `gosvae`; inside one package imports are free. Imports within functions
and under `TYPE_CHECKING` count too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "gosvae"

LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "units",
        "tensors",
        "config",
        "seeding",
        "files",
        "precision",
        "provenance",
        "wire",
        "fields",
        "extras",
        "walk",
        "plugins",
        "interruption",
        "heap",
        "weights",
    ),
    ("nn", "images"),
    ("encoders", "decoders", "quantizers", "entropy", "bitstream", "channels", "experts", "datasets", "diffusion"),
    ("losses", "metrics"),
    ("tasks", "codecs"),
    ("packets", "protocol"),
    ("sender", "receiver"),
    ("training", "evaluation"),
    ("recipes", "reproduce", "cli", "demo", "link"),
)
LAYER_OF = {group: number for number, groups in enumerate(LAYERS) for group in groups}
ROOT = "gosvae"
"""The package's own `__init__` and `__main__`: they may import everything and nothing inside imports them."""

SIBLINGS_MAY_IMPORT = {0, 4, 7, 8}
"""Layers whose members know each other; elsewhere one contract never sees another."""


def group_of(module: str) -> str:
    """`gosvae.experts.base` -> `experts`; `gosvae` and `gosvae.__main__` -> `gosvae`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and not parts[1].startswith("__") else ROOT


def imported_modules(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Modules of this package that a file imports, with the line; `from gosvae import errors` names `gosvae.errors`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            module = node.module or ""
            names = [f"{ROOT}.{alias.name}" for alias in node.names] if module == ROOT else [module]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "import_module":
            name = node.args[0]
            names = [name.value] if isinstance(name, ast.Constant) and isinstance(name.value, str) else []
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == ROOT)


def violation(importer: str, imported: str) -> str | None:
    """Why group `importer` may not import group `imported`, or None where it may."""
    if importer in (imported, ROOT):
        return None
    if imported == ROOT:
        return "the package's root is for users, inside import the module itself"
    if unlisted := {importer, imported} - LAYER_OF.keys():
        return f"{sorted(unlisted)} has no layer"
    low, high = LAYER_OF[imported], LAYER_OF[importer]
    if low > high:
        return f"layer {high} may not import layer {low}"
    if low == high and high not in SIBLINGS_MAY_IMPORT:
        return f"siblings of layer {high} do not import each other"
    return None


def module_of(file: Path) -> str:
    """`src/gosvae/experts/base.py` -> `gosvae.experts.base`; a package's `__init__` is the package."""
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> list[tuple[str, Path]]:
    """All source files with the group that each belongs to."""
    files = sorted(SOURCE.rglob("*.py"))
    assert files, f"no sources under {SOURCE}"
    return [(group_of(module_of(file)), file) for file in files]


def all_imports() -> list[tuple[str, str, str]]:
    """(importing group, imported group, file and line) for every import within the package."""
    found = []
    for group, file in sources():
        for module, line in imported_modules(ast.parse(file.read_text(encoding="utf-8"))):
            place = f"{file.relative_to(SOURCE.parents[1])}:{line}"
            found.append((group, group_of(module), place))
    return found


def test_every_module_has_a_layer() -> None:
    unlisted = {group for group, _ in sources() if group not in {*LAYER_OF, ROOT}}
    assert not unlisted, f"put {sorted(unlisted)} into a layer of LAYERS (and into the table of CONTRIBUTING.md)"


def test_modules_import_lower_layers_only() -> None:
    broken = [
        f"{place}: {importer} imports {imported}: {why}"
        for importer, imported, place in all_imports()
        if (why := violation(importer, imported))
    ]
    assert not broken, "\n".join(broken)


def test_modules_form_no_cycle() -> None:
    """The same for modules inside one package and for siblings that may know each other."""
    modules = {module_of(file): file for _, file in sources()}
    graph: dict[str, set[str]] = {}
    for module, file in modules.items():
        for imported, _ in imported_modules(ast.parse(file.read_text(encoding="utf-8"))):
            parts = imported.split(".")
            # Importing a.b.c runs a and a.b first; the importer's own packages are running already.
            needed = {".".join(parts[: depth + 1]) for depth in range(1, len(parts))} & modules.keys()
            graph.setdefault(module, set()).update(n for n in needed if not module.startswith(f"{n}.") and n != module)
    TopologicalSorter(graph).prepare()  # raises CycleError with the cycle


def importers(module: str) -> dict[str, list[tuple[int, bool]]]:
    """Modules outside of `module` that import it or a part of it: lines, and whether within a function."""
    found: dict[str, list[tuple[int, bool]]] = {}
    for _, file in sources():
        importer = module_of(file)
        if f"{importer}.".startswith(f"{module}."):
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        late = {line for node in functions for _, line in imported_modules(node)}
        for imported, line in imported_modules(tree):
            if f"{imported}.".startswith(f"{module}."):
                found.setdefault(importer, []).append((line, line in late))
    return found


def test_the_core_never_imports_the_reproduction_of_the_paper() -> None:
    found = importers("gosvae.reproduce")
    assert found, "the commands import it"
    assert {group_of(importer) for importer in found} <= {"cli", "recipes"}, found


def test_the_painter_of_streets_is_loaded_by_the_registry_of_data_sets_when_it_is_asked_for() -> None:
    found = importers("gosvae.datasets.streets")
    assert set(found) == {"gosvae.datasets.registry"}
    assert all(late for _, late in found["gosvae.datasets.registry"])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n    from gosvae.datasets.base import Sample", [("gosvae.datasets.base", 2)]),
        ("import numpy, gosvae.units", [("gosvae.units", 1)]),
        ("from gosvae import errors", [("gosvae.errors", 1)]),
        ("import gosvae_other", []),
        ("importlib.import_module('gosvae.units')", [("gosvae.units", 1)]),
        ("import_module(name)", []),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, expected: list[tuple[str, int]]) -> None:
    assert list(imported_modules(ast.parse(source))) == expected


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("codecs", "entropy", True),
        ("entropy", "codecs", False),
        ("experts", "datasets", False),
        ("experts", "experts", True),
        ("losses", "metrics", False),
        ("training", "evaluation", True),
        ("sender", "receiver", False),
        ("receiver", "sender", False),
        ("units", "gosvae", False),
        ("gosvae", "cli", True),
    ],
)
def test_the_rule_itself(importer: str, imported: str, allowed: bool) -> None:
    assert (violation(importer, imported) is None) == allowed
