"""A sender's end of the gRPC service: connect, send frames, take answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from gosvae.errors import ConfigError, LinkError
from gosvae.link.class_maps import ClassArray, ClassMapCoding, decode_class_map
from gosvae.link.messages import CODINGS, METHOD, REASONS, coding_number, import_grpc, pb
from gosvae.link.perception import Reason, StageTimes
from gosvae.link.security import ClientTls, Endpoint, read_pem

MAX_ANSWER_BYTES = 2**24
CALL_OVERHEAD_BYTES = 14
"""Around a message: gRPC's prefix and the head of an HTTP/2 frame. TCP, IP and TLS come on top."""


@dataclass(frozen=True)
class Welcome:
    """What a receiver says of itself; see `proto/link.proto`."""

    codec: str
    codec_fingerprint: bytes
    expert: str
    class_names: tuple[str, ...]
    max_frame_bytes: int
    max_pending_frames: int
    policy: str
    deadline_ms: int


@dataclass(frozen=True)
class Result:
    """A receiver's answer to a frame.

    Attributes:
        number: of the frame.
        height, width: of its picture, in pixels.
        class_map: the bytes, coded as this sender asked.
        class_pixels: how many pixels each class has, up to the last that has any.
        stages: of the receiver, in ms.
        concealed_pixels: whose part of the stream was lost.
    """

    number: int
    height: int
    width: int
    coding: ClassMapCoding
    class_map: bytes
    class_pixels: tuple[int, ...]
    stages: StageTimes
    concealed_pixels: int

    def classes(self) -> ClassArray:
        """The class of every pixel, uint8 (height, width).

        Raises:
            LinkError: the bytes are no such class map.
        """
        return decode_class_map(self.class_map, self.coding, self.height, self.width)


@dataclass(frozen=True)
class Refusal:
    """A frame that has no result, and why."""

    number: int
    reason: Reason
    text: str


class LinkClient:
    """A connection to a receiver. Made by `open`; `async with` closes it.

    Attributes:
        welcome: what the receiver said of itself.
    """

    def __init__(self, channel: Any, call: Any, welcome: Welcome) -> None:
        self._channel, self._call = channel, call
        self.welcome = welcome

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        *,
        name: str = "",
        coding: ClassMapCoding = "png",
        fingerprint: bytes = b"",
        tls: ClientTls | None = None,
        token: str | None = None,
        timeout_s: float = 10.0,
        insecure: bool = False,
    ) -> Self:
        """Connect and introduce oneself.

        Args:
            name: for people.
            coding: of the class maps in answers.
            fingerprint: of the codec that will be sent with, 8 bytes; empty: not checked.
            tls: None: not encrypted.
            token: is sent over TLS or to this machine only, unless `insecure`.
            timeout_s: for the connection and the welcome.

        Raises:
            LinkError: there is no receiver, or it refuses.
            ConfigError: a token would travel unencrypted, or files of TLS cannot be used.
            MissingDependencyError: grpcio is not installed.
        """
        if token is not None and tls is None and not endpoint.is_loopback and not insecure:
            raise ConfigError(
                f"the token would travel to {endpoint} unencrypted: use TLS, or set insecure=True", argument="insecure"
            )
        grpc = import_grpc()
        options = [
            ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        target = str(endpoint)
        channel = (
            grpc.aio.insecure_channel(target, options=options)
            if tls is None
            else grpc.aio.secure_channel(target, _credentials(grpc, tls), options=options)
        )
        metadata = [("authorization", f"Bearer {token}")] if token is not None else None
        call = channel.stream_stream(METHOD)(metadata=metadata)
        hello = pb().Hello(name=name, coding=coding_number(coding), codec_fingerprint=fingerprint)
        try:
            async with asyncio.timeout(timeout_s):
                await call.write(pb().FromSender(hello=hello).SerializeToString())
                data = await call.read()
                if data is grpc.aio.EOF:
                    raise LinkError(await _why(endpoint, call))
                welcome = pb().FromReceiver.FromString(data).welcome
        except TimeoutError:
            await channel.close(None)
            raise LinkError(f"no answer from {endpoint} within {timeout_s:g} s: is a receiver there?") from None
        except (grpc.RpcError, asyncio.InvalidStateError):
            text = await _why(endpoint, call)
            await channel.close(None)
            raise LinkError(text) from None
        except BaseException:
            await channel.close(None)
            raise
        return cls(
            channel,
            call,
            Welcome(
                *(welcome.codec, welcome.codec_fingerprint, welcome.expert, tuple(welcome.class_names)),
                *(welcome.max_frame_bytes, welcome.max_pending_frames, welcome.policy, welcome.deadline_ms),
            ),
        )

    async def send(
        self, number: int, stream: bytes, *, deadline_ms: int = 0, round_trip_ms: float = 0.0, original: bytes = b""
    ) -> int:
        """Send a frame and return the bytes of its message without an original; waits where the receiver reads none.

        Raises:
            LinkError: the receiver has ended the stream.
        """
        frame = pb().Frame(
            number=number, stream=stream, deadline_ms=deadline_ms, round_trip_ms=round_trip_ms, original=original
        )
        data = pb().FromSender(frame=frame).SerializeToString()
        await self.send_raw(data)
        return len(data) - len(original) + CALL_OVERHEAD_BYTES

    async def send_raw(self, data: bytes) -> None:
        """Send any bytes as a message: for tests of receivers. Errors as `send`."""
        grpc = import_grpc()
        try:
            await self._call.write(data)
        except (grpc.RpcError, asyncio.InvalidStateError):
            raise LinkError(await _why(None, self._call)) from None

    async def finish(self) -> None:
        """Say that no more frames come; answers still do."""
        await self._call.done_writing()

    async def answers(self) -> AsyncIterator[Result | Refusal]:
        """Answers as they come, until the receiver has no more.

        Raises:
            LinkError: the stream broke, or the receiver ended it with an error.
        """
        grpc = import_grpc()
        while True:
            try:
                data = await self._call.read()
            except (grpc.RpcError, asyncio.InvalidStateError):
                raise LinkError(await _why(None, self._call)) from None
            if data is grpc.aio.EOF:
                if await self._call.code() != grpc.StatusCode.OK:
                    raise LinkError(await _why(None, self._call))
                return
            message = pb().FromReceiver.FromString(data)
            match message.WhichOneof("kind"):
                case "result":
                    yield _result(message.result)
                case "refusal":
                    refusal = message.refusal
                    yield Refusal(refusal.number, REASONS.get(refusal.reason, Reason.FAILED), refusal.text)

    async def close(self) -> None:
        """End the stream, whatever is on its way."""
        self._call.cancel()
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _result(result: Any) -> Result:
    stages = result.stages
    return Result(
        *(result.number, result.height, result.width, CODINGS.get(result.coding, "none"), result.class_map),
        tuple(result.class_pixels),
        StageTimes(
            *(stages.queue_ms, stages.entropy_ms, stages.reconstruct_ms, stages.expert_ms, stages.answer_ms),
            *(stages.total_ms, stages.batch),
        ),
        result.concealed_pixels,
    )


def _credentials(grpc: Any, tls: ClientTls) -> Any:
    if (tls.certificate is None) != (tls.key is None):
        raise ConfigError("a certificate needs its key and a key its certificate: give both or neither")
    return grpc.ssl_channel_credentials(
        root_certificates=None if tls.authority is None else read_pem(tls.authority),
        private_key=None if tls.key is None else read_pem(tls.key),
        certificate_chain=None if tls.certificate is None else read_pem(tls.certificate),
    )


async def _why(endpoint: Endpoint | None, call: Any) -> str:
    """One line on the end of a call."""
    grpc = import_grpc()
    code, details = await call.code(), " ".join((await call.details() or "").split())[:300]
    where = "" if endpoint is None else f" at {endpoint}"
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return f"no receiver{where}: {details or 'the connection was refused'}"
        case grpc.StatusCode.UNAUTHENTICATED:
            return f"the receiver{where} refuses: {details}; give its token"
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"what listens{where} is no gosvae receiver"
        case grpc.StatusCode.INTERNAL if "from Core" in details:  # gRPC's word for writing to what has ended
            return f"the receiver{where} ended the stream"
        case grpc.StatusCode.OK:
            return f"the receiver{where} ended the stream"
    return f"the receiver{where} refuses ({code.name.lower()}): {details}"
