"""Limits on what clients may ask of the gRPC service."""

from __future__ import annotations

from dataclasses import dataclass

from gosvae.errors import ConfigError


@dataclass(frozen=True)
class ServiceLimits:
    """Limits on what clients may ask of the gRPC service.

    Attributes:
        max_frame_bytes: greatest number of bytes of a frame, its stream and its original together.
        max_streams: greatest number of open streams, of all clients together. If all are open, a stream without a frame
            for `stale_s` is ended for a new one.
        max_connections: greatest number of connections, of all clients together; further ones are closed at once. The
            limit is lower if the process may not open that many descriptors.
        max_per_source: greatest number of connections, and of streams, of one source address.
        max_pending_frames: greatest number of frames of one sender that are not answered yet. Further frames are
            dropped; with the policy `block`, or from a patient sender, they are not read until there is room.
        max_malformed: number of malformed messages at which a stream is ended.
        hello_s: seconds that a client may take to introduce itself.
        write_s: seconds that a client may take to read an answer before its stream is ended.
        farewell_s: seconds that a client may take to read why its stream was ended, before its connection is closed.
        idle_s: seconds that a connection may be open without a stream.
        age_s: seconds after which every connection is ended, with `grace_s` for its streams; senders connect again. 0
            means no limit.
        stale_s: seconds without a frame after which a stream may be ended for a new one.
        keepalive_s: seconds between two checks whether an idle connection is alive.
        grace_s: seconds that streams have to end when the service is closed.

    Raises:
        ConfigError: a limit allows nothing.
    """

    max_frame_bytes: int = 2**20
    max_streams: int = 256
    max_connections: int = 1024
    max_per_source: int = 128
    max_pending_frames: int = 32
    max_malformed: int = 100
    hello_s: float = 10.0
    write_s: float = 30.0
    farewell_s: float = 5.0
    idle_s: float = 30.0
    age_s: float = 0.0
    stale_s: float = 60.0
    keepalive_s: float = 20.0
    grace_s: float = 5.0

    def __post_init__(self) -> None:
        counts = self.max_streams, self.max_connections, self.max_per_source, self.max_pending_frames
        if min(self.max_frame_bytes, self.max_malformed, *counts) < 1:
            raise ConfigError(
                "the limits on frame bytes, streams, connections, pending frames and malformed messages start at 1"
            )
