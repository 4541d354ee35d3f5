#!/usr/bin/env python3
"""Decode the golden streams of every released model in processes with other settings, and compare the symbols.

scripts/environments.py                      # the settings of this machine: threads and sets of instructions
scripts/environments.py --python OTHER/bin/python --python ANOTHER/bin/python    # environments with other libraries

Each process decodes the same committed streams and prints one SHA-256 of all symbols. The script prints a table and
exits with 1 if a process fails or a sum differs from that of the committed symbols. A process takes about 20 s of
processor time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "models"
SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {},
    "1 thread": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    "2 threads": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "no vector instructions in PyTorch": {"ATEN_CPU_CAPABILITY": "default"},
    "AVX2 in PyTorch": {"ATEN_CPU_CAPABILITY": "avx2"},
    "SSE 4.1 in oneDNN": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "AVX2 in oneDNN and in PyTorch": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "no vector instructions in NumPy": {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX"},
}
"""Environment variables of each process."""


def committed_streams(models: list[str]) -> Iterator[Path]:
    """Yield the committed streams and sequences of some models, or of all."""
    for folder in sorted(GOLDEN.iterdir()):
        if folder.is_dir() and (not models or folder.name in models):
            yield from sorted([*folder.glob("*.gsva"), *folder.glob("*.gosv")])


def committed_symbols(path: Path) -> list[np.ndarray]:
    """Return the committed symbols of a stream, or of every frame of a sequence."""
    own = path.with_suffix(".npz")
    symbols = np.load(own if own.exists() else path.with_name("all.npz"))["symbols"]
    return list(symbols) if path.suffix == ".gosv" else [symbols]


def decoded_symbols(path: Path) -> list[np.ndarray]:
    """Return the symbols that a stream, or every frame of a sequence, decodes to here."""
    from gosvae.codecs.label_map import LabelMapCodec
    from gosvae.codecs.layered import LayeredCodec
    from gosvae.codecs.registry import codec_of_stream, sequence_codec_of
    from gosvae.codecs.sequence.file import SequenceFile
    from gosvae.experts.registry import embedded_experts, load_expert

    if path.suffix == ".gosv":
        file = SequenceFile.read(path)
        decoder = sequence_codec_of(file.header).decoder()
        return [decoder.decode_latent(data).symbols for _, data in file.frames()]
    data = path.read_bytes()
    if path.parent.name in embedded_experts():
        return [LabelMapCodec(load_expert(path.parent.name)).class_map(data)]
    codec = codec_of_stream(data)
    return [(codec.task if isinstance(codec, LayeredCodec) else codec).decode(data).symbols]


def sum_of(grids: Iterator[list[np.ndarray]]) -> str:
    """Return the SHA-256 of symbols."""
    found = hashlib.sha256()
    for symbols in grids:
        for grid in symbols:
            found.update(f"{grid.shape}".encode() + np.ascontiguousarray(grid.astype("<i8")).tobytes())
    return found.hexdigest()


def report_of_process(models: list[str]) -> dict[str, object]:
    """Return the sum of the symbols that this process decodes, and the versions of its libraries."""
    import torch

    paths = list(committed_streams(models))
    return {
        "streams": len(paths),
        "sum": sum_of(decoded_symbols(path) for path in paths),
        "versions": f"NumPy {np.__version__}, PyTorch {torch.__version__}, constriction {version('constriction')}",
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def in_process(python: str, settings: dict[str, str], models: list[str]) -> dict[str, object]:
    """Return the report of a process with some settings.

    Raises:
        RuntimeError: the process fails; the message ends with what it printed last.
    """
    command = [python, __file__, "--report", "--models", *models]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a process with {settings} failed: {done.stderr.strip()[-500:]}")
    report: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return report


def main() -> int:
    """Decode in every environment, or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", help="interpreter of an environment; default: this one")
    parser.add_argument("--models", nargs="*", default=[], help="models and experts; default: all")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--report", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.report:
        print(json.dumps(report_of_process(options.models)))
        return 0
    expected = sum_of(committed_symbols(path) for path in committed_streams(options.models))
    rows, same = [], True
    print("| settings | libraries | threads | instructions of PyTorch | streams | symbols |")
    print("|---|---|--:|---|--:|---|", flush=True)
    for python in options.python or [sys.executable]:
        for name, settings in SETTINGS.items():
            report = in_process(python, settings, options.models)
            same &= report["sum"] == expected
            outcome = "the committed ones" if report["sum"] == expected else "OTHERS"
            cells = (name, report["versions"], report["threads"], report["instructions"], report["streams"], outcome)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
            rows.append({"settings": name, "variables": settings, **report})
    if options.json is not None:
        options.json.write_text(json.dumps({"expected": expected, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
