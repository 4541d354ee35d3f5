from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClassMapCoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLASS_MAP_CODING_UNSPECIFIED: _ClassVar[ClassMapCoding]
    CLASS_MAP_CODING_NONE: _ClassVar[ClassMapCoding]
    CLASS_MAP_CODING_ZLIB: _ClassVar[ClassMapCoding]

class ArrayType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARRAY_TYPE_UNSPECIFIED: _ClassVar[ArrayType]
    ARRAY_TYPE_UINT8: _ClassVar[ArrayType]
    ARRAY_TYPE_UINT16: _ClassVar[ArrayType]
    ARRAY_TYPE_FLOAT16: _ClassVar[ArrayType]
    ARRAY_TYPE_FLOAT32: _ClassVar[ArrayType]

class RefusalReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSAL_REASON_UNSPECIFIED: _ClassVar[RefusalReason]
    REFUSAL_REASON_MALFORMED: _ClassVar[RefusalReason]
    REFUSAL_REASON_DAMAGED: _ClassVar[RefusalReason]
    REFUSAL_REASON_FOREIGN: _ClassVar[RefusalReason]
    REFUSAL_REASON_TOO_LARGE: _ClassVar[RefusalReason]
    REFUSAL_REASON_QUEUE_FULL: _ClassVar[RefusalReason]
    REFUSAL_REASON_SUPERSEDED: _ClassVar[RefusalReason]
    REFUSAL_REASON_STALE: _ClassVar[RefusalReason]
    REFUSAL_REASON_FAILED: _ClassVar[RefusalReason]
    REFUSAL_REASON_SHUTDOWN: _ClassVar[RefusalReason]
    REFUSAL_REASON_INCOMPLETE: _ClassVar[RefusalReason]
    REFUSAL_REASON_GONE: _ClassVar[RefusalReason]
CLASS_MAP_CODING_UNSPECIFIED: ClassMapCoding
CLASS_MAP_CODING_NONE: ClassMapCoding
CLASS_MAP_CODING_ZLIB: ClassMapCoding
ARRAY_TYPE_UNSPECIFIED: ArrayType
ARRAY_TYPE_UINT8: ArrayType
ARRAY_TYPE_UINT16: ArrayType
ARRAY_TYPE_FLOAT16: ArrayType
ARRAY_TYPE_FLOAT32: ArrayType
REFUSAL_REASON_UNSPECIFIED: RefusalReason
REFUSAL_REASON_MALFORMED: RefusalReason
REFUSAL_REASON_DAMAGED: RefusalReason
REFUSAL_REASON_FOREIGN: RefusalReason
REFUSAL_REASON_TOO_LARGE: RefusalReason
REFUSAL_REASON_QUEUE_FULL: RefusalReason
REFUSAL_REASON_SUPERSEDED: RefusalReason
REFUSAL_REASON_STALE: RefusalReason
REFUSAL_REASON_FAILED: RefusalReason
REFUSAL_REASON_SHUTDOWN: RefusalReason
REFUSAL_REASON_INCOMPLETE: RefusalReason
REFUSAL_REASON_GONE: RefusalReason

class FromSender(_message.Message):
    __slots__ = ("hello", "frame")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    frame: Frame
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("name", "coding", "codec_fingerprint", "patient", "results")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CODING_FIELD_NUMBER: _ClassVar[int]
    CODEC_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PATIENT_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    coding: ClassMapCoding
    codec_fingerprint: bytes
    patient: bool
    results: bool
    def __init__(self, name: _Optional[str] = ..., coding: _Optional[_Union[ClassMapCoding, str]] = ..., codec_fingerprint: _Optional[bytes] = ..., patient: _Optional[bool] = ..., results: _Optional[bool] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("number", "stream", "deadline_ms", "round_trip_ms", "original", "video")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_MS_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_FIELD_NUMBER: _ClassVar[int]
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    number: int
    stream: bytes
    deadline_ms: int
    round_trip_ms: float
    original: bytes
    video: bytes
    def __init__(self, number: _Optional[int] = ..., stream: _Optional[bytes] = ..., deadline_ms: _Optional[int] = ..., round_trip_ms: _Optional[float] = ..., original: _Optional[bytes] = ..., video: _Optional[bytes] = ...) -> None: ...

class FromReceiver(_message.Message):
    __slots__ = ("welcome", "result", "refusal")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    result: Result
    refusal: Refusal
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("codec", "codec_fingerprint", "expert", "class_names", "max_frame_bytes", "max_pending_frames", "policy", "deadline_ms", "experts", "video")
    CODEC_FIELD_NUMBER: _ClassVar[int]
    CODEC_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    EXPERT_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAMES_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PENDING_FRAMES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    codec: str
    codec_fingerprint: bytes
    expert: str
    class_names: _containers.RepeatedScalarFieldContainer[str]
    max_frame_bytes: int
    max_pending_frames: int
    policy: str
    deadline_ms: int
    experts: _containers.RepeatedCompositeFieldContainer[Expert]
    video: int
    def __init__(self, codec: _Optional[str] = ..., codec_fingerprint: _Optional[bytes] = ..., expert: _Optional[str] = ..., class_names: _Optional[_Iterable[str]] = ..., max_frame_bytes: _Optional[int] = ..., max_pending_frames: _Optional[int] = ..., policy: _Optional[str] = ..., deadline_ms: _Optional[int] = ..., experts: _Optional[_Iterable[_Union[Expert, _Mapping]]] = ..., video: _Optional[int] = ...) -> None: ...

class Expert(_message.Message):
    __slots__ = ("name", "task", "class_names")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    task: str
    class_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., task: _Optional[str] = ..., class_names: _Optional[_Iterable[str]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("number", "height", "width", "coding", "class_map", "class_pixels", "stages", "stream_bytes", "concealed_pixels", "results")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    CODING_FIELD_NUMBER: _ClassVar[int]
    CLASS_MAP_FIELD_NUMBER: _ClassVar[int]
    CLASS_PIXELS_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    STREAM_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONCEALED_PIXELS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    number: int
    height: int
    width: int
    coding: ClassMapCoding
    class_map: bytes
    class_pixels: _containers.RepeatedScalarFieldContainer[int]
    stages: Stages
    stream_bytes: int
    concealed_pixels: int
    results: _containers.RepeatedCompositeFieldContainer[TaskResult]
    def __init__(self, number: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., coding: _Optional[_Union[ClassMapCoding, str]] = ..., class_map: _Optional[bytes] = ..., class_pixels: _Optional[_Iterable[int]] = ..., stages: _Optional[_Union[Stages, _Mapping]] = ..., stream_bytes: _Optional[int] = ..., concealed_pixels: _Optional[int] = ..., results: _Optional[_Iterable[_Union[TaskResult, _Mapping]]] = ...) -> None: ...

class TaskResult(_message.Message):
    __slots__ = ("expert", "arrays")
    EXPERT_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    expert: str
    arrays: _containers.RepeatedCompositeFieldContainer[Array]
    def __init__(self, expert: _Optional[str] = ..., arrays: _Optional[_Iterable[_Union[Array, _Mapping]]] = ...) -> None: ...

class Array(_message.Message):
    __slots__ = ("name", "shape", "type", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    type: ArrayType
    data: bytes
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., type: _Optional[_Union[ArrayType, str]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Stages(_message.Message):
    __slots__ = ("queue_ms", "entropy_ms", "reconstruct_ms", "expert_ms", "answer_ms", "total_ms", "batch")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_MS_FIELD_NUMBER: _ClassVar[int]
    RECONSTRUCT_MS_FIELD_NUMBER: _ClassVar[int]
    EXPERT_MS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    entropy_ms: float
    reconstruct_ms: float
    expert_ms: float
    answer_ms: float
    total_ms: float
    batch: int
    def __init__(self, queue_ms: _Optional[float] = ..., entropy_ms: _Optional[float] = ..., reconstruct_ms: _Optional[float] = ..., expert_ms: _Optional[float] = ..., answer_ms: _Optional[float] = ..., total_ms: _Optional[float] = ..., batch: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("number", "reason", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    reason: RefusalReason
    text: str
    def __init__(self, number: _Optional[int] = ..., reason: _Optional[_Union[RefusalReason, str]] = ..., text: _Optional[str] = ...) -> None: ...
