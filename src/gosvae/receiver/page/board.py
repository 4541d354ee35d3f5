"""Data of the live page: rates and times of each sender over the last seconds, and pictures of watched senders.

The board is filled on the event loop and read by the threads of the web server.

Axis legend: H and W pixels, 3 RGB channels.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean, median
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from gosvae.datasets.palettes import class_palette
from gosvae.packets.reassembly import ReceivedFrame
from gosvae.protocol.class_maps import ClassArray
from gosvae.protocol.frames import Answer, Frame, Outcome, Perceived, ReferenceFacts
from gosvae.receiver.engine import Engine
from gosvae.receiver.page.pictures import picture_file, read_original
from gosvae.receiver.page.standing import describe, headline, standing_of, why_no_picture
from gosvae.tensors import ImageArray

WINDOW_S = 10.0
"""Number of seconds that rates and times are taken over."""
SERIES = 120
"""Number of frames in each curve."""
MOST_EVENTS = 1200
"""Greatest number of outcomes that are kept of each sender."""
MOST_SENDERS = 128
"""Greatest number of senders on the board; the sender that was silent for the longest time is removed first."""
MOST_WATCHED = 4
"""Greatest number of senders whose pictures are kept."""
WATCHED_S = 5.0
"""Number of seconds that the pictures of a sender are kept after a page asked for them."""
FORGET_S = {"grpc": 600.0, "udp": 60.0}
"""Seconds after its latest frame at which a sender is removed. Over gRPC this needs the end of its stream; over UDP,
where no end can be seen, silence is enough."""

PictureKind = Literal["original", "reconstruction", "classes", "concealed", "result"]
PICTURE_KINDS: tuple[PictureKind, ...] = get_args(PictureKind)


@dataclass(frozen=True)
class _Event:
    """The outcome of one frame; `concealed` is the share of its pixels."""

    at_s: float
    n_bytes: int
    latency_ms: float
    answered: bool
    concealed: float
    reference: ReferenceFacts | None = None


@dataclass(frozen=True)
class _Picture:
    """The latest answered frame of a watched sender."""

    at_s: float
    number: int
    image: ImageArray
    classes: ClassArray | None
    results: Mapping[str, Any]
    concealed: npt.NDArray[np.bool_] | None
    original: bytes
    stages: Mapping[str, float]
    stream_bytes: int


@dataclass
class _Sender:
    """State of a sender; times are on the board's clock.

    `packets` has the time, the number of packets that arrived and the number that were sent, of each frame over UDP;
    `frame_s` is the time of the latest frame, `noticed_s` the time at which the board first knew of the sender.
    """

    name: str
    transport: str
    events: deque[_Event] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))
    received: int = 0
    answered: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    packets: deque[tuple[float, int, int]] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))
    round_trip_ms: float = 0.0
    noticed_s: float = 0.0
    frame_s: float | None = None
    streams: int = 1
    watched_s: float = -WATCHED_S
    picture: _Picture | None = None


class Board:
    """Observer of an engine that keeps what the live page shows.

    Args:
        engine: engine whose outcomes are shown.
        name_of: function from the engine's name for a sender to the name that the sender gives itself and its round
            trip in ms; it returns None if they are not known.
        connected: function that returns the engine's names of the senders whose gRPC streams are open.
        clock: function that returns seconds and never goes back.
    """

    def __init__(
        self,
        engine: Engine,
        name_of: Callable[[str], tuple[str, float] | None] = lambda _: None,
        connected: Callable[[], Collection[str]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._name_of, self._connected, self._clock = engine, name_of, connected, clock
        self._began_s = clock()
        self._lock = threading.Lock()
        self._senders: OrderedDict[str, _Sender] = OrderedDict()
        self._successors: OrderedDict[str, str] = OrderedDict()
        perception = engine.perception
        self._palette_m3, self._tasks = class_palette(perception.class_names), perception.judges.tasks
        engine.observers.append(self.observe)

    def _sender(self, sender: str) -> _Sender:
        """Return the state of a sender that was just heard of; the caller holds the lock."""
        sender = self._latest(sender)
        state = self._senders.get(sender)
        if state is None:
            state = self._senders[sender] = self._predecessor(sender) or _Sender(
                sender, sender.partition(":")[0], noticed_s=self._clock()
            )
            if len(self._senders) > MOST_SENDERS:
                self._senders.popitem(last=False)
        self._senders.move_to_end(sender)
        state.name, state.round_trip_ms = self._name_of(sender) or (state.name, state.round_trip_ms)
        return state

    def _latest(self, sender: str) -> str:
        """Return the engine's latest name for a sender that may have connected again."""
        while sender in self._successors:
            sender = self._successors[sender]
        return sender

    def _predecessor(self, sender: str) -> _Sender | None:
        """Remove and return the state of a sender of the same name whose stream has ended: it connected again."""
        known, connected = self._name_of(sender), self._connected()
        if known is None:
            return None
        for key, state in reversed(self._senders.items()):
            if state.transport == "grpc" and state.name == known[0] and key not in connected:
                state.streams += 1
                self._successors[key] = sender
                if len(self._successors) > MOST_SENDERS:
                    self._successors.popitem(last=False)
                return self._senders.pop(key)
        return None

    def _refresh(self, connected: Collection[str], now_s: float) -> None:
        """Take in senders that have connected and sent nothing; remove those that left long ago."""
        for sender in connected:
            if sender not in self._senders:
                self._sender(sender)
        for key, state in list(self._senders.items()):
            quiet_s = now_s - (state.noticed_s if state.frame_s is None else state.frame_s)
            if key not in connected and quiet_s > FORGET_S.get(state.transport, FORGET_S["grpc"]):
                del self._senders[key]

    def observe(self, frame: Frame, outcome: Outcome, perceived: Perceived | None) -> None:
        """Note the outcome of a frame; called by the engine."""
        now_s, n_bytes = self._clock(), frame.stream_bytes
        with self._lock:
            state = self._sender(frame.sender)
            state.received += 1
            state.frame_s = now_s
            if not isinstance(outcome, Answer):
                state.dropped[outcome.reason.value] += 1
                state.events.append(_Event(now_s, n_bytes, latency_ms=0.0, answered=False, concealed=0.0))
                return
            state.answered += 1
            concealed = outcome.concealed_pixels / (outcome.height * outcome.width)
            latency_ms = outcome.stages.total_ms
            reference = None if perceived is None else perceived.reference
            state.events.append(_Event(now_s, n_bytes, latency_ms, True, concealed, reference))
            state.picture = None
            if perceived is not None and now_s - state.watched_s < WATCHED_S:
                state.picture = _Picture(
                    at_s=now_s,
                    number=frame.number,
                    image=perceived.image_uint8_HW3,
                    classes=perceived.classes_uint8_HW,
                    results=perceived.results,
                    concealed=perceived.concealed_HW,
                    original=frame.original,
                    stages=asdict(outcome.stages),
                    stream_bytes=n_bytes,
                )

    def packets(self, sender: str, frame: ReceivedFrame) -> None:
        """Note how many of a frame's packets were sent and how many arrived."""
        with self._lock:
            state = self._sender(sender)
            state.packets.append((self._clock(), frame.packets, frame.packet_count))

    def state(self, selected: str | None) -> dict[str, Any]:
        """Return everything that the page shows, as values for JSON.

        Args:
            selected: the engine's name for the sender that is shown in detail, whose pictures are kept for the next
                `WATCHED_S` seconds; a sender that connected again is followed, and the first sender is taken if it is
                None or not known.
        """
        now_s, connected = self._clock(), self._connected()
        engine = self._engine.counters
        with self._lock:
            self._refresh(connected, now_s)
            selected = None if selected is None else self._latest(selected)
            senders = [self._summary(key, state, now_s, connected) for key, state in self._senders.items()]
            senders.sort(key=lambda s: (s["standing"] not in ("live", "unanswered"), s["name"], s["id"]))
            chosen = selected if selected in self._senders else (senders[0]["id"] if senders else None)
            detail = None if chosen is None else self._detail(chosen, now_s)
        perception = self._engine.perception
        state, text = headline([sender["standing"] for sender in senders])
        return {
            "status": {"state": state, "text": text},
            "codec": perception.codec.name,
            "expert": perception.expert_name,
            "policy": self._engine.limits.policy,
            "uptime_s": round(now_s - self._began_s, 1),
            "classes": [
                {"name": name, "colour": "#" + bytes(colour.tolist()).hex()}
                for name, colour in zip(perception.class_names, self._palette_m3, strict=True)
            ],
            "engine": {
                "received": engine.received,
                "answered": engine.answered,
                "waiting": engine.waiting,
                "dropped": {reason.value: count for reason, count in engine.dropped.items() if count},
            },
            "senders": senders,
            "selected": detail,
        }

    def _summary(self, key: str, state: _Sender, now_s: float, connected: Collection[str]) -> dict[str, Any]:
        """Return the line of a sender in the page's table; numbers without a frame in the last seconds are None."""
        recent = [event for event in state.events if now_s - event.at_s <= WINDOW_S]
        answered = [event for event in recent if event.answered]
        references = [event.reference for event in recent if event.reference is not None]
        packets = [(came, sent) for at_s, came, sent in state.packets if now_s - at_s <= WINDOW_S]
        span_s = max(now_s - recent[0].at_s, 0.5) if recent else 1.0
        quiet_s = None if state.frame_s is None else now_s - state.frame_s
        standing = standing_of(
            connected=state.transport != "grpc" or key in connected,
            quiet_s=quiet_s,
            recent=len(recent),
            answered=len(answered),
        )
        short, phrase = describe(standing, quiet_s)
        return {
            "id": key,
            "name": state.name,
            "transport": state.transport,
            "standing": standing,
            "standing_short": short,
            "standing_text": phrase,
            "streams": state.streams,
            "frames": state.received,
            "fps": round(len(answered) / span_s, 2),
            "kbps": round(8 * sum(event.n_bytes for event in recent) / span_s / 1000, 1),
            "kib": round(sum(event.n_bytes for event in recent) / len(recent) / 1024, 3) if recent else None,
            "unchanged": round(fmean(facts.unchanged for facts in references), 3) if references else None,
            "distance": round(fmean(facts.distance for facts in references), 2) if references else None,
            "dropped_share": round(1 - len(answered) / len(recent), 4) if recent else None,
            "packet_loss": round(1 - sum(c for c, _ in packets) / sum(s for _, s in packets), 4) if packets else None,
            "latency_ms": round(median(event.latency_ms for event in answered), 1) if answered else None,
            "round_trip_ms": (round(state.round_trip_ms, 1) or None) if answered else None,
        }

    def _detail(self, key: str, now_s: float) -> dict[str, Any]:
        """Return the curves and the latest picture of a sender."""
        state = self._watch(key, now_s)
        recent = [event for event in state.events if now_s - event.at_s <= WINDOW_S]
        events, picture = recent[-SERIES:], state.picture
        detail: dict[str, Any] = {
            "id": key,
            "dropped": dict(state.dropped),
            "concealed": round(events[-1].concealed, 4) if events else 0.0,
            "series": {
                "kib": [round(event.n_bytes / 1024, 3) for event in events],
                "latency_ms": [round(event.latency_ms, 1) if event.answered else None for event in events],
                "fps": _rates([event.at_s for event in events if event.answered]),
                "lost": _worst([2 if not event.answered else int(event.concealed > 0) for event in recent]),
            },
            "picture": None,
            "note": why_no_picture(state.name, state.received, state.answered, state.dropped),
        }
        if picture is not None:
            detail["picture"] = {
                "age_s": round(now_s - picture.at_s, 1),
                "number": picture.number,
                "height": picture.image.shape[0],
                "width": picture.image.shape[1],
                "original": bool(picture.original),
                "concealed": picture.concealed is not None,
                "kib": round(picture.stream_bytes / 1024, 3),
                "stages": {name: round(value, 2) for name, value in picture.stages.items()},
                "shares": self._shares(picture.classes),
                "results": [
                    {"expert": name, "task": self._tasks[name].name, "text": self._tasks[name].describe(result)}
                    for name, result in picture.results.items()
                ],
            }
        return detail

    def _shares(self, classes: ClassArray | None) -> list[float] | None:
        """Return the share of the pixels of each class; None without a class map."""
        if classes is None:
            return None
        counts_m = np.bincount(classes.reshape(-1), minlength=len(self._palette_m3))
        return [round(float(share), 4) for share in counts_m / classes.size]

    def _watch(self, key: str, now_s: float) -> _Sender:
        """Return a sender and keep its pictures from now on; at most `MOST_WATCHED` senders keep theirs."""
        state = self._senders[key]
        state.watched_s = now_s
        watched = sorted((s for s in self._senders.values() if s.picture is not None), key=lambda s: s.watched_s)
        for other in watched[: -MOST_WATCHED or None]:
            if other is not state:
                other.picture, other.watched_s = None, -WATCHED_S
        return state

    def picture(self, sender: str, kind: PictureKind, expert: str = "") -> tuple[bytes, str] | None:
        """Return a sender's latest picture as a file, with its media type; None if there is no picture.

        Args:
            sender: the engine's name for the sender.
            kind: kind of the picture; `result` is a drawing of the result of an expert.
            expert: name of this expert.
        """
        with self._lock:
            state = self._senders.get(sender)
            picture = None if state is None else self._watch(sender, self._clock()).picture
        if picture is None:
            return None
        match kind:
            case "original":
                image = read_original(picture.original)
                return None if image is None else (picture_file(image, "JPEG", quality=88), "image/jpeg")
            case "reconstruction":
                return picture_file(Image.fromarray(picture.image), "JPEG", quality=90, subsampling=0), "image/jpeg"
            case "result":
                if expert not in picture.results:
                    return None
                drawn = self._tasks[expert].draw(picture.image, picture.results[expert])
                return picture_file(Image.fromarray(drawn), "JPEG", quality=92, subsampling=0), "image/jpeg"
            case "classes":
                if picture.classes is None:
                    return None
                image = Image.fromarray(picture.classes)
                image.putpalette(self._palette_m3.tobytes())  # grey values become numbers of colours
                return picture_file(image, "PNG", compress_level=1), "image/png"
            case "concealed":
                if picture.concealed is None:
                    return None
                alpha_HW = picture.concealed.astype(np.uint8) * 255
                return picture_file(Image.fromarray(np.dstack([alpha_HW, alpha_HW]), "LA"), "PNG"), "image/png"


def _worst(values: list[int]) -> list[int]:
    """Return at most `SERIES` values, each the greatest of those that it stands for; all of them are represented."""
    step = -(-len(values) // SERIES) or 1
    return [max(values[n : n + step]) for n in range(0, len(values), step)]


def _rates(times_s: list[float]) -> list[float]:
    """Return the frames a second at each time but the first, taken over up to eight frames before it."""
    rates = []
    for n in range(1, len(times_s)):
        first = max(0, n - 8)
        span_s = times_s[n] - times_s[first]
        rates.append(round((n - first) / span_s, 2) if span_s > 0 else 0.0)
    return rates
