"""A sequence at the head of a simulated replica, and what a head says of it."""

import dataclasses
from typing import NamedTuple

from jscale.core.ids import SequenceId
from jscale.pipeline.messages import Finished, Moved, Rejected, Returned, Submit


class TokensEmitted(NamedTuple):
    """Neighbouring tokens of a sequence, evenly in time: many `Emitted` in one."""

    sequence: SequenceId
    attempt: int
    first_index: int
    num_tokens: int
    from_ns: int
    to_ns: int


SimulatedServeEvent = TokensEmitted | Finished | Returned | Moved | Rejected


@dataclasses.dataclass(slots=True, eq=False)
class SequenceProgress:
    """Mutable; owned by the head that runs it.

    Attributes:
      gateway: who wants it.
      length: tokens that are known: the prompt's and those generated.
      length_max: where it ends.
      num_generated: of these tokens, those generated.
      num_computed: tokens whose KV is there.
      num_refilled: of those, how many the first stage has too.
      num_pages: KV pages that it has.
    """

    gateway: str
    sequence: SequenceId
    attempt: int
    length: int
    length_max: int
    num_generated: int
    num_computed: int = 0
    num_refilled: int = 0
    num_pages: int = 0
    is_in_flight: bool = False
    is_cancelled: bool = False

    @property
    def num_uncomputed(self) -> int:
        """Tokens that the next steps must compute."""
        return self.length - self.num_computed

    def lose_pages(self) -> None:
        """Everything must be computed again."""
        self.num_pages = self.num_computed = self.num_refilled = 0
        self.is_in_flight = False


def progress_of(gateway: str, command: Submit, max_context: int) -> SequenceProgress:
    """The progress of a sequence that a gateway submits."""
    prompt = len(command.request.prompt_ids)
    longest = prompt + command.request.sampling.max_tokens
    num_generated = len(command.generated)
    return SequenceProgress(
        gateway=gateway,
        sequence=command.sequence,
        attempt=command.attempt,
        length=prompt + num_generated,
        length_max=min(longest, max_context),
        num_generated=num_generated,
    )
