"""What a router wants done: the only way out of `Router`."""

import dataclasses

from jscale.core.errors import JscaleError
from jscale.core.ids import SequenceId, WorkerId
from jscale.pipeline.messages import ServeCommand


@dataclasses.dataclass(frozen=True)
class Send:
    """Send the command on the stream to that head, in order."""

    head: WorkerId
    command: ServeCommand


@dataclasses.dataclass(frozen=True)
class Deliver:
    """Give the client this token; `index` counts up from 0 without a gap."""

    sequence: SequenceId
    index: int
    token: int
    logprob: float


@dataclasses.dataclass(frozen=True)
class End:
    """The request is complete: `stop`, `length` or `cancelled`."""

    sequence: SequenceId
    reason: str


@dataclasses.dataclass(frozen=True)
class Fail:
    """The request cannot be completed."""

    sequence: SequenceId
    error: JscaleError


Decision = Send | Deliver | End | Fail
