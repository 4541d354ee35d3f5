#!/usr/bin/env python3
"""Change single lines of core code with cosmic-ray and count how many changes a test notices; exit 1 below a bar.

scripts/mutate.py --count 120 --minutes 60 --seed 0 --json mutants.json

A sample of the mutants of each module is drawn with a seed. Each is written into a copy of the package, and the tests
of the module run against the copy until the first failure, with a limit of time; they must pass without a mutant. A
mutant takes as long as the start of Python and PyTorch and the tests of its module, about 5 to 15 s of processor time.
A mutant that no test notices has survived: it is printed with its change. Mutants of annotations of functions are left
out, since Python does not evaluate them. cosmic-ray (pip install cosmic-ray) makes the
mutants. A run with another seed, or with --first, tries further ones.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TESTS: dict[str, tuple[str, ...]] = {
    "bitstream.py": ("tests/test_bitstream.py",),
    "entropy/base.py": ("tests/entropy/test_coder.py", "tests/contracts/test_entropy.py"),
    "entropy/coder.py": ("tests/entropy/test_coder.py", "tests/contracts/test_entropy.py"),
    "entropy/mixing.py": ("tests/entropy/test_mixing.py", "tests/codecs/test_class_map.py"),
    "codecs/class_map_scan.py": ("tests/codecs/test_class_map.py",),
    "codecs/class_map_passes.py": ("tests/codecs/test_class_map.py",),
    "quantizers/vq.py": ("tests/quantizers/test_vq.py", "tests/contracts/test_quantizers.py"),
    "quantizers/ema.py": ("tests/quantizers/test_ema.py", "tests/contracts/test_quantizers.py"),
    "quantizers/fsq.py": ("tests/quantizers/test_fsq.py", "tests/contracts/test_quantizers.py"),
    "losses/divergence.py": ("tests/losses/test_divergence.py", "tests/oracles/test_equations.py"),
    "packets/packet.py": ("tests/packets/test_packet.py",),
    "packets/reassembly.py": ("tests/packets/test_reassembly.py",),
    "training/machine/stage.py": ("tests/training/machine/test_stage.py", "tests/training/machine/test_failures.py"),
}
"""Tests by module, below `src/gosvae`."""
CPU_SECONDS, WALL_SECONDS = 120, 1800
"""Limits of the tests of one mutant; a longer run counts as noticed. The limit of processor time comes first."""


@dataclass(frozen=True)
class Mutant:
    """A change of one place.

    Attributes:
        module: path below `src/gosvae`.
        operator: name of the change in cosmic-ray.
        occurrence: number of the place, from 0.
        change: lines that were changed, as a diff without its head.
        outcome: `killed`, `survived`, or `timeout`.
    """

    module: str
    operator: str
    occurrence: int
    change: str
    outcome: str


def candidates(module: Path) -> list[tuple[str, int]]:
    """Return the operators and occurrences of all mutants of a module."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    tree = list(ast_nodes(get_ast_from_path(module)))
    found = []
    for name in sorted(operator_names()):
        try:
            operator = get_operator(name)()
        except TypeError:  # an operator that takes arguments has no mutants without them
            continue
        places = sum(len(list(operator.mutation_positions(node))) for node in tree)
        found += [(name, occurrence) for occurrence in range(places)]
    return found


def mutated(module: Path, operator: str, occurrence: int) -> str | None:
    """Return the text of a module with one change."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    text: str | None = mutate_code(module.read_text(encoding="utf-8"), get_operator(operator)(), occurrence)
    return text


def meaning(text: str) -> str | None:
    """Return the syntax tree of a module without the annotations of its functions; None for invalid syntax."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # such as the operator of `f(*, x)` changed
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
    return ast.dump(tree)


def difference(before: str, after: str) -> str:
    """Return the changed lines."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in lines if line[:3] not in ("---", "+++", "@@ "))


def outcome_of(copy: Path, tests: tuple[str, ...]) -> str:
    """Return what the tests say of the package in a folder."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            ["bash", "-c", f'ulimit -t {CPU_SECONDS}; exec "$@"', "bash", *command],
            cwd=REPOSITORY, env=environment, capture_output=True, timeout=WALL_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "timeout"
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return "timeout"
    return "survived" if done.returncode == 0 else "killed"


def run(modules: list[str], count: int, first: int, seed: int, most_minutes: float) -> Iterator[Mutant]:
    """Yield mutants of a sample that is spread over the modules, each with its outcome."""
    source, end_s = REPOSITORY / "src" / "gosvae", time.monotonic() + 60 * most_minutes
    drawn = random.Random(seed)
    intact: set[str] = set()
    pools = {module: drawn.sample(found := candidates(source / module), len(found)) for module in modules}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "gosvae"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        for number in range(first + count):
            module = modules[number % len(modules)]
            if time.monotonic() > end_s or not pools[module]:
                continue
            operator, occurrence = pools[module].pop()
            if number < first:
                continue
            if module not in intact:
                intact.add(module)
                if outcome_of(Path(folder), TESTS[module]) != "survived":
                    raise SystemExit(f"the tests of {module} fail without a mutant, or take more than {CPU_SECONDS} s")
            before = (source / module).read_text(encoding="utf-8")
            after = mutated(source / module, operator, occurrence)
            if after is None or meaning(after) in (None, meaning(before)):
                continue
            (copy / module).write_text(after, encoding="utf-8")
            result = outcome_of(Path(folder), TESTS[module])
            (copy / module).write_text(before, encoding="utf-8")
            yield Mutant(module, operator, occurrence, difference(before, after), result)


def main() -> int:
    """Run the sample, print the survivors and the score, and write all outcomes if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", choices=[[], *TESTS], help="modules to change; default: all")
    parser.add_argument("--count", type=int, default=60, help="number of mutants, spread over the modules")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant, to continue a sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no mutant after this time")
    parser.add_argument("--bar", type=float, default=0.0, help="least share that must be noticed, 0 to 1")
    parser.add_argument("--json", type=Path, help="file for the outcomes")
    options = parser.parse_args()
    found: list[Mutant] = []
    for mutant in run(options.modules or list(TESTS), options.count, options.first, options.seed, options.minutes):
        found.append(mutant)
        print(f"{mutant.outcome}: {mutant.module} {mutant.operator} {mutant.occurrence}", flush=True)
        if mutant.outcome == "survived":
            print(mutant.change, flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n", encoding="utf-8")
    noticed = sum(mutant.outcome != "survived" for mutant in found)
    print(f"{noticed} of {len(found)} mutants were noticed")
    return 1 if found and noticed < options.bar * len(found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
