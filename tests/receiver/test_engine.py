"""The engine: batches, policies, deadlines, and an outcome for every frame, with every one counted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from gosvae.codecs.classical import load_classical
from gosvae.codecs.label_map import LabelMapCodec
from gosvae.codecs.vq import VqCodec, VqOptions
from gosvae.errors import ConfigError
from gosvae.packets.packet import packetise
from gosvae.packets.reassembly import Reassembler
from gosvae.protocol.class_maps import decode_class_map
from gosvae.protocol.frames import Answer, Dropped, Frame, Outcome, Perceived, Reason, StageTimes
from gosvae.receiver.engine import POLICIES, Engine, EngineLimits, Policy
from gosvae.receiver.perception import Perception
from gosvae.tensors import image_to_tensor
from small_link import PATIENCE_S, codec, perception, run, stream, until
from tiny import checkpoint, expert, streets

PATIENT = EngineLimits(deadline_ms=0)


class Gate(Perception):
    """Holds batches up until it is opened, and does no work."""

    def __init__(self) -> None:
        super().__init__(codec(), expert())
        self.opened = threading.Event()
        self.batches: list[int] = []

    def __call__(
        self, frames: Sequence[tuple[bytes, bool]], senders: Sequence[str] | None = None
    ) -> list[Perceived | Dropped]:
        del senders
        self.batches.append(len(frames))
        assert self.opened.wait(PATIENCE_S / 2), "nobody opened the gate"
        image, classes = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)
        return [Perceived(image, classes, None, StageTimes()) for _ in frames]


def reason(outcome: Outcome) -> Reason | None:
    return outcome.reason if isinstance(outcome, Dropped) else None


def reasons(outcomes: Sequence[Outcome]) -> list[Reason | None]:
    return [reason(outcome) for outcome in outcomes]


async def held_up(engine: Engine, gate: Gate) -> None:
    """Let a frame into the networks, where it stays."""
    await engine.submit(Frame("first", 0, b"x"))
    await until(lambda: bool(gate.batches))


def test_the_answer_is_what_the_expert_sees_on_the_reconstruction() -> None:
    async def test() -> None:
        seen: dict[int, Perceived | None] = {}
        async with Engine(perception(), PATIENT) as engine:
            engine.observers.append(lambda frame, _, perceived: seen.update({frame.number: perceived}))
            outcomes = await asyncio.gather(
                *[await engine.submit(Frame(f"s{n}", n, stream(n), coding="zlib")) for n in range(6)]
            )
        for n, outcome in enumerate(outcomes):
            assert isinstance(outcome, Answer)
            assert (outcome.number, outcome.stream_bytes, outcome.concealed_pixels) == (n, len(stream(n)), 0)
            perceived = seen[n]
            assert perceived is not None
            alone = codec().decompress(stream(n)).astype(int)
            assert np.abs(perceived.image_uint8_HW3.astype(int) - alone).max() <= 1
            expected_HW = expert().class_map(image_to_tensor(perceived.image_uint8_HW3))[0].numpy()
            classes_HW = perceived.classes_uint8_HW
            assert (classes_HW == expected_HW).mean() > 0.999  # a batch is summed in another order
            np.testing.assert_array_equal(decode_class_map(outcome.class_map, "zlib", 64, 96), classes_HW)
            np.testing.assert_array_equal(outcome.classes(), classes_HW)
            assert outcome.class_pixels == tuple(np.bincount(classes_HW.reshape(-1)).tolist())
            stages = outcome.stages
            assert min(stages.entropy_ms, stages.reconstruct_ms, stages.expert_ms) > 0
            assert stages.total_ms >= stages.queue_ms + stages.reconstruct_ms + stages.expert_ms
        counters = engine.counters
        assert (counters.received, counters.answered, counters.unaccounted) == (6, 6, 0)
        assert counters.batches < 6

    run(test)


def test_one_bad_frame_takes_no_other_with_it() -> None:
    other = VqCodec(checkpoint(seed=5)).compress(streets()[0].image_uint8_HW3)

    async def test() -> None:
        async with Engine(perception(max_pixels=64 * 96), PATIENT) as engine:
            large = codec().compress(np.zeros((96, 96, 3), np.uint8))
            frames = [stream(0), b"garbage", other, stream(1)[:-3], large, b"", stream(1)]
            outcomes = await asyncio.gather(
                *[await engine.submit(Frame("s", n, data)) for n, data in enumerate(frames)]
            )
        assert reasons(outcomes) == [
            *(None, Reason.DAMAGED, Reason.FOREIGN, Reason.DAMAGED, Reason.TOO_LARGE, Reason.DAMAGED, None)
        ]
        foreign = outcomes[2]
        assert isinstance(foreign, Dropped)
        assert "fingerprint" in foreign.text
        assert foreign.number == 2
        counters = engine.counters
        assert counters.unaccounted == 0
        assert counters.dropped[Reason.DAMAGED] == 3

    run(test)


def test_lost_slices_are_concealed_and_marked() -> None:
    interleaved = VqCodec(checkpoint(), options=VqOptions(slices=4, layout="interleaved"))
    packets = packetise(interleaved.compress(streets()[0].image_uint8_HW3), stream_id=1, frame=0, slices_per_packet=1)
    reassembler = Reassembler()
    for packet in packets[1:]:
        reassembler.add(packet)
    (received,) = reassembler.flush()
    assert received.missing == (0,)

    async def test() -> None:
        async with Engine(perception(), PATIENT) as engine:
            outcome = await (await engine.submit(Frame("udp:1", 0, received.stream, incomplete=True)))
        assert isinstance(outcome, Answer)
        assert 0.15 < outcome.concealed_pixels / (64 * 96) < 0.4
        async with Engine(Perception(load_classical("jpeg"), expert()), PATIENT) as engine:
            assert (
                reason(await (await engine.submit(Frame("udp:1", 0, b"\xff\xd8", incomplete=True))))
                == Reason.INCOMPLETE
            )

    run(test)


def test_other_kinds_of_codecs() -> None:
    jpeg, image = load_classical("jpeg"), streets()[0].image_uint8_HW3
    labels = LabelMapCodec(expert())

    async def test() -> None:
        async with Engine(Perception(jpeg, expert(), max_pixels=10_000), PATIENT) as engine:
            large = jpeg.compress(np.zeros((120, 120, 3), np.uint8))
            frames = (jpeg.compress(image), b"\xff\xd8 no", large)
            outcomes = await asyncio.gather(*[await engine.submit(Frame("s", 0, data)) for data in frames])
            assert reasons(outcomes) == [None, Reason.DAMAGED, Reason.TOO_LARGE]
        async with Engine(Perception(labels, None), PATIENT) as engine:
            outcome = await (await engine.submit(Frame("s", 0, labels.compress(image))))
            assert isinstance(outcome, Answer)
            expected_HW = expert().class_map(image_to_tensor(image))[0].numpy()
            np.testing.assert_array_equal(outcome.classes(), expected_HW)

    run(test)
    with pytest.raises(ConfigError, match="no expert"):
        Perception(jpeg, None)


def test_drop_oldest_keeps_the_newest_of_each_sender() -> None:
    async def test() -> None:
        gate = Gate()
        async with Engine(gate, EngineLimits(policy="drop-oldest", max_frames=4, deadline_ms=0)) as engine:
            await held_up(engine, gate)
            quiet = await engine.submit(Frame("quiet", 0, b"x"))
            loud = [await engine.submit(Frame("loud", n, b"x")) for n in range(20)]
            assert engine.counters.waiting == 4
            gate.opened.set()
            outcomes = await asyncio.gather(*loud)
            assert reason(await quiet) is None
            assert reasons(outcomes) == [Reason.SUPERSEDED] * 17 + [None] * 3
            assert engine.counters.unaccounted == 0

    run(test)


def test_a_crowd_without_answers_takes_no_place_of_a_sender_with_answers() -> None:
    async def test() -> None:
        gate = Gate()
        async with Engine(gate, EngineLimits(policy="drop-oldest", max_frames=4, deadline_ms=0)) as engine:
            gate.opened.set()
            assert reason(await (await engine.submit(Frame("good", 0, b"x")))) is None
            gate.opened.clear()
            await engine.submit(Frame("good", 1, b"x"))
            await until(lambda: len(gate.batches) == 2)
            good = await engine.submit(Frame("good", 2, b"x"))
            crowd = [await engine.submit(Frame(f"mute {n}", 0, b"x")) for n in range(20)]
            gate.opened.set()
            assert reason(await good) is None
            assert reasons(await asyncio.gather(*crowd)) == [Reason.SUPERSEDED] * 17 + [None] * 3

    run(test)


def test_a_sender_of_invalid_frames_is_no_longer_one_with_answers() -> None:
    async def test() -> None:
        gate = Gate()
        async with Engine(gate, EngineLimits(policy="drop-oldest", max_frames=2, deadline_ms=0)) as engine:
            gate.opened.set()
            for name in ("good", "bad"):
                await (await engine.submit(Frame(name, 0, b"x")))
            engine.drop(Frame("bad", 1, b"x"), Reason.DAMAGED, "damaged")
            gate.opened.clear()
            await held_up(engine, gate)
            await until(lambda: engine.counters.working == 1)
            waiting = [await engine.submit(Frame(name, 2, b"x")) for name in ("good", "bad", "other")]
            gate.opened.set()
            assert reasons(await asyncio.gather(*waiting)) == [None, Reason.SUPERSEDED, None]

    run(test)


def test_drop_newest_refuses_what_comes_last() -> None:
    async def test() -> None:
        gate = Gate()
        async with Engine(gate, EngineLimits(policy="drop-newest", max_frames=3, deadline_ms=0)) as engine:
            await held_up(engine, gate)
            futures = [await engine.submit(Frame("s", n, b"x")) for n in range(10)]
            gate.opened.set()
            assert reasons(await asyncio.gather(*futures)) == [None] * 3 + [Reason.QUEUE_FULL] * 7

    run(test)


def test_block_makes_senders_wait_and_loses_nothing() -> None:
    async def test() -> None:
        gate = Gate()
        async with Engine(gate, EngineLimits(policy="block", max_frames=3, deadline_ms=0)) as engine:
            await held_up(engine, gate)
            submissions = [asyncio.create_task(engine.submit(Frame(f"s{n}", n, b"x"))) for n in range(10)]
            await until(lambda: engine.counters.received == 11)
            await until(lambda: sum(task.done() for task in submissions) == 3)
            submissions[9].cancel()  # its sender vanishes while it waits
            await asyncio.gather(submissions[9], return_exceptions=True)
            gate.opened.set()
            outcomes = await asyncio.gather(*[await task for task in submissions[:9]])
            assert reasons(outcomes) == [None] * 9
            await until(lambda: engine.counters.answered == 10)
            assert engine.counters.dropped[Reason.GONE] == 1
            assert engine.counters.unaccounted == 0

    run(test)


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest"])
def test_bytes_are_limited_too(policy: Policy) -> None:
    async def test() -> None:
        gate = Gate()
        limits = EngineLimits(policy=policy, max_frames=100, max_bytes=1000, deadline_ms=0)
        async with Engine(gate, limits) as engine:
            await held_up(engine, gate)
            futures = [await engine.submit(Frame("s", n, bytes(400), original=bytes(50))) for n in range(4)]
            huge = await engine.submit(Frame("s", 9, bytes(1001)))
            assert reason(await huge) == Reason.TOO_LARGE
            assert engine.counters.waiting_bytes == 900
            gate.opened.set()
            outcomes = reasons(await asyncio.gather(*futures))
            dropped = {"drop-oldest": Reason.SUPERSEDED, "drop-newest": Reason.QUEUE_FULL}[policy]
            assert sorted(map(str, outcomes)) == sorted(["None", "None", str(dropped), str(dropped)])

    run(test)


def test_stale_frames_are_dropped_and_the_shorter_deadline_counts() -> None:
    async def test() -> None:
        gate = Gate()
        async with Engine(gate, EngineLimits(deadline_ms=600_000)) as engine:
            await held_up(engine, gate)
            old = time.monotonic() - 10.0
            futures = [
                await engine.submit(Frame("s", 0, b"x", arrived_s=old)),
                await engine.submit(Frame("s", 1, b"x", arrived_s=old, deadline_ms=9_000)),
                await engine.submit(Frame("s", 2, b"x", arrived_s=old - 1000)),
            ]
            gate.opened.set()
            assert reasons(await asyncio.gather(*futures)) == [None, Reason.STALE, Reason.STALE]

    run(test)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_frame_of_a_patient_sender_is_dropped_for_its_age_or_for_others(policy: Policy) -> None:
    async def test() -> None:
        gate = Gate()
        async with Engine(gate, EngineLimits(policy=policy, max_frames=4, deadline_ms=1_000)) as engine:
            await held_up(engine, gate)
            old = time.monotonic() - 10.0
            files = [
                asyncio.create_task(engine.submit(Frame("files", n, b"x", patient=True, arrived_s=old)))
                for n in range(9)
            ]
            await until(lambda: engine.counters.received == 10)
            assert sum(task.done() for task in files) == 2  # half of the queue is left to others
            late = await engine.submit(Frame("camera", 0, b"x", arrived_s=old))
            fresh = await engine.submit(Frame("camera", 1, b"x", arrived_s=old + 1e9))
            gate.opened.set()
            assert reasons(await asyncio.gather(*[await task for task in files])) == [None] * 9
            assert reasons(await asyncio.gather(late, fresh)) == [Reason.STALE, None]
            assert engine.counters.unaccounted == 0

    run(test)


def test_patient_frames_keep_their_places_and_leave_some() -> None:
    async def test() -> None:
        gate = Gate()
        limits = EngineLimits(max_frames=100, max_bytes=1000, deadline_ms=0)
        async with Engine(gate, limits) as engine:
            await held_up(engine, gate)
            cameras = [await engine.submit(Frame("camera", n, bytes(300))) for n in range(3)]
            files = [asyncio.create_task(engine.submit(Frame("f", n, bytes(400), patient=True))) for n in range(2)]
            await until(lambda: files[0].done())  # in place of a camera's frame
            large = await engine.submit(Frame("camera", 9, bytes(700)))  # does not fit beside the patient frame
            assert reason(await large) == Reason.QUEUE_FULL
            assert not files[1].done()
            assert engine.counters.waiting_bytes == 1000
            gate.opened.set()
            assert reasons(await asyncio.gather(*cameras)) == [Reason.SUPERSEDED, None, None]
            assert reasons(await asyncio.gather(*[await task for task in files])) == [None, None]
            assert engine.counters.unaccounted == 0

    run(test)


def test_a_queue_of_one_place_takes_patient_frames_one_by_one() -> None:
    async def test() -> None:
        gate = Gate()
        async with Engine(gate, EngineLimits(max_frames=1)) as engine:
            await held_up(engine, gate)
            files = [asyncio.create_task(engine.submit(Frame("f", n, b"x", patient=True))) for n in range(3)]
            await until(lambda: files[0].done())
            gate.opened.set()
            assert reasons(await asyncio.gather(*[await task for task in files])) == [None] * 3

    run(test)


def test_senders_take_turns() -> None:
    async def test() -> None:
        gate = Gate()
        limits = EngineLimits(max_batch=3, deadline_ms=0)
        order: list[str] = []
        async with Engine(gate, limits) as engine:
            await held_up(engine, gate)
            engine.observers.append(lambda frame, *_: order.append(frame.sender))
            for n in range(6):
                await engine.submit(Frame("a", n, b"x"))
            for sender in ("b", "c"):
                await engine.submit(Frame(sender, 0, b"x"))
            gate.opened.set()
            await until(lambda: engine.counters.answered == 9)
        assert order[1:4] == ["a", "b", "c"]
        assert order[4:] == ["a"] * 5
        assert gate.batches == [1, 3, 3, 2]

    run(test)


def test_frames_of_who_has_left_are_not_worked_on() -> None:
    async def test() -> None:
        gate = Gate()
        async with Engine(gate, PATIENT) as engine:
            await held_up(engine, gate)
            for n in range(5):
                (await engine.submit(Frame("s", n, b"x"))).cancel()
            gate.opened.set()
            await until(lambda: engine.counters.waiting == 0)
            assert engine.counters.dropped[Reason.GONE] == 5
        assert gate.batches == [1]

    run(test)


def test_closing_answers_what_there_is_time_for_and_drops_the_rest() -> None:
    async def test() -> None:
        gate = Gate()
        engine = Engine(gate, EngineLimits(max_batch=1, deadline_ms=0))
        async with engine:
            await held_up(engine, gate)
            futures = [await engine.submit(Frame("s", n, b"x")) for n in range(3)]
            closing = asyncio.create_task(engine.close(grace_s=0.05))
            await until(lambda: engine.counters.waiting == 0)  # the grace is over
            late = await engine.submit(Frame("s", 9, b"x"))
            gate.opened.set()
            await closing
            assert reasons(await asyncio.gather(*futures, late)) == [Reason.SHUTDOWN] * 4
            assert engine.counters.answered == 1
            assert engine.counters.unaccounted == 0

    run(test)


def test_defects_are_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Perception):
        def __call__(
            self, frames: Sequence[tuple[bytes, bool]], senders: Sequence[str] | None = None
        ) -> list[Perceived | Dropped]:
            del senders
            raise RuntimeError(f"a secret of the receiver, which has {len(frames)} frames")

    def observer(*_: object) -> None:
        raise ValueError("an observer's own")

    async def test() -> None:
        async with Engine(Broken(codec(), expert()), PATIENT) as engine:
            engine.observers.append(observer)
            outcome = await (await engine.submit(Frame("s", 0, b"x")))
            assert isinstance(outcome, Dropped)
            assert outcome.reason == Reason.FAILED
            assert "secret" not in outcome.text
            assert reason(await (await engine.submit(Frame("s", 1, b"x")))) == Reason.FAILED

    run(test)
    assert "a secret of the receiver" in caplog.text
    assert "an observer failed" in caplog.text


@pytest.mark.parametrize(
    "limits", [{"policy": "drop-all"}, {"max_frames": 0}, {"max_batch": 0}, {"max_bytes": 0}, {"deadline_ms": -1.0}]
)
def test_limits_that_let_nothing_through_are_refused(limits: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        EngineLimits(**limits)  # type: ignore[arg-type]
