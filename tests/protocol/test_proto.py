"""The generated messages are those of link.proto, and numbers on the wire are those of the code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from conftest import REPOSITORY
from gosvae.protocol.arrays import ArrayType, CodedArray
from gosvae.protocol.class_maps import ClassMapCoding
from gosvae.protocol.frames import Answer, Dropped, Outcome, Reason, StageTimes, TaskResult
from gosvae.protocol.messages import coding_number, coding_of, outcome_message, pb, read_outcome
from gosvae.wire import ARRAY_TYPES, CLASS_MAP_CODINGS, REASONS

PROTO = Path("gosvae/protocol/proto")


def test_generated_modules_are_up_to_date(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools")
    script = REPOSITORY / "scripts" / "generate-proto.sh"
    subprocess.run(["bash", str(script), str(tmp_path)], check=True, env={**os.environ, "PYTHON": sys.executable})
    for name in ("link_pb2.py", "link_pb2.pyi"):
        committed = REPOSITORY / "src" / PROTO / name
        assert (tmp_path / PROTO / name).read_text() == committed.read_text(), f"run {script.name}"


def test_reasons_and_codings_have_the_numbers_of_the_proto() -> None:
    assert set(REASONS) == set(Reason)
    for reason in Reason:
        assert pb().RefusalReason.Value(f"REFUSAL_REASON_{reason.name}") == REASONS[reason]
    assert len(pb().RefusalReason.values()) == len(Reason) + 1
    codings: tuple[ClassMapCoding, ...] = get_args(ClassMapCoding)
    assert set(CLASS_MAP_CODINGS) == set(codings)
    for coding in codings:
        number = pb().ClassMapCoding.Value(f"CLASS_MAP_CODING_{coding.upper().replace('-', '_')}")
        assert number == coding_number(coding) == CLASS_MAP_CODINGS[coding]
        assert coding_of(number) == coding
    assert coding_of(0) == "zlib"
    assert coding_of(99) is None
    assert len(pb().ClassMapCoding.values()) == len(codings) + 1


def test_types_of_arrays_have_the_numbers_of_the_proto() -> None:
    kinds: tuple[ArrayType, ...] = get_args(ArrayType)
    assert set(ARRAY_TYPES) == set(kinds)
    for kind in kinds:
        assert pb().ArrayType.Value(f"ARRAY_TYPE_{kind.upper()}") == ARRAY_TYPES[kind]
    assert len(pb().ArrayType.values()) == len(kinds) + 1


OUTCOMES: list[Outcome] = [
    Dropped(Reason.GONE, "its sender has left", 2**40),
    Answer(
        number=7,
        height=2,
        width=3,
        coding="zlib",
        class_map=b"\x05\x06",
        class_pixels=(0, 0, 0, 0, 0, 6),
        stages=StageTimes(queue_ms=0.5, entropy_ms=1.0, reconstruct_ms=2.0, expert_ms=4.0, total_ms=8.0, batch=3),
        stream_bytes=900,
        concealed_pixels=4,
        results=(TaskResult("det", (CodedArray("scores", (2,), "float16", b"\x01"),)), TaskResult("none", ())),
    ),
]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_outcomes_go_through_messages_unchanged(outcome: Outcome) -> None:
    message = pb().FromReceiver.FromString(outcome_message(outcome).SerializeToString())
    assert read_outcome(message) == outcome


def test_what_a_newer_receiver_may_send() -> None:
    refusal = pb().FromReceiver(refusal=pb().Refusal(number=3, reason=99, text="because"))
    assert read_outcome(refusal) == Dropped(Reason.FAILED, "because", 3)
    result = read_outcome(pb().FromReceiver(result=pb().Result(coding=99)))
    assert isinstance(result, Answer)
    assert result.coding == "none"
    arrays = [pb().Array(name="new", type=99), pb().Array(name="known", type=1)]
    newer = pb().FromReceiver(result=pb().Result(results=[pb().TaskResult(expert="det", arrays=arrays)]))
    known = read_outcome(newer)
    assert isinstance(known, Answer)
    assert [each.name for each in known.results[0].coded] == ["known"]
    assert read_outcome(pb().FromReceiver(welcome=pb().Welcome())) is None


def test_the_service_needs_packages_that_may_be_absent() -> None:
    program = (
        "import sys\n"
        "from gosvae.errors import MissingDependencyError\n"
        "from gosvae.protocol import messages\n"
        "from gosvae.receiver import metrics\n"
        "from gosvae.receiver.page import web\n"
        "for absent, call in (('grpc', messages.import_grpc), ('google.protobuf', messages.pb),\n"
        "                     ('prometheus_client', metrics.import_prometheus), ('aiohttp', web.import_aiohttp)):\n"
        "    sys.modules[absent] = None\n"
        "    try:\n        call()\n"
        "    except MissingDependencyError as error:\n        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("pip install 'gosvae[serve]'") == 4
