"""Between the engine's types and the messages of `proto/link.proto`; gRPC is imported when it is used."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from gosvae.errors import MissingDependencyError
from gosvae.link.class_maps import ClassMapCoding
from gosvae.link.engine import Answer
from gosvae.link.perception import Reason

if TYPE_CHECKING:
    from gosvae.link.proto import link_pb2

METHOD = "/gosvae.link.v1.Link/Connect"
SERVICE = "gosvae.link.v1.Link"
MAX_NAME_CHARACTERS = 64

CODINGS: MappingProxyType[int, ClassMapCoding] = MappingProxyType({0: "zlib", 3: "none", 4: "zlib"})
"""Codings of class maps by their numbers in `ClassMapCoding`."""
REASON_NUMBERS = MappingProxyType({reason: number for number, reason in enumerate(Reason, 1)})
"""Their numbers in `RefusalReason`."""
REASONS = MappingProxyType({number: reason for reason, number in REASON_NUMBERS.items()})


@cache
def pb() -> Any:
    """The generated messages.

    Raises:
        MissingDependencyError: protobuf is not installed.
    """
    try:
        from gosvae.link.proto import link_pb2
    except ImportError as error:
        raise MissingDependencyError(
            f"the gRPC service needs protobuf ({error}): pip install 'gosvae[serve]'"
        ) from None
    return link_pb2


@cache
def import_grpc() -> Any:
    """gRPC with its `aio` part.

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
    """Return the number of a coding in messages."""
    return {"none": 3, "zlib": 4}[coding]


def result_message(answer: Answer) -> link_pb2.FromReceiver:
    """An answer as a message."""
    perceived, stages = answer.perceived, answer.perceived.stages
    height, width = perceived.classes_uint8_HW.shape
    counts = np.bincount(perceived.classes_uint8_HW.reshape(-1))
    message: link_pb2.FromReceiver = pb().FromReceiver(
        result=pb().Result(
            number=answer.frame.number,
            height=height,
            width=width,
            coding=coding_number(answer.frame.coding),
            class_map=answer.class_map,
            class_pixels=counts.tolist(),
            stages=pb().Stages(
                queue_ms=stages.queue_ms,
                entropy_ms=stages.entropy_ms,
                reconstruct_ms=stages.reconstruct_ms,
                expert_ms=stages.expert_ms,
                answer_ms=stages.answer_ms,
                total_ms=stages.total_ms,
                batch=stages.batch,
            ),
            stream_bytes=len(answer.frame.stream),
            concealed_pixels=0 if perceived.concealed_HW is None else int(perceived.concealed_HW.sum()),
        )
    )
    return message


def refusal_message(number: int, reason: Reason, text: str) -> link_pb2.FromReceiver:
    """A refusal as a message."""
    refusal = pb().Refusal(number=number, reason=REASON_NUMBERS[reason], text=text)
    message: link_pb2.FromReceiver = pb().FromReceiver(refusal=refusal)
    return message


def printable(name: str) -> str:
    """What a sender calls itself, short and fit to be shown."""
    shown = "".join(c for c in name[:MAX_NAME_CHARACTERS] if c.isprintable()).strip()
    return shown or "unnamed"
