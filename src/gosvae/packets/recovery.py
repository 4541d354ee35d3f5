"""Recovery of lost packets from repair packets, ahead of the reassembler, in bounded memory and processor time."""

from __future__ import annotations

import contextlib
from collections import Counter, OrderedDict
from dataclasses import dataclass, field, fields

from gosvae.errors import ConfigError, PacketError
from gosvae.packets.allowance import Allowance
from gosvae.packets.packet import FRAME_NUMBERS, read_packet
from gosvae.packets.protection import Group, import_raptorq, is_repair, packet_of, read_repair, recover, symbol_of
from gosvae.wire import PACKET_FIRST_BYTE

_COST_BYTES = 256
"""Greatest number of bytes for the bookkeeping of a datagram, which the limit on bytes includes."""
_MOST_ATTEMPTS = 4
"""Greatest number of attempts to decode a group. One in about 100 fails with K symbols, one in 10,000 with K + 1."""
_MOST_GROUPS = 4
"""Greatest number of groups that a packet may be in, which bounds the work that a forger can cause."""

_FEW = 8
"""Greatest number of packets of a group that may be recovered from repair packets alone. For larger groups a packet of
them must have arrived, so that a forger has to know one."""

_Place = tuple[int, int]
"""Stream id and frame."""


@dataclass(frozen=True)
class RecoveryCounters:
    """Numbers of repair packets and of recovered packets; the first five add up to the repair packets that arrived.

    Attributes:
        kept: number of repair packets that may help.
        damaged: number of datagrams that begin as a repair packet and are not an intact one.
        duplicates: number of repair packets that had arrived already.
        late: number of repair packets of groups that are complete or were given up.
        unusable: number of repair packets that contradict the packets of their group, or whose packets are in too many
            groups already, by a defect or a forgery.
        recovered: number of lost packets that were recovered.
        given_up: number of groups whose symbols did not give intact packets, by a defect or a forgery.
        evicted: number of groups that were forgotten to keep within the limits on memory.
        deferred: number of attempts to decode that were skipped because the stream, or all streams together, had used
            their share of processor time. The next datagram of the group starts another attempt.
    """

    kept: int = 0
    damaged: int = 0
    duplicates: int = 0
    late: int = 0
    unusable: int = 0
    recovered: int = 0
    given_up: int = 0
    evicted: int = 0
    deferred: int = 0


@dataclass
class _State:
    """State of a group; `done` if it is complete or was given up."""

    repair: dict[int, bytes] = field(default_factory=dict)
    attempts: int = 0
    done: bool = False


class Recovery:
    """Buffer that takes datagrams one at a time and returns packets for `Reassembler.add`, recovered ones included.

    Datagrams that are no repair packets are returned at once and unchanged, and the packets among them are kept for a
    while. Repair packets are not returned. A recovered packet is returned only if its checksum is correct and it has
    the frame number and the index that the group names for it. Memory is bounded: the frames and groups that began
    first are forgotten first. An object must not be used by several threads at once.

    Args:
        max_frames: greatest number of frames whose packets are kept, of all streams together.
        max_groups: greatest number of groups whose repair packets are kept.
        max_bytes: greatest number of bytes of both, bookkeeping included.
        allowance: limit on the processor time that decoding takes, for a receiver that strangers can reach; None means
            no limit.

    Raises:
        ConfigError: a limit allows nothing, or the number of frames or groups is 2**16 or more.
    """

    def __init__(
        self,
        *,
        max_frames: int = 1024,
        max_groups: int = 1024,
        max_bytes: int = 2**25,
        allowance: Allowance | None = None,
    ) -> None:
        if min(max_frames, max_groups, max_bytes) < 1 or max(max_frames, max_groups) >= FRAME_NUMBERS:
            raise ConfigError(
                f"{max_frames} frames, {max_groups} groups, {max_bytes} bytes: expected at least 1 of each, and fewer "
                f"than {FRAME_NUMBERS} frames and groups"
            )
        self.max_frames, self.max_groups, self.max_bytes = max_frames, max_groups, max_bytes
        self.bytes_kept, self._allowance = 0, allowance
        self._packets: OrderedDict[_Place, dict[int, bytes]] = OrderedDict()
        self._groups: OrderedDict[Group, _State] = OrderedDict()
        self._groups_of: dict[tuple[_Place, int], list[Group]] = {}
        self._counts: Counter[str] = Counter()

    @property
    def counters(self) -> RecoveryCounters:
        """Numbers of repair packets and of recovered packets so far."""
        return RecoveryCounters(**{f.name: self._counts[f.name] for f in fields(RecoveryCounters)})

    def add(self, data: bytes) -> list[bytes]:
        """Take a datagram, which may hold any bytes, and return the datagrams for the reassembler.

        Raises:
            MissingDependencyError: a packet could be recovered, and raptorq is not installed.
        """
        back = self._add_repair(data) if is_repair(data) else [data, *self._add_packet(data)]
        self._forget()
        return back

    def _add_packet(self, data: bytes) -> list[bytes]:
        """Keep a packet and return the packets that are recovered by it."""
        if data[:1] != bytes([PACKET_FIRST_BYTE]):
            return []
        try:
            packet = read_packet(data)
        except PacketError:
            return []  # the reassembler counts it
        place = packet.stream_id, packet.frame
        if packet.index in self._packets.get(place, {}):
            return []
        self._keep(place, packet.index, data)
        groups = tuple(self._groups_of.get((place, packet.index), ()))
        return [back for group in groups if not self._groups[group].done for back in self._attempt(group)]

    def _add_repair(self, data: bytes) -> list[bytes]:
        """Keep a repair packet and return the packets that are recovered by it."""
        try:
            packet = read_repair(data)
        except PacketError:
            self._counts["damaged"] += 1
            return []
        group = packet.group
        state = self._groups.get(group)
        if state is not None and state.done:
            self._counts["late"] += 1
            return []
        if state is not None and packet.symbol_id in state.repair:
            self._counts["duplicates"] += 1
            return []
        if any(len(data) > group.symbol_bytes - 2 for _, data in self._known(group)):
            self._counts["unusable"] += 1
            return []
        if state is None:
            slots = _slots(group)
            if any(len(self._groups_of.get(slot, ())) >= _MOST_GROUPS for slot in slots):
                self._counts["unusable"] += 1
                return []
            state = self._groups[group] = _State()
            self.bytes_kept += _cost_bytes(group)
            for slot in slots:
                self._groups_of.setdefault(slot, []).append(group)
        self._counts["kept"] += 1
        state.repair[packet.symbol_id] = packet.symbol
        self.bytes_kept += _COST_BYTES + len(packet.symbol)
        return self._attempt(group)

    def _known(self, group: Group) -> list[tuple[int, bytes]]:
        """Return the packets of a group that are there, with their symbol ids."""
        known = []
        for number, (place, index) in enumerate(_slots(group)):
            data = self._packets.get(place, {}).get(index)
            if data is not None:
                known.append((number, data))
        return known

    def _attempt(self, group: Group) -> list[bytes]:
        """Return the missing packets of a group; none if there are too few symbols to recover them."""
        state, known = self._groups[group], self._known(group)
        if len(known) == group.count:
            self._finish(group)
            return []
        if len(known) + len(state.repair) < group.count or (not known and group.count > _FEW):
            return []
        symbols = [(number, symbol_of(data, group.symbol_bytes)) for number, data in known]
        if any(len(symbol) != group.symbol_bytes for _, symbol in symbols):
            return self._give_up(group)  # a packet is longer than any that was protected
        if self._allowance is not None and not self._allowance.permits(group.stream_id):
            self._counts["deferred"] += 1
            return []
        state.attempts += 1
        import_raptorq()  # which takes time that no stream used
        with contextlib.nullcontext() if self._allowance is None else self._allowance.spent_by(group.stream_id):
            solved = recover(group, [*symbols, *state.repair.items()])
        if solved is None:
            return self._give_up(group) if state.attempts >= _MOST_ATTEMPTS else []
        there = {number for number, _ in known}
        back: list[tuple[_Place, int, bytes]] = []
        for number, (place, index) in enumerate(_slots(group)):
            if number in there:
                continue
            data = packet_of(solved[number])
            if data is None or not _is_packet(data, place, index):
                return self._give_up(group)
            back.append((place, index, data))
        self._finish(group)
        self._counts["recovered"] += len(back)
        for place, index, data in back:
            self._keep(place, index, data)
        return [data for *_, data in back]

    def _give_up(self, group: Group) -> list[bytes]:
        self._counts["given_up"] += 1
        self._finish(group)
        return []

    def _finish(self, group: Group) -> None:
        """Discard the symbols of a group that is complete or given up, and remember the group."""
        state = self._groups[group]
        self.bytes_kept -= sum(_COST_BYTES + len(symbol) for symbol in state.repair.values())
        self._groups[group] = _State(done=True)

    def _keep(self, place: _Place, index: int, data: bytes) -> None:
        self._packets.setdefault(place, {})[index] = data
        self.bytes_kept += _COST_BYTES + len(data)

    def _forget(self) -> None:
        """Forget frames and groups until the limits are kept."""
        while len(self._groups) > self.max_groups or (self._groups and self.bytes_kept > self.max_bytes):
            self._drop_group(next(iter(self._groups)))
            if self.bytes_kept > self.max_bytes and self._packets:
                self._drop_packets()
        while len(self._packets) > self.max_frames or self.bytes_kept > self.max_bytes:
            self._drop_packets()

    def _drop_packets(self) -> None:
        """Forget the packets of the frame that began first."""
        _, packets = self._packets.popitem(last=False)
        self.bytes_kept -= sum(_COST_BYTES + len(data) for data in packets.values())

    def _drop_group(self, group: Group) -> None:
        self._counts["evicted"] += not self._groups[group].done
        self._finish(group)
        del self._groups[group]
        self.bytes_kept -= _cost_bytes(group)
        for slot in _slots(group):
            self._groups_of[slot].remove(group)
            if not self._groups_of[slot]:
                del self._groups_of[slot]


def _slots(group: Group) -> list[tuple[_Place, int]]:
    """Return the place and the index of every packet of a group, in order."""
    return [((group.stream_id, frame), index) for frame, index in group.places()]


def _cost_bytes(group: Group) -> int:
    """Return the greatest number of bytes for the bookkeeping of a group, without its symbols."""
    return _COST_BYTES * (1 + group.count)


def _is_packet(data: bytes, place: _Place, index: int) -> bool:
    """Return whether the bytes are an intact packet with the expected place and index."""
    try:
        packet = read_packet(data)
    except PacketError:
        return False
    return ((packet.stream_id, packet.frame), packet.index) == (place, index)
