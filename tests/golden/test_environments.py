"""Symbols are the same whatever the number of threads and the instructions; `scripts/environments.py` tries more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "environments.py"


def test_other_instructions_and_threads_decode_the_same_symbols() -> None:
    """One process without vector instructions and with one thread, for the context model in integers."""
    code = (
        "import os, sys; sys.path.insert(0, os.path.dirname(sys.argv[1])); import environments as e;"
        "e.SETTINGS = {'plain': {'OMP_NUM_THREADS': '1', 'ATEN_CPU_CAPABILITY': 'default',"
        " 'ONEDNN_MAX_CPU_ISA': 'SSE41'}}; sys.argv[1:] = ['--models', 'gosvae-k16-camvid']; sys.exit(e.main())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| 1 | DEFAULT | 6 | the committed ones |" in done.stdout
