"""The generated messages are those of link.proto, and numbers on the wire are those of the code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from gosvae.link.messages import CODINGS, REASON_NUMBERS, REASONS, coding_number, pb
from gosvae.link.perception import Reason

PROTO = Path("gosvae/link/proto")


def test_generated_modules_are_up_to_date(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools")
    script = REPOSITORY / "scripts" / "generate-proto.sh"
    subprocess.run(["bash", str(script), str(tmp_path)], check=True, env={**os.environ, "PYTHON": sys.executable})
    for name in ("link_pb2.py", "link_pb2.pyi"):
        committed = REPOSITORY / "src" / PROTO / name
        assert (tmp_path / PROTO / name).read_text() == committed.read_text(), f"run {script.name}"


def test_reasons_and_codings_have_the_numbers_of_the_proto() -> None:
    for reason in Reason:
        assert pb().RefusalReason.Value(f"REFUSAL_REASON_{reason.name}") == REASON_NUMBERS[reason]
        assert REASONS[REASON_NUMBERS[reason]] is reason
    assert len(pb().RefusalReason.values()) == len(Reason) + 1
    for number, coding in CODINGS.items():
        name = pb().ClassMapCoding.Name(number).removeprefix("CLASS_MAP_CODING_")
        assert name in ("UNSPECIFIED", coding.upper().replace("-", "_"))
        assert number in (0, coding_number(coding))
    assert len(pb().ClassMapCoding.values()) == len(CODINGS)


def test_the_service_needs_packages_that_may_be_absent() -> None:
    program = (
        "import sys\n"
        "from gosvae.errors import MissingDependencyError\n"
        "from gosvae.link import messages, metrics, web\n"
        "for absent, call in (('grpc', messages.import_grpc), ('google.protobuf', messages.pb),\n"
        "                     ('prometheus_client', metrics.import_prometheus), ('aiohttp', web.import_aiohttp)):\n"
        "    sys.modules[absent] = None\n"
        "    try:\n        call()\n"
        "    except MissingDependencyError as error:\n        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("pip install 'gosvae[serve]'") == 4
