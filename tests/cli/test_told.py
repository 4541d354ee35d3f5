"""What commands tell beside their results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gosvae.images import write_image
from tiny import streets

PROGRAM = """
import contextlib, io
from gosvae.cli.main import main
for _ in range(2):
    told = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
        status = main(["evaluate", "jpeg:50", "--data", "folder:photos", "--quiet"])
    print(status, told.getvalue().strip())
"""


def test_pictures_that_are_left_out_are_told_to_whoever_calls_the_command(tmp_path: Path) -> None:
    write_image(tmp_path / "photos" / "a.png", streets()[0].image_uint8_HW3)
    (tmp_path / "photos" / "b.HEIC").write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True)
    line = "0 gosvae: left out of photos: .heic (1); convert pictures to PNG or JPEG"
    assert done.stdout.splitlines() == [line, line]
