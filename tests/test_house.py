"""Rules of the house that no tool checks: imports without effects, short files, texts fit for every machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import gosvae

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src" / "gosvae"
MAX_FILE_LINES = 400
MAX_WEIGHT_BYTES = 50_000_000

HEAVY = (
    "accelerate",
    "aiohttp",
    "av",
    "bjontegaard",
    "cryptography",
    "diffusers",
    "grpc",
    "lightning_fabric",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "prometheus_client",
    "raptorq",
    "scipy",
    "sionna",
    "stlpips_pytorch",
    "tensorboard",
    "torchmetrics",
    "torchvision",
    "transformers",
    "vector_quantize_pytorch",
)
"""Slow or optional packages: imported by the function that needs them, never by a module."""

PROBE = """
import json, os, sys, threading, warnings
{prepare}
def state():
    kept = {{"files": sorted(os.listdir(".")), "environment": dict(os.environ), "threads": threading.active_count()}}
    if "torch" in sys.modules:
        import torch, random, numpy
        kept["torch"] = [torch.initial_seed(), torch.get_rng_state().sum().item(), str(torch.get_default_dtype()),
                         torch.get_num_threads(), torch.is_grad_enabled()]
        kept["random"] = [hash(random.getstate()), float(numpy.random.get_state()[1].sum())]
    return kept
before = state()
{imports}
after = state()
print(json.dumps({{"heavy": sorted(set({heavy}) & set(sys.modules)), "torch": "torch" in sys.modules,
                  "changed": [key for key in before if before[key] != after[key]]}}))
"""

WALK = """
import importlib, pkgutil
for module in pkgutil.walk_packages(__import__("gosvae").__path__, "gosvae."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def probe(imports: str, folder: Path, *, prepare: str = "") -> dict[str, object]:
    """Run imports in a fresh interpreter with warnings as errors; return which heavy packages came and what changed."""
    program = PROBE.format(imports=imports, heavy=list(HEAVY), prepare=prepare)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    assert not printed, f"importing printed {printed}"
    result: dict[str, object] = json.loads(last)
    return result


def tracked_texts() -> list[tuple[Path, str]]:
    """Files under version control that are UTF-8 text."""
    # Command-line `safe.directory`: the checkout may belong to another user (a container's mount).
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached"]
    listing = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    texts = []
    for name in filter(None, listing.stdout.split("\0")):
        file = REPOSITORY / name
        try:
            texts.append((file, file.read_text(encoding="utf-8")))
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
    return texts


def test_importing_the_package_is_light(tmp_path: Path) -> None:
    result = probe("import gosvae, gosvae.errors, gosvae.cli.main", tmp_path)
    assert result["heavy"] == []
    assert result["torch"] is False
    assert result["changed"] == []


def test_importing_every_module_brings_nothing_heavy_and_changes_nothing(tmp_path: Path) -> None:
    result = probe(WALK, tmp_path, prepare="import torch, numpy")
    assert result["heavy"] == []
    assert result["changed"] == []


def test_files_read_top_to_bottom() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCE.rglob("*.py")}
    assert lengths
    long = {str(file.relative_to(REPOSITORY)): lines for file, lines in lengths.items() if lines > MAX_FILE_LINES}
    assert not long, f"longer than {MAX_FILE_LINES} lines, split them: {long}"


def test_no_text_names_a_path_of_one_machine() -> None:
    # Built from words, so that this file does not find itself. `docs/work/` and `example.org/home/` are no such path.
    machine_path = re.compile(r"(?<![\w.~}/-])/(" + "|".join(("home", "root", "tmp", "work", "Users")) + r")/")
    found = [
        f"{file.relative_to(REPOSITORY)}:{text.count(chr(10), 0, match.start()) + 1}"
        for file, text in tracked_texts()
        for match in machine_path.finditer(text)
    ]
    assert not found, found


def test_embedded_weights_stay_small() -> None:
    weights = sum(file.stat().st_size for file in SOURCE.rglob("*.safetensors"))
    assert weights <= MAX_WEIGHT_BYTES, f"{weights} bytes of embedded weights, at most {MAX_WEIGHT_BYTES} are allowed"


def test_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == version
    assert gosvae.__version__ == version
    assert version in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_requirement_is_pinned() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [*project["dependencies"], *(r for group in project["optional-dependencies"].values() for r in group)]
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").split()

    def normal(requirement: str) -> str:
        return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()

    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    assert {normal(r) for r in required} - {"gosvae"} <= {normal(pin) for pin in pins}


def test_no_two_test_files_have_one_name() -> None:
    """Pytest imports the files of tests by their name alone, and refuses the second."""
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
