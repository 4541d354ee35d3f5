"""What a result was made with: code revision, package versions, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in ("gosvae", "torch", "numpy", "pillow", "imagecodecs", "constriction"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def revision() -> str | None:
    """Git revision of the source tree that this module was imported from, `-dirty` with changes; None outside one."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    source = Path(__file__)
    try:
        git("ls-files", "--error-unmatch", source.name)  # not some repository that an environment happens to lie in
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty") or None
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> str:
    """Processor, its cores and the accelerator, in words."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:  # not Linux
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {cores} cores{gpu}"
