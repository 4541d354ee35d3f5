"""The suite itself: what a failed test leaves behind hangs nothing and fails no other test, and a hang has a name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent

LEAVES_A_SERVER = """
import asyncio, gc, socket, threading
import grpc
import pytest
from small_link import run

def test_fails_and_leaves_a_server_and_a_socket():
    async def test():
        server = grpc.aio.server()
        server.add_insecure_port("127.0.0.1:0")
        await server.start()
        opened = [socket.socket()]
        opened.append(opened)  # only a garbage collection destroys it
        assert not server
    run(test)

def test_leaves_a_server():
    async def test():
        server = grpc.aio.server()
        server.add_insecure_port("127.0.0.1:0")
        await server.start()
    run(test)

@pytest.mark.timeout(5)
def test_hangs():
    threading.Event().wait()

def test_collects_garbage():
    gc.collect()
"""


def test_a_failed_test_and_a_hang_leave_the_others_alone(tmp_path: Path) -> None:
    pytest.importorskip("grpc", reason="needs gosvae[serve]")
    (tmp_path / "test_leaves.py").write_text(LEAVES_A_SERVER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path[1:]])}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", str(TESTS.parent / "pyproject.toml"), "-p", "conftest"),
            *("-p", "no:cacheprovider", "--tb", "line", "-rA", str(tmp_path)),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    outcomes = re.findall(r"^(PASSED|FAILED|ERROR) .*::(test_\w+)", done.stdout, re.MULTILINE)
    assert sorted(outcomes) == [
        ("FAILED", "test_fails_and_leaves_a_server_and_a_socket"),
        ("FAILED", "test_hangs"),
        ("FAILED", "test_leaves_a_server"),
        ("PASSED", "test_collects_garbage"),
    ], done.stdout + done.stderr
    assert "a gRPC server was left running" in done.stdout
    assert "Timeout (>5.0s)" in done.stdout
    assert done.returncode == 1
