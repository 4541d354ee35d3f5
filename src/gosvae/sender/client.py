"""The sender's end of the gRPC service: connect, send frames, read their outcomes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from gosvae.codecs.sequence.codec import bare_frame
from gosvae.errors import ConfigError, LinkError
from gosvae.protocol.class_maps import ClassMapCoding
from gosvae.protocol.frames import Outcome
from gosvae.protocol.messages import METHOD, coding_number, import_grpc, pb, read_outcome
from gosvae.protocol.security import ClientTls, Endpoint, read_pem
from gosvae.sender.diagnosis import tls_problem
from gosvae.wire import VIDEO_VERSION

MAX_ANSWER_BYTES = 2**24
"""Number of bytes of the longest message that is read."""
CALL_OVERHEAD_BYTES = 14
"""Number of bytes around a message: gRPC's prefix and the head of an HTTP/2 frame. TCP, IP and TLS add more."""

STATUS_S = 1.0
"""Longest wait in seconds for the receiver's status after a failed write; gRPC gives it once all answers were read."""

NOBODY = "no receiver at {endpoint}: check that one listens there, with the same TLS settings and trusted certificates"
"""Text of the error for a connection that ends before the receiver has introduced itself."""
ENDED = "the stream to {endpoint} ended: the receiver is closing or the connection broke; connect again"
"""Text of the error for a connection that ends later."""


class UnreachableError(LinkError):
    """Error for a receiver that cannot be reached, or a connection that broke; a later attempt may succeed."""


@dataclass(frozen=True)
class RemoteExpert:
    """An expert of the receiver whose results come with the answers.

    Attributes:
        name: name of the expert.
        task: name of its task, such as `detection`.
        class_names: names of the classes, in the order of their numbers; empty if the task has none.
    """

    name: str
    task: str
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Welcome:
    """Introduction of a receiver, its first message.

    Attributes:
        codec: name of the receiver's codec.
        codec_fingerprint: fingerprint of that codec, 8 bytes; empty for a classical codec.
        expert: name of the receiver's expert.
        class_names: names of the classes, in the order of their numbers.
        max_frame_bytes: greatest number of bytes of a frame, its stream and its original together.
        max_pending_frames: greatest number of frames of one sender that are not answered yet.
        policy: name of the receiver's policy for a full queue; see `EngineLimits`.
        deadline_ms: greatest age of a frame when its turn comes; 0 means no deadline.
        video: version of video frames that the receiver takes without a container; 0 means that it takes none.
        experts: experts besides the one that gives the class map.
    """

    codec: str
    codec_fingerprint: bytes
    expert: str
    class_names: tuple[str, ...]
    max_frame_bytes: int
    max_pending_frames: int
    policy: str
    deadline_ms: int
    video: int = 0
    experts: tuple[RemoteExpert, ...] = ()


class LinkClient:
    """Connection to a receiver. `open` makes one; `async with` closes it.

    Attributes:
        endpoint: address of the receiver.
        welcome: the receiver's introduction.
    """

    def __init__(self, endpoint: Endpoint, channel: Any, call: Any, welcome: Welcome) -> None:
        self.endpoint, self.welcome = endpoint, welcome
        self._channel, self._call, self._ending = channel, call, _Ending(call)

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        *,
        name: str = "",
        coding: ClassMapCoding = "zlib",
        results: bool = True,
        fingerprint: bytes = b"",
        patient: bool = False,
        tls: ClientTls | None = None,
        token: str | None = None,
        timeout_s: float = 10.0,
        insecure: bool = False,
        proxy: bool = False,
    ) -> Self:
        """Return a connection over which both ends have introduced themselves.

        Args:
            endpoint: address of the receiver.
            name: name of the sender, for people.
            coding: coding of the class maps in answers.
            results: whether answers have the results of the receiver's other experts, such as boxes or depth.
            fingerprint: fingerprint of the sender's codec, 8 bytes; if it is empty, the receiver checks nothing.
            patient: whether the sender waits for the answer to every frame. The receiver then reads frames no faster
                than it processes them, and drops none because it is old or because newer ones have arrived.
            tls: certificates; None sends without encryption.
            token: token of the receiver. It is sent only over TLS or to this machine, unless `insecure`.
            timeout_s: seconds that the connection and the introduction may take.
            insecure: whether the token may be sent to another machine without encryption.
            proxy: whether to connect through the HTTP proxy that the environment names (`http_proxy`, `https_proxy`).

        Raises:
            UnreachableError: there is no receiver; a later attempt may succeed.
            LinkError: the receiver refuses the connection, or only one end uses TLS.
            ConfigError: the token would travel unencrypted, or the files of TLS cannot be used.
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
            ("grpc.enable_http_proxy", int(proxy)),
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
        ending = _Ending(call)
        number = coding_number(coding)
        hello = pb().Hello(name=name, coding=number, codec_fingerprint=fingerprint, patient=patient, results=results)
        try:
            async with asyncio.timeout(timeout_s):
                await call.write(pb().FromSender(hello=hello).SerializeToString())
                data = await call.read()
                if data is grpc.aio.EOF:
                    raise await _failure(endpoint, ending, welcomed=False)
                welcome = _message(data).welcome
        except TimeoutError:
            await channel.close(None)
            text = f"no answer from {endpoint} within {timeout_s:g} s: is a receiver there?"
            raise await tls_problem(endpoint, tls) or UnreachableError(text) from None
        except (grpc.RpcError, asyncio.InvalidStateError):
            failure = await _failure(endpoint, ending, welcomed=False)
            await channel.close(None)
            if isinstance(failure, UnreachableError):
                failure = await tls_problem(endpoint, tls) or failure
            raise failure from None
        except BaseException:
            await channel.close(None)
            raise
        introduction = Welcome(
            codec=welcome.codec,
            codec_fingerprint=welcome.codec_fingerprint,
            expert=welcome.expert,
            class_names=tuple(welcome.class_names),
            max_frame_bytes=welcome.max_frame_bytes,
            max_pending_frames=welcome.max_pending_frames,
            policy=welcome.policy,
            deadline_ms=welcome.deadline_ms,
            video=welcome.video,
            experts=tuple(RemoteExpert(e.name, e.task, tuple(e.class_names)) for e in welcome.experts),
        )
        return cls(endpoint, channel, call, introduction)

    async def send(
        self, number: int, stream: bytes, *, deadline_ms: int = 0, round_trip_ms: float = 0.0, original: bytes = b""
    ) -> int:
        """Send a frame; wait while the receiver does not read.

        Args:
            number: number of the frame; its outcome has the same number.
            stream: bytes of the codec.
            deadline_ms: greatest age of the frame when its turn comes; 0 means the receiver's deadline.
            round_trip_ms: round trip of the latest answer, for the receiver's page; 0 if there is none.
            original: the picture as an image file, for the receiver's page; empty sends none. It is left out if it
                would make the frame longer than the receiver takes.

        Returns:
            Number of bytes on the link: those of the message without the original, and `CALL_OVERHEAD_BYTES`.

        Raises:
            UnreachableError: the connection broke or the receiver is closing.
            LinkError: the receiver ended the stream for another reason.
        """
        most_bytes = self.welcome.max_frame_bytes
        if len(stream) + len(original) > most_bytes > 0:
            original = b""
            # gRPC would end the whole stream for a message far above the limit; this one is refused as too large.
            stream = stream[: most_bytes + 1]
        bare = bare_frame(stream) if self.welcome.video >= VIDEO_VERSION else None
        kind = {"stream": stream} if bare is None else {"video": bare}
        frame = pb().Frame(
            number=number, deadline_ms=deadline_ms, round_trip_ms=round_trip_ms, original=original, **kind
        )
        data = pb().FromSender(frame=frame).SerializeToString()
        await self.send_raw(data)
        return len(data) - len(original) + CALL_OVERHEAD_BYTES

    async def send_raw(self, data: bytes) -> None:
        """Send arbitrary bytes as a message, for tests of receivers; errors are those of `send`."""
        grpc = import_grpc()
        try:
            await self._call.write(data)
        except (grpc.RpcError, asyncio.InvalidStateError):
            raise await self._failure() from None

    async def finish(self) -> None:
        """Tell the receiver that no more frames follow; outcomes still arrive. Errors are those of `send`."""
        grpc = import_grpc()
        try:
            await self._call.done_writing()
        except (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            raise await self._failure() from None

    async def answers(self) -> AsyncIterator[Outcome]:
        """Yield the outcomes of frames in the order in which they are ready, until there are no more.

        Raises:
            UnreachableError: the connection broke or the receiver is closing.
            LinkError: the receiver ended the stream for another reason.
        """
        grpc = import_grpc()
        while True:
            try:
                data = await self._call.read()
            except (grpc.RpcError, asyncio.InvalidStateError):
                raise await self._failure() from None
            if data is grpc.aio.EOF:
                if await self._call.code() != grpc.StatusCode.OK:
                    raise await self._failure()
                return
            outcome = read_outcome(_message(data))
            if outcome is not None:
                yield outcome

    async def _failure(self) -> LinkError:
        return await _failure(self.endpoint, self._ending, welcomed=True)

    async def close(self) -> None:
        """End the stream; frames and answers that are under way are lost."""
        self._call.cancel()
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _message(data: bytes) -> Any:
    """Return a message of a receiver.

    Raises:
        LinkError: the bytes are not such a message.
    """
    message = pb().FromReceiver()
    try:
        message.ParseFromString(data)
    except Exception:  # protobuf's DecodeError, and other errors of its parser
        raise LinkError("what listens there is no gosvae receiver: its message cannot be read") from None
    return message


def _credentials(grpc: Any, tls: ClientTls) -> Any:
    if (tls.certificate is None) != (tls.key is None):
        raise ConfigError("a certificate needs its key and a key its certificate: give both or neither")
    return grpc.ssl_channel_credentials(
        root_certificates=None if tls.authority is None else read_pem(tls.authority),
        private_key=None if tls.key is None else read_pem(tls.key),
        certificate_chain=None if tls.certificate is None else read_pem(tls.certificate),
    )


class _Ending:
    """Status with which the receiver ended a call.

    A write that fails because the call has ended makes gRPC report an internal error of its own, before or after the
    status of the receiver. gRPC keeps only the later of the two, so each is checked when it is reported.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._status: tuple[Any, str] | None = None
        call.add_done_callback(self._note)

    def _note(self, _: Any) -> None:
        status = _at_once(self._call.code()), _at_once(self._call.details()) or ""
        if self._status is None and not _of_a_failed_write(*status):
            self._status = status

    async def status(self) -> tuple[Any, str]:
        """Wait for the end of the call, and return its code and details."""
        code, details = await self._call.code(), await self._call.details() or ""
        end_s = time.monotonic() + STATUS_S
        while self._status is None and _of_a_failed_write(code, details) and time.monotonic() < end_s:
            await asyncio.sleep(0.01)
            code, details = await self._call.code(), await self._call.details() or ""
        return self._status or (code, details)


def _at_once(finished: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that has nothing to wait for."""
    try:
        finished.send(None)
    except StopIteration as end:
        return end.value
    finished.close()
    raise AssertionError("the coroutine waits")


def _of_a_failed_write(code: Any, details: str) -> bool:
    """Return whether a status is gRPC's own, for a write to a call that has ended."""
    return code is import_grpc().StatusCode.INTERNAL and "from Core" in details


async def _failure(endpoint: Endpoint, ending: _Ending, *, welcomed: bool) -> LinkError:
    """Return the error whose line says why a call ended and what to do; details of gRPC stand in brackets at the end.

    A receiver that closes and a connection that breaks can reach a sender as any of several statuses, depending on what
    is on its way at that moment, so all of them have the same line.
    """
    status = import_grpc().StatusCode
    code, details = await ending.status()
    details = " ".join(details.split())[:300]
    if code in (status.OK, status.UNAVAILABLE, status.CANCELLED, status.UNKNOWN, status.INTERNAL, status.ABORTED):
        line = (ENDED if welcomed else NOBODY).format(endpoint=endpoint)
        return UnreachableError(f"{line} [{code.name.lower()}: {details}]" if details else line)
    match code:
        case status.UNAUTHENTICATED:
            return LinkError(f"the receiver at {endpoint} refuses: {details}; give its token")
        case status.UNIMPLEMENTED:
            return LinkError(f"what listens at {endpoint} is no gosvae receiver")
        case status.RESOURCE_EXHAUSTED if welcomed:
            return LinkError(f"a message is longer than one end of the link takes: send smaller frames [{details}]")
    kind = UnreachableError if code is status.RESOURCE_EXHAUSTED else LinkError  # too many streams: try again later
    return kind(f"the receiver at {endpoint} refuses: {details or code.name.lower()}")
