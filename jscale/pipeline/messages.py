"""What workers tell each other while they serve, and what a head tells a gateway.

Values only, as msgpack. The arrays of a micro-batch travel beside the header.
"""

import msgspec

from jscale.core.ids import BatchId, PipelineId, SequenceId, WorkerId
from jscale.engine.request import Request


class StageSpec(msgspec.Struct, frozen=True):
    """The blocks that one worker runs for one pipeline."""

    worker: WorkerId
    address: str
    first_block: int
    num_blocks: int

    @property
    def blocks(self) -> range:
        """The indices of its blocks."""
        return range(self.first_block, self.first_block + self.num_blocks)


class PipelineSpec(msgspec.Struct, frozen=True):
    """An execution pipeline as its workers know it; never edited.

    A re-cut may continue an older pipeline: it takes over that one's pages, and every
    stage but the first finds there the KV of all the blocks that it runs.
    """

    pipeline: PipelineId
    stages: tuple[StageSpec, ...]
    num_pages: int
    continues: PipelineId | None = None

    @property
    def head(self) -> WorkerId:
        """The worker of the first stage: it schedules, and talks to gateways."""
        return self.stages[0].worker

    @property
    def is_local(self) -> bool:
        """One stage covers the model: no activation leaves the worker."""
        return len(self.stages) == 1

    @property
    def workers(self) -> tuple[WorkerId, ...]:
        """Every worker once, in the order of the stages."""
        return tuple(dict.fromkeys(stage.worker for stage in self.stages))


class KvTicket(msgspec.Struct, frozen=True):
    """Where the KV of a sequence's first tokens was left when it was given back.

    The workers of `stages` have it in `pages`, which the pipeline numbered, for as long
    as nobody else needs those: it is moved if it is still there, else recomputed.
    `prefill_tokens_per_s` is how fast that replica computed prompts, 0: not known, and
    `step_ns` how long a step took there.
    """

    pipeline: PipelineId
    stages: tuple[StageSpec, ...]
    pages: tuple[int, ...]
    num_tokens: int
    prefill_tokens_per_s: float = 0.0
    step_ns: int = 0


# --- stage -> stage (header; the arrays follow as payload) -------------------------


class StageInput(msgspec.Struct, frozen=True, tag=True):
    """A micro-batch arrives at a stage.

    The payload is the batch's rows, then the activations `[num_rows, embed]`.
    """

    pipeline: PipelineId
    stage_index: int
    batch: BatchId
    batch_bytes: int


class Sampled(msgspec.Struct, frozen=True, tag=True):
    """The last stage gives the head one token per row of the batch."""

    pipeline: PipelineId
    batch: BatchId
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


class PipelineBroken(msgspec.Struct, frozen=True, tag=True):
    """A stage cannot go on; the head gives its sequences back."""

    pipeline: PipelineId
    reason: str


class MoveKv(msgspec.Struct, frozen=True, tag=True):
    """The head has a stage get the KV of a sequence, for the blocks that it runs.

    `pages` are the sequence's in the new pipeline, as many as the ticket names.
    """

    pipeline: PipelineId
    move: int
    ticket: KvTicket
    pages: tuple[int, ...]


class MoveEnded(msgspec.Struct, frozen=True, tag=True):
    """A stage has the KV that it was to get, or a reason why not.

    In either case it writes no more of it. `size_bytes` came over the network.
    """

    pipeline: PipelineId
    move: int
    worker: WorkerId
    size_bytes: int
    took_ns: int
    reason: str = ""


class FetchKv(msgspec.Struct, frozen=True, tag=True):
    """A worker asks another for the KV of a block in pages of an older pipeline."""

    pipeline: PipelineId
    piece: int
    reader: StageSpec
    block: int
    pages: tuple[int, ...]


class KvPiece(msgspec.Struct, frozen=True, tag=True):
    """The answer; the payload is the KV, empty if it is not there any more."""

    piece: int
    is_there: bool


StageMessage = (
    StageInput | Sampled | PipelineBroken | MoveKv | MoveEnded | FetchKv | KvPiece
)


# --- gateway -> head ----------------------------------------------------------------


class Submit(msgspec.Struct, frozen=True, tag=True):
    """Run this sequence on that replica, going on after `generated`.

    `attempt` counts how often the sequence was handed over: what an earlier attempt
    still says is recognised by it and dropped. `kv` is what `Returned` brought.
    """

    pipeline: PipelineId
    sequence: SequenceId
    attempt: int
    request: Request
    generated: tuple[int, ...] = ()
    kv: KvTicket | None = None


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """The client is gone: forget the sequence."""

    sequence: SequenceId


ServeCommand = Submit | Cancel


class ServeCommands(msgspec.Struct, frozen=True):
    """What one decision of a gateway means for one head, in order.

    Sequences that come together are computed together, from the first step on.
    """

    commands: tuple[ServeCommand, ...]


# --- head -> gateway ----------------------------------------------------------------


class Emitted(msgspec.Struct, frozen=True, tag=True):
    """A token of a sequence; `index` counts generated tokens from 0."""

    sequence: SequenceId
    attempt: int
    index: int
    token: int
    logprob: float


class Finished(msgspec.Struct, frozen=True, tag=True):
    """The sequence is complete: `stop`, `length` or `cancelled`."""

    sequence: SequenceId
    attempt: int
    reason: str


class Returned(msgspec.Struct, frozen=True, tag=True):
    """The replica gives the sequence back: the gateway hands it over to another.

    `kv` is for that one, and says where it may find what was computed here.
    """

    sequence: SequenceId
    attempt: int
    reason: str
    kv: KvTicket | None = None


class Moved(msgspec.Struct, frozen=True, tag=True):
    """The sequence goes on at another replica of the same head; nothing is lost."""

    sequence: SequenceId
    attempt: int
    pipeline: PipelineId


class KvMoved(msgspec.Struct, frozen=True, tag=True):
    """The KV of so many tokens was moved here: they are not computed again."""

    sequence: SequenceId
    attempt: int
    num_tokens: int
    size_bytes: int


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """The sequence can run nowhere as it stands; the reason is for the client."""

    sequence: SequenceId
    attempt: int
    reason: str


ServeEvent = Emitted | Finished | Returned | Moved | KvMoved | Rejected


class ServeEvents(msgspec.Struct, frozen=True):
    """What one step brought for one gateway, in order."""

    events: tuple[ServeEvent, ...]
