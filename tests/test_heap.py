"""Memory that a training frees stays with the process, unless the user has chosen otherwise."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gosvae import heap
from gosvae.cli.main import main
from gosvae.heap import keep_freed_memory

PROGRAM = """
import resource, sys
import torch
from gosvae.heap import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**26)
before = faults()
for _ in range(32):
    torch.ones(2**24)
print(faults() - before)
"""
"""Program that makes and frees a tensor of 64 MiB 32 times, after one of 256 MiB, and prints the number of page
faults."""


class _Library:
    """C library that records the calls of `mallopt`."""

    def __init__(self, result: int = 1, *, glibc: bool = True) -> None:
        self.calls: list[tuple[int, int]] = []
        self._result = result
        if glibc:
            self.gnu_get_libc_version = object()

    def mallopt(self, name: int, value: int) -> int:
        self.calls.append((name, value))
        return self._result


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> _Library:
    """Return the C library of a Linux system with glibc, on which nothing is set."""
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(heap, "sys", SimpleNamespace(platform="linux"))
    return _use(monkeypatch, _Library())


def _use(monkeypatch: pytest.MonkeyPatch, library: _Library) -> _Library:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    return library


def test_glibc_neither_maps_nor_trims(library: _Library) -> None:
    assert keep_freed_memory()
    assert library.calls == [(-4, 0), (-1, -1), (-2, 2**28)]
    assert all(-(2**31) <= value < 2**31 for _, value in library.calls)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_ARENA_MAX", "2"),
        ("MALLOC_TRIM_THRESHOLD_", "1048576"),
        ("GLIBC_TUNABLES", "glibc.malloc.check=1"),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2"),
    ],
)
def test_what_the_user_has_chosen_stays(
    monkeypatch: pytest.MonkeyPatch, library: _Library, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()
    assert not library.calls


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch, library: _Library) -> None:
    musl = _use(monkeypatch, _Library(glibc=False))
    assert not keep_freed_memory()
    monkeypatch.setattr(heap, "sys", SimpleNamespace(platform="darwin"))
    assert not keep_freed_memory()
    assert not musl.calls
    assert not library.calls


def test_a_refusal_of_glibc_is_told(monkeypatch: pytest.MonkeyPatch, library: _Library) -> None:
    assert keep_freed_memory()
    assert library.calls
    refusing = _use(monkeypatch, _Library(result=0))
    assert not keep_freed_memory()
    assert len(refusing.calls) == 3


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="this system has no glibc")
def test_large_tensors_come_without_page_faults() -> None:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    ran = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, mode], env=quiet, capture_output=True, text=True, timeout=120, check=True
        )
        for mode in ("keep", "plain")
    ]
    kept, plain = (int(each.stdout) for each in ran)
    assert kept < plain / 2  # glibc fills a few gaps first


@pytest.mark.parametrize(
    "line",
    [
        "train gosvae --data folder:none",
        "train-expert --data folder:none",
        "train-entropy gosvae-camvid --data folder:none",
        "train-temporal gosvae-variable-camvid --films none",
        "adapt gosvae-variable-camvid --data folder:none --expert embedded",
        "adapt-expert gosvae-camvid --data folder:none",
    ],
)
def test_commands_that_train_keep_memory(
    monkeypatch: pytest.MonkeyPatch, library: _Library, tmp_path: Path, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*line.split()]) == 2  # the images are missing
    assert library.calls
