"""Turns of senders: choice of the next frame by the time for which each sender has kept the networks busy.

The method is start-time fair queueing (Goyal, Vin and Cheng 1996): every sender has a virtual time, the time that its
frames have taken so far, and the sender with the least virtual time is next. A sender that was away starts at the
virtual time of the others, so that it cannot save up time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from gosvae.protocol.frames import Frame, Outcome

MOST_KNOWN = 4096
"""Greatest number of senders whose virtual times are kept while none of their frames waits."""
_FIRST_SECONDS_PER_PIXEL = 1e-6
_SMOOTHING = 0.2
"""Weight of the latest batch in the mean time for each pixel."""


@dataclass(eq=False)
class Ticket:
    """Frame in the engine, waiting or in the networks.

    Attributes:
        frame: the frame.
        outcome: future of its outcome.
        pixels: number of pixels that its header announces.
        large: whether it is processed with low priority.
        charged_s: estimated time in seconds that its sender was charged for it when its turn came.
    """

    frame: Frame
    outcome: asyncio.Future[Outcome]
    pixels: int
    large: bool
    charged_s: float = 0.0


class Turns:
    """Waiting frames, in a queue for each sender and each of the two priorities.

    Attributes:
        waiting: number of usual frames and number of large frames that wait.
        waiting_bytes: number of bytes of the waiting frames.
        patient, patient_bytes: number of waiting frames of patient senders, and of their bytes.
    """

    def __init__(self) -> None:
        self.waiting = [0, 0]
        self.waiting_bytes = self.patient = self.patient_bytes = 0
        self._queues: OrderedDict[tuple[bool, str], deque[Ticket]] = OrderedDict()
        self._virtual_s = 0.0
        self._used_s: OrderedDict[str, float] = OrderedDict()
        self._proven: OrderedDict[str, None] = OrderedDict()
        self._s_per_pixel = _FIRST_SECONDS_PER_PIXEL

    def add(self, ticket: Ticket) -> None:
        """Put a frame behind the others of its sender."""
        sender = ticket.frame.sender
        if not any((large, sender) in self._queues for large in (False, True)):
            self._used_s[sender] = max(self._used_s.get(sender, 0.0), self._virtual_s)
            self._used_s.move_to_end(sender)
            self._forget()
        self._queues.setdefault((ticket.large, sender), deque()).append(ticket)
        self._count(ticket, 1)

    def take(self, *, large: bool) -> Ticket:
        """Remove and return the next frame of a priority, and charge its sender with an estimated time."""
        _, sender = min((key for key in self._queues if key[0] == large), key=lambda key: self._used_s[key[1]])
        ticket = self._pop((large, sender))
        self._virtual_s = max(self._virtual_s, self._used_s[sender])
        ticket.charged_s = max(ticket.pixels, 1) * self._s_per_pixel
        self._used_s[sender] += ticket.charged_s
        return ticket

    def charge(self, tickets: Iterable[Ticket], seconds: float) -> None:
        """Replace the estimated charge of frames by the time that the networks took for all of them together.

        The time is divided among the frames in proportion to their pixels.

        Args:
            tickets: frames of one batch.
            seconds: time that the networks took.
        """
        tickets = list(tickets)
        pixels = sum(max(ticket.pixels, 1) for ticket in tickets)
        self._s_per_pixel += _SMOOTHING * (seconds / pixels - self._s_per_pixel)
        for ticket in tickets:
            if ticket.frame.sender in self._used_s:
                share_s = seconds * max(ticket.pixels, 1) / pixels
                self._used_s[ticket.frame.sender] += share_s - ticket.charged_s

    def refund(self, ticket: Ticket) -> None:
        """Give back the charge of a frame that was not processed."""
        if ticket.frame.sender in self._used_s:
            self._used_s[ticket.frame.sender] -= ticket.charged_s

    def prove(self, sender: str, *, answered: bool) -> None:
        """Note whether the latest frame of a sender was answered; a sender is *proven* if it was."""
        self._proven.pop(sender, None)
        if answered:
            self._proven[sender] = None
            while len(self._proven) > MOST_KNOWN:
                self._proven.popitem(last=False)

    def oldest_of_the_busiest(self, sender: str) -> Ticket:
        """Remove and return the oldest frame of the sender with the most waiting frames.

        Of senders with equally many frames, one that is not proven is chosen, and `sender` rather than another one. A
        crowd that sends invalid frames therefore takes no place of a sender whose frames are answered. Frames of
        patient senders are never removed.
        """
        droppable = [key for key, queue in self._queues.items() if not queue[0].frame.patient]

        def precedence(key: tuple[bool, str]) -> tuple[int, bool, bool]:
            return len(self._queues[key]), key[1] not in self._proven, key[1] == sender

        return self._pop(max(droppable, key=precedence))

    def any(self) -> Ticket:
        """Remove and return a frame."""
        return self._pop(next(iter(self._queues)))

    def _pop(self, key: tuple[bool, str]) -> Ticket:
        queue = self._queues[key]
        ticket = queue.popleft()
        if not queue:
            del self._queues[key]
        self._count(ticket, -1)
        return ticket

    def _count(self, ticket: Ticket, change: int) -> None:
        n_bytes = change * ticket.frame.n_bytes
        self.waiting[ticket.large] += change
        self.waiting_bytes += n_bytes
        self.patient += change * ticket.frame.patient
        self.patient_bytes += n_bytes * ticket.frame.patient

    def _forget(self) -> None:
        """Forget virtual times of senders that were away for longest."""
        if len(self._used_s) > MOST_KNOWN:
            waiting = {sender for _, sender in self._queues}
            for sender in [s for s in self._used_s if s not in waiting][: len(self._used_s) - MOST_KNOWN]:
                del self._used_s[sender]
