"""Provenance of results: code revision, package versions and hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    found = {"python": platform.python_version()}
    for package in ("gosvae", "torch", "numpy", "pillow", "imagecodecs", "constriction"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def revision() -> str | None:
    """Return the Git revision of this module's source tree, with `-dirty` if it has changes; None outside of Git."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    source = Path(__file__)
    try:
        git("ls-files", "--error-unmatch", source.name)  # fails in a repository that only contains the environment
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty") or None
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> str:
    """Return a description of the processor, its cores and the accelerator."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:  # not Linux
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {cores} cores{gpu}"
