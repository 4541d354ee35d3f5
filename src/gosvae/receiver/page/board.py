"""What the live page shows: rates and times of each sender over the last seconds, and the latest picture of those that
somebody watches. Filled on the event loop, read by the threads of the web server.

Axis legend: H and W pixels, 3 RGB channels.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from statistics import median
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from gosvae.datasets.palettes import class_palette
from gosvae.packets.reassembly import ReceivedFrame
from gosvae.protocol.class_maps import ClassArray
from gosvae.receiver.engine import Answer, Engine, Outcome
from gosvae.tensors import ImageArray

WINDOW_S = 10.0
"""Rates and times are of so many last seconds."""
SERIES = 120
"""Frames in the curves."""
MOST_EVENTS = 1200
MOST_SENDERS = 128
"""Remembered; those that were silent for the longest are forgotten."""
MOST_WATCHED = 4
WATCHED_S = 5.0
"""So long after somebody asked for it a sender's pictures are kept."""
MOST_ORIGINAL_PIXELS = 2**22

PictureKind = Literal["original", "reconstruction", "classes", "concealed"]
PICTURE_KINDS: tuple[PictureKind, ...] = get_args(PictureKind)


@dataclass(frozen=True)
class _Event:
    at_s: float
    n_bytes: int
    latency_ms: float
    answered: bool
    concealed: float


@dataclass(frozen=True)
class _Picture:
    number: int
    image: ImageArray
    classes: ClassArray
    concealed: npt.NDArray[np.bool_] | None
    original: bytes
    stages: Mapping[str, float]
    stream_bytes: int


@dataclass
class _Sender:
    name: str
    transport: str
    events: deque[_Event] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))
    received: int = 0
    answered: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    packets: int = 0
    packets_sent: int = 0
    round_trip_ms: float = 0.0
    seen_s: float = 0.0
    watched_s: float = -WATCHED_S
    picture: _Picture | None = None


class Board:
    """Looks on at an engine.

    Args:
        engine: whose outcomes are shown.
        name_of: what a sender calls itself and its round trip in ms, by the engine's name of it; None: not known.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        engine: Engine,
        name_of: Callable[[str], tuple[str, float] | None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._name_of, self._clock = engine, name_of, clock
        self._began_s = clock()
        self._lock = threading.Lock()
        self._senders: OrderedDict[str, _Sender] = OrderedDict()
        perception = engine.perception
        self._palette_m3 = class_palette(perception.class_names)
        engine.observers.append(self.observe)

    def _sender(self, sender: str) -> _Sender:
        """Of a sender that was just heard of; the lock is held."""
        state = self._senders.get(sender)
        if state is None:
            state = self._senders[sender] = _Sender(sender, sender.partition(":")[0])
            if len(self._senders) > MOST_SENDERS:
                self._senders.popitem(last=False)
        self._senders.move_to_end(sender)
        state.name, state.round_trip_ms = self._name_of(sender) or (state.name, state.round_trip_ms)
        state.seen_s = self._clock()
        return state

    def observe(self, outcome: Outcome) -> None:
        """Take an outcome of the engine."""
        now_s, frame = self._clock(), outcome.frame
        with self._lock:
            state = self._sender(frame.sender)
            state.received += 1
            if not isinstance(outcome, Answer):
                state.dropped[outcome.trouble.reason.value] += 1
                state.events.append(_Event(now_s, len(frame.stream), 0.0, answered=False, concealed=0.0))
                return
            perceived = outcome.perceived
            concealed = 0.0 if perceived.concealed_HW is None else float(perceived.concealed_HW.mean())
            state.answered += 1
            state.events.append(_Event(now_s, len(frame.stream), perceived.stages.total_ms, True, concealed))
            if now_s - state.watched_s < WATCHED_S:
                state.picture = _Picture(
                    *(frame.number, perceived.image_uint8_HW3, perceived.classes_uint8_HW, perceived.concealed_HW),
                    *(frame.original, asdict(perceived.stages), len(frame.stream)),
                )
            elif state.picture is not None:
                state.picture = None

    def packets(self, sender: str, frame: ReceivedFrame) -> None:
        """Note how many packets of a frame arrived."""
        with self._lock:
            state = self._sender(sender)
            state.packets += frame.packets
            state.packets_sent += frame.packet_count

    def state(self, selected: str | None) -> dict[str, Any]:
        """All that the page shows, fit for JSON; the pictures of `selected` are kept from now on for a while."""
        now_s = self._clock()
        engine = self._engine.counters
        with self._lock:
            senders = [self._summary(key, state, now_s) for key, state in self._senders.items()]
            senders.sort(key=lambda s: (not s["active"], s["name"], s["id"]))
            chosen = selected if selected in self._senders else (senders[0]["id"] if senders else None)
            detail = None if chosen is None else self._detail(chosen, now_s)
        perception = self._engine.perception
        return {
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

    def _summary(self, key: str, state: _Sender, now_s: float) -> dict[str, Any]:
        recent = [event for event in state.events if now_s - event.at_s <= WINDOW_S]
        answered = [event for event in recent if event.answered]
        span_s = max(now_s - recent[0].at_s, 0.5) if recent else 1.0
        return {
            "id": key,
            "name": state.name,
            "transport": state.transport,
            "active": now_s - state.seen_s < 3.0,
            "frames": state.received,
            "fps": round(len(answered) / span_s, 2),
            "kbps": round(8 * sum(event.n_bytes for event in recent) / span_s / 1000, 1),
            "kib": round(sum(event.n_bytes for event in recent) / len(recent) / 1024, 3) if recent else 0.0,
            "dropped_share": round(1 - len(answered) / len(recent), 4) if recent else 0.0,
            "packet_loss": round(1 - state.packets / state.packets_sent, 4) if state.packets_sent else None,
            "latency_ms": round(median(event.latency_ms for event in answered), 1) if answered else None,
            "round_trip_ms": round(state.round_trip_ms, 1) or None,
        }

    def _detail(self, key: str, now_s: float) -> dict[str, Any]:
        state = self._watch(key, now_s)
        events = list(state.events)[-SERIES:]
        picture = state.picture
        detail: dict[str, Any] = {
            "id": key,
            "dropped": dict(state.dropped),
            "concealed": round(events[-1].concealed, 4) if events else 0.0,
            "series": {
                "kib": [round(event.n_bytes / 1024, 3) for event in events],
                "latency_ms": [round(event.latency_ms, 1) if event.answered else None for event in events],
                "fps": _rates([event.at_s for event in events if event.answered]),
                "lost": [0 if event.answered and not event.concealed else 1 for event in events],
            },
            "picture": None,
        }
        if picture is not None:
            counts_m = np.bincount(picture.classes.reshape(-1), minlength=len(self._palette_m3))
            detail["picture"] = {
                "number": picture.number,
                "height": picture.image.shape[0],
                "width": picture.image.shape[1],
                "original": bool(picture.original),
                "concealed": picture.concealed is not None,
                "kib": round(picture.stream_bytes / 1024, 3),
                "stages": {name: round(value, 2) for name, value in picture.stages.items()},
                "shares": [round(float(share), 4) for share in counts_m / picture.classes.size],
            }
        return detail

    def _watch(self, key: str, now_s: float) -> _Sender:
        """Keep the pictures of a sender from now on; of those watched for longest without being asked for, no more."""
        state = self._senders[key]
        state.watched_s = now_s
        watched = sorted((s for s in self._senders.values() if s.picture is not None), key=lambda s: s.watched_s)
        for other in watched[: -MOST_WATCHED or None]:
            if other is not state:
                other.picture, other.watched_s = None, -WATCHED_S
        return state

    def picture(self, sender: str, kind: PictureKind) -> tuple[bytes, str] | None:
        """A sender's latest picture as a file and its media type; None where there is none."""
        with self._lock:
            state = self._senders.get(sender)
            picture = None if state is None else self._watch(sender, self._clock()).picture
        if picture is None:
            return None
        match kind:
            case "original":
                image = _read_original(picture.original)
                return None if image is None else (_file(image, "JPEG", quality=88), "image/jpeg")
            case "reconstruction":
                return _file(Image.fromarray(picture.image), "JPEG", quality=90, subsampling=0), "image/jpeg"
            case "classes":
                image = Image.fromarray(picture.classes)
                image.putpalette(self._palette_m3.tobytes())  # grey values become numbers of colours
                return _file(image, "PNG", compress_level=1), "image/png"
            case "concealed":
                if picture.concealed is None:
                    return None
                alpha_HW = picture.concealed.astype(np.uint8) * 255
                return _file(Image.fromarray(np.dstack([alpha_HW, alpha_HW]), "LA"), "PNG"), "image/png"


def _rates(times_s: list[float]) -> list[float]:
    """Frames a second around each time: over the eight before it."""
    rates = []
    for n in range(1, len(times_s)):
        first = max(0, n - 8)
        span_s = times_s[n] - times_s[first]
        rates.append(round((n - first) / span_s, 2) if span_s > 0 else 0.0)
    return rates


def _file(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, format=form, **options)
    return stream.getvalue()


def _read_original(data: bytes) -> Image.Image | None:
    """What a sender says is its picture, read and written anew: its own bytes never reach a browser."""
    try:
        with warnings.catch_warnings(), Image.open(BytesIO(data), formats=["JPEG", "PNG", "WEBP"]) as image:
            warnings.simplefilter("ignore")
            if image.width * image.height > MOST_ORIGINAL_PIXELS:
                return None
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
