from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_CANCELLED: _ClassVar[FinishReason]

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_LOADING: _ClassVar[Phase]
    PHASE_PIPELINED: _ClassVar[Phase]
    PHASE_LOCAL: _ClassVar[Phase]
    PHASE_LEAVING: _ClassVar[Phase]
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_CANCELLED: FinishReason
PHASE_UNSPECIFIED: Phase
PHASE_LOADING: Phase
PHASE_PIPELINED: Phase
PHASE_LOCAL: Phase
PHASE_LEAVING: Phase

class GenerateRequest(_message.Message):
    __slots__ = ("request_id", "text", "token_ids", "sampling", "generated_ids")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    GENERATED_IDS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    text: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    sampling: SamplingParameters
    generated_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, request_id: _Optional[str] = ..., text: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[SamplingParameters, _Mapping]] = ..., generated_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class SamplingParameters(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "seed", "max_tokens", "stop_token_ids", "ignore_eos")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    seed: int
    max_tokens: int
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    ignore_eos: bool
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ..., max_tokens: _Optional[int] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., ignore_eos: bool = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("request_id", "tokens", "finish_reason", "prompt_tokens")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    finish_reason: FinishReason
    prompt_tokens: int
    def __init__(self, request_id: _Optional[str] = ..., tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., prompt_tokens: _Optional[int] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("id", "text", "logprob", "index")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    id: int
    text: str
    logprob: float
    index: int
    def __init__(self, id: _Optional[int] = ..., text: _Optional[str] = ..., logprob: _Optional[float] = ..., index: _Optional[int] = ...) -> None: ...

class AbortRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class AbortResponse(_message.Message):
    __slots__ = ("found",)
    FOUND_FIELD_NUMBER: _ClassVar[int]
    found: bool
    def __init__(self, found: bool = ...) -> None: ...

class ModelStatusRequest(_message.Message):
    __slots__ = ("interval_ms", "once")
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    ONCE_FIELD_NUMBER: _ClassVar[int]
    interval_ms: int
    once: bool
    def __init__(self, interval_ms: _Optional[int] = ..., once: bool = ...) -> None: ...

class ModelStatusResponse(_message.Message):
    __slots__ = ("model", "block_sizes_bytes", "num_workers_wanted", "workers", "pipelines", "serving", "note", "manager_epoch")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZES_BYTES_FIELD_NUMBER: _ClassVar[int]
    NUM_WORKERS_WANTED_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    PIPELINES_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    MANAGER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    model: str
    block_sizes_bytes: _containers.RepeatedScalarFieldContainer[int]
    num_workers_wanted: int
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    pipelines: _containers.RepeatedCompositeFieldContainer[Pipeline]
    serving: Serving
    note: str
    manager_epoch: int
    def __init__(self, model: _Optional[str] = ..., block_sizes_bytes: _Optional[_Iterable[int]] = ..., num_workers_wanted: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., pipelines: _Optional[_Iterable[_Union[Pipeline, _Mapping]]] = ..., serving: _Optional[_Union[Serving, _Mapping]] = ..., note: _Optional[str] = ..., manager_epoch: _Optional[int] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker", "phase", "blocks", "received_bytes", "bytes_per_s", "num_tokens", "data_path")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DATA_PATH_FIELD_NUMBER: _ClassVar[int]
    worker: str
    phase: Phase
    blocks: _containers.RepeatedScalarFieldContainer[int]
    received_bytes: int
    bytes_per_s: float
    num_tokens: int
    data_path: str
    def __init__(self, worker: _Optional[str] = ..., phase: _Optional[_Union[Phase, str]] = ..., blocks: _Optional[_Iterable[int]] = ..., received_bytes: _Optional[int] = ..., bytes_per_s: _Optional[float] = ..., num_tokens: _Optional[int] = ..., data_path: _Optional[str] = ...) -> None: ...

class Pipeline(_message.Message):
    __slots__ = ("id", "stages", "num_running", "capacity")
    ID_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    NUM_RUNNING_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    id: int
    stages: _containers.RepeatedCompositeFieldContainer[Stage]
    num_running: int
    capacity: int
    def __init__(self, id: _Optional[int] = ..., stages: _Optional[_Iterable[_Union[Stage, _Mapping]]] = ..., num_running: _Optional[int] = ..., capacity: _Optional[int] = ...) -> None: ...

class Stage(_message.Message):
    __slots__ = ("worker", "first_block", "num_blocks")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    first_block: int
    num_blocks: int
    def __init__(self, worker: _Optional[str] = ..., first_block: _Optional[int] = ..., num_blocks: _Optional[int] = ...) -> None: ...

class Serving(_message.Message):
    __slots__ = ("num_queued", "num_running", "num_finished", "num_handed_over", "num_tokens", "tokens_per_s", "ttft_p50_ms", "ttft_p90_ms", "num_kv_moved", "kv_moved_bytes")
    NUM_QUEUED_FIELD_NUMBER: _ClassVar[int]
    NUM_RUNNING_FIELD_NUMBER: _ClassVar[int]
    NUM_FINISHED_FIELD_NUMBER: _ClassVar[int]
    NUM_HANDED_OVER_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    TTFT_P50_MS_FIELD_NUMBER: _ClassVar[int]
    TTFT_P90_MS_FIELD_NUMBER: _ClassVar[int]
    NUM_KV_MOVED_FIELD_NUMBER: _ClassVar[int]
    KV_MOVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    num_queued: int
    num_running: int
    num_finished: int
    num_handed_over: int
    num_tokens: int
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p90_ms: float
    num_kv_moved: int
    kv_moved_bytes: int
    def __init__(self, num_queued: _Optional[int] = ..., num_running: _Optional[int] = ..., num_finished: _Optional[int] = ..., num_handed_over: _Optional[int] = ..., num_tokens: _Optional[int] = ..., tokens_per_s: _Optional[float] = ..., ttft_p50_ms: _Optional[float] = ..., ttft_p90_ms: _Optional[float] = ..., num_kv_moved: _Optional[int] = ..., kv_moved_bytes: _Optional[int] = ...) -> None: ...

class ScaleToRequest(_message.Message):
    __slots__ = ("num_workers",)
    NUM_WORKERS_FIELD_NUMBER: _ClassVar[int]
    num_workers: int
    def __init__(self, num_workers: _Optional[int] = ...) -> None: ...

class ScaleToResponse(_message.Message):
    __slots__ = ("num_workers_before",)
    NUM_WORKERS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    num_workers_before: int
    def __init__(self, num_workers_before: _Optional[int] = ...) -> None: ...
