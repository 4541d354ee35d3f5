"""Conversion between frames and the messages of `proto/link.proto`; gRPC is imported on first use."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from gosvae.errors import MissingDependencyError
from gosvae.protocol.arrays import ArrayType, CodedArray
from gosvae.protocol.class_maps import ClassMapCoding
from gosvae.protocol.frames import Answer, Dropped, Outcome, Reason, StageTimes, TaskResult
from gosvae.wire import ARRAY_TYPES, CLASS_MAP_CODINGS, REASONS

if TYPE_CHECKING:
    from gosvae.protocol.proto import link_pb2

METHOD = "/gosvae.link.v1.Link/Connect"
"""Path of the call that carries a stream of frames."""
SERVICE = "gosvae.link.v1.Link"
"""Name of the gRPC service."""
MAX_NAME_CHARACTERS = 64
"""Greatest number of characters of a sender's name."""

_CODING_OF: MappingProxyType[int, ClassMapCoding] = MappingProxyType(
    {0: "zlib", **{number: cast(ClassMapCoding, coding) for coding, number in CLASS_MAP_CODINGS.items()}}
)
_ARRAY_TYPE_OF: MappingProxyType[int, ArrayType] = MappingProxyType(
    {number: cast(ArrayType, kind) for kind, number in ARRAY_TYPES.items()}
)
_REASON_OF = MappingProxyType({number: Reason(reason) for reason, number in REASONS.items()})


@cache
def pb() -> Any:
    """Return the module of the generated messages.

    Raises:
        MissingDependencyError: protobuf is not installed.
    """
    try:
        from gosvae.protocol.proto import link_pb2
    except ImportError as error:
        raise MissingDependencyError(
            f"the gRPC service needs protobuf ({error}): pip install 'gosvae[serve]'"
        ) from None
    return link_pb2


@cache
def import_grpc() -> Any:
    """Return the module `grpc` with its `aio` part.

    Raises:
        MissingDependencyError: grpcio is not installed.
    """
    try:
        import grpc
        import grpc.aio
    except ImportError as error:
        raise MissingDependencyError(f"the gRPC service needs grpcio ({error}): pip install 'gosvae[serve]'") from None
    return grpc


def coding_number(coding: ClassMapCoding) -> int:
    """Return the number that stands for a coding in messages."""
    return CLASS_MAP_CODINGS[coding]


def coding_of(number: int) -> ClassMapCoding | None:
    """Return the coding that a number in a message stands for; None if the number is not known."""
    return _CODING_OF.get(number)


def outcome_message(outcome: Outcome) -> link_pb2.FromReceiver:
    """Return the message that tells a sender the outcome of its frame."""
    if isinstance(outcome, Dropped):
        text, reason = outcome.text, REASONS[outcome.reason]
        message = pb().FromReceiver(refusal=pb().Refusal(number=outcome.number, reason=reason, text=text))
    else:
        message = pb().FromReceiver(
            result=pb().Result(
                number=outcome.number,
                height=outcome.height,
                width=outcome.width,
                coding=coding_number(outcome.coding),
                class_map=outcome.class_map,
                class_pixels=outcome.class_pixels,
                stages=pb().Stages(**{f.name: getattr(outcome.stages, f.name) for f in fields(StageTimes)}),
                stream_bytes=outcome.stream_bytes,
                concealed_pixels=outcome.concealed_pixels,
                results=[_result_message(each) for each in outcome.results],
            )
        )
    return cast("link_pb2.FromReceiver", message)


def _result_message(result: TaskResult) -> Any:
    arrays = [
        pb().Array(name=each.name, shape=each.shape, type=ARRAY_TYPES[each.kind], data=each.data)
        for each in result.coded
    ]
    return pb().TaskResult(expert=result.expert, arrays=arrays)


def _read_result(message: Any) -> TaskResult:
    """Return the result in a message; arrays of types that this version does not know are left out."""
    known = [(each, _ARRAY_TYPE_OF.get(each.type)) for each in message.arrays]
    coded = [CodedArray(each.name, tuple(each.shape), kind, each.data) for each, kind in known if kind is not None]
    return TaskResult(message.expert, tuple(coded))


def read_outcome(message: link_pb2.FromReceiver) -> Outcome | None:
    """Return the outcome in a message; None if the message has another kind.

    An unknown reason is read as `FAILED`, and an unknown coding as `none`.
    """
    match message.WhichOneof("kind"):
        case "result":
            result = message.result
            return Answer(
                number=result.number,
                height=result.height,
                width=result.width,
                coding=coding_of(result.coding) or "none",
                class_map=result.class_map,
                class_pixels=tuple(result.class_pixels),
                stages=StageTimes(**{f.name: getattr(result.stages, f.name) for f in fields(StageTimes)}),
                stream_bytes=result.stream_bytes,
                concealed_pixels=result.concealed_pixels,
                results=tuple(_read_result(each) for each in result.results),
            )
        case "refusal":
            refusal = message.refusal
            return Dropped(_REASON_OF.get(refusal.reason, Reason.FAILED), refusal.text, refusal.number)
    return None


def printable(name: str) -> str:
    """Return the name that a sender gives itself, shortened and without characters that cannot be shown."""
    shown = "".join(c for c in name[:MAX_NAME_CHARACTERS] if c.isprintable()).strip()
    return shown or "unnamed"
