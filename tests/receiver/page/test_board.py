"""What the live page says in bad states: it shows no number, word or picture that is not true at that moment."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from gosvae.packets.reassembly import ReceivedFrame
from gosvae.protocol.frames import Answer, Dropped, Frame, Outcome, Perceived, Reason, StageTimes
from gosvae.receiver.engine import Engine
from gosvae.receiver.page.board import FORGET_S, SERIES, WINDOW_S, Board
from gosvae.receiver.page.standing import ACTIVE_S, Standing, headline
from small_link import perception, run


class Receiver:
    """A board whose clock, streams and frames are set by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.open: dict[str, str] = {}
        self.board = Board(Engine(perception()), self.name_of, self.connected, clock=lambda: self.now_s)

    def name_of(self, sender: str) -> tuple[str, float] | None:
        return (self.open[sender], 20.0) if sender in self.open else None

    def connected(self) -> Collection[str]:
        return tuple(self.open)

    def frame(self, sender: str, reason: Reason | None = None, number: int = 0, concealed: int = 0) -> None:
        """Let a frame be answered, or be dropped for a reason."""
        frame = Frame(sender, number, b"stream")
        outcome: Outcome = Dropped(reason, "", number) if reason else answer(number, concealed)
        image, classes = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
        perceived = None if reason else Perceived(image, classes, None, StageTimes())
        self.board.observe(frame, outcome, perceived)

    def status(self) -> tuple[str, str]:
        status = self.board.state(None)["status"]
        return status["state"], status["text"]

    def sender(self, sender: str) -> dict[str, Any]:
        senders = self.board.state(sender)["senders"]
        found: dict[str, Any] = next(s for s in senders if s["id"] == sender)
        return found

    def detail(self, sender: str) -> dict[str, Any]:
        detail: dict[str, Any] = self.board.state(sender)["selected"]
        return detail


def answer(number: int, concealed: int) -> Answer:
    return Answer(number, 8, 8, "zlib", b"", (64,), StageTimes(total_ms=5.0), 6, concealed)


@pytest.fixture
def receiver() -> Receiver:
    made: list[Receiver] = []

    async def make() -> None:
        made.append(Receiver())

    run(make)
    return made[0]


def test_streams_that_are_open_are_senders(receiver: Receiver) -> None:
    assert receiver.status() == ("waiting", "waiting for senders")
    for n in range(4):
        receiver.open[f"grpc:{n}"] = f"car {n}"
    assert receiver.status() == ("waiting", "4 senders connected, no frames at the moment")
    assert [s["standing_short"] for s in receiver.board.state(None)["senders"]] == ["no frame yet"] * 4
    shown = receiver.sender("grpc:2")
    assert (shown["dropped_share"], shown["kib"], shown["latency_ms"], shown["frames"]) == (None, None, None, 0)
    assert receiver.detail("grpc:2")["note"] == "car 2 is connected; no frame of it has come yet."


def test_frames_that_are_all_dropped_are_no_success(receiver: Receiver) -> None:
    receiver.open["grpc:1"] = "car"
    for n in range(12):
        receiver.frame("grpc:1", Reason.STALE, n)
    assert receiver.status() == ("bad", "1 sender, no frame is answered")
    shown, detail = receiver.sender("grpc:1"), receiver.detail("grpc:1")
    assert (shown["standing"], shown["dropped_share"], shown["fps"], shown["round_trip_ms"]) == (
        "unanswered", 1.0, 0.0, None,
    )  # fmt: skip
    assert detail["series"]["lost"] == [2] * 12
    assert detail["picture"] is None
    assert detail["note"] == "No frame of car was decoded: 12 stale."


def test_the_loss_and_its_bars_are_of_the_same_frames(receiver: Receiver) -> None:
    receiver.open["grpc:1"] = "car"
    receiver.frame("grpc:1", Reason.STALE)
    for _ in range(8 * SERIES):
        receiver.frame("grpc:1")
    shown, lost = receiver.sender("grpc:1"), receiver.detail("grpc:1")["series"]["lost"]
    assert shown["dropped_share"] > 0
    assert lost[0] == 2  # every frame is in a bar, so that no loss is hidden
    assert len(lost) <= SERIES
    receiver.now_s += WINDOW_S + 1
    shown, detail = receiver.sender("grpc:1"), receiver.detail("grpc:1")
    assert shown["dropped_share"] is None  # nothing came, so nothing is known; that is not a loss of 0 %
    assert all(not values for values in detail["series"].values())
    assert detail["dropped"] == {"stale": 1}


def test_concealed_parts_are_told_from_lost_frames(receiver: Receiver) -> None:
    sender = "udp:00000001"
    receiver.board.packets(sender, ReceivedFrame(1, 0, b"", (), 3, 4))
    receiver.frame(sender)
    receiver.frame(sender, concealed=16)
    receiver.frame(sender, Reason.INCOMPLETE)
    assert receiver.detail(sender)["series"]["lost"] == [0, 1, 2]
    shown = receiver.sender(sender)
    assert (shown["packet_loss"], shown["dropped_share"]) == (0.25, 0.3333)
    receiver.now_s += WINDOW_S + 1
    assert receiver.sender(sender)["packet_loss"] is None


def test_a_silent_sender_and_one_that_has_left(receiver: Receiver) -> None:
    receiver.open |= {"grpc:1": "quiet", "grpc:2": "dead", "grpc:3": "busy"}
    for sender in receiver.open:
        receiver.frame(sender)
    assert receiver.status() == ("live", "live, 3 senders")
    receiver.now_s += 12
    del receiver.open["grpc:2"]
    receiver.frame("grpc:3")
    assert receiver.status() == ("live", "live, 1 sender, 1 silent, 1 gone")
    assert receiver.sender("grpc:1")["standing_text"] == "silent, last frame 12 s ago"
    assert receiver.sender("grpc:1")["standing_short"] == "silent 12 s"
    assert receiver.sender("grpc:2")["standing_text"] == "gone, last frame 12 s ago"
    assert [s["name"] for s in receiver.board.state(None)["senders"]] == ["busy", "dead", "quiet"]
    receiver.now_s += FORGET_S["grpc"]
    assert [s["name"] for s in receiver.board.state(None)["senders"]] == ["busy", "quiet"]


def test_a_sender_that_connects_again_has_one_line(receiver: Receiver) -> None:
    receiver.open |= {"grpc:1": "car", "grpc:2": "car"}  # two at once are two
    receiver.frame("grpc:1")
    assert len(receiver.board.state(None)["senders"]) == 2
    del receiver.open["grpc:1"]
    receiver.open["grpc:3"] = "car"
    receiver.frame("grpc:3", number=1)
    receiver.frame("grpc:1", Reason.GONE, number=2)  # it was still in the queue when its sender left
    ids = {s["id"]: s for s in receiver.board.state(None)["senders"]}
    assert set(ids) == {"grpc:2", "grpc:3"}
    assert (ids["grpc:3"]["frames"], ids["grpc:3"]["streams"], ids["grpc:3"]["standing"]) == (3, 2, "live")
    assert receiver.detail("grpc:1")["id"] == "grpc:3"  # a page that shows it follows it


def test_a_udp_sender_that_is_silent_is_removed_soon(receiver: Receiver) -> None:
    receiver.frame("udp:00000001")
    receiver.now_s += FORGET_S["udp"] - 1
    assert receiver.sender("udp:00000001")["standing"] == "silent"
    receiver.now_s += 2
    assert receiver.board.state(None)["senders"] == []


def test_an_old_picture_says_its_age(receiver: Receiver) -> None:
    receiver.open["grpc:1"] = "car"
    receiver.frame("grpc:1")
    note = receiver.detail("grpc:1")["note"]
    assert note == "No picture of car is kept. Pictures are kept while a page is open; the next frame will be shown."
    receiver.frame("grpc:1", number=7)
    receiver.now_s += 40
    receiver.frame("grpc:1", Reason.STALE, number=8)
    picture = receiver.detail("grpc:1")["picture"]
    assert (picture["number"], picture["age_s"]) == (7, 40.0)


HEADLINES: list[tuple[list[Standing], str, str]] = [
    ([], "waiting", "waiting for senders"),
    (["gone"], "waiting", "waiting for senders, 1 gone"),
    (["new", "silent"], "waiting", "2 senders connected, no frames at the moment"),
    (["live", "live", "unanswered"], "bad", "live, 2 senders, 1 not answered"),
    (["unanswered", "silent", "gone"], "bad", "2 senders, no frame is answered, 1 gone"),
]


@pytest.mark.parametrize(("standings", "state", "text"), HEADLINES)
def test_the_line_at_the_top(standings: list[Standing], state: str, text: str) -> None:
    assert headline(standings) == (state, text)


def test_a_sender_is_silent_from_a_certain_time_on(receiver: Receiver) -> None:
    receiver.open["grpc:1"] = "car"
    receiver.frame("grpc:1")
    receiver.now_s += ACTIVE_S - 0.1
    assert receiver.sender("grpc:1")["standing"] == "live"
    receiver.now_s += 0.1
    assert receiver.sender("grpc:1")["standing"] == "silent"
