"""The progress of one request on one replica."""

from collections.abc import Sequence as SequenceOf

from jscale.core.ids import SequenceId
from jscale.engine.request import Request

STOP = "stop"
LENGTH = "length"
CANCELLED = "cancelled"


class Sequence:
    """Tokens known, tokens whose KV is in pages, and the pages.

    `num_computed` tokens have their KV on every stage, `num_refilled` of them on the
    first: fewer only after that stage got more blocks to run. `num_movable` tokens have
    theirs where the sequence was before, and it may be moved from there.

    Mutable; owned by the scheduler it was added to, and so by that one's thread.
    A hand-over makes a new one from the request and the tokens generated so far.
    """

    def __init__(self, request: Request, generated: SequenceOf[int] = ()) -> None:
        """A sequence of which nothing is computed yet."""
        self.request = request
        self.token_ids: list[int] = [*request.prompt_ids, *generated]
        self.num_computed = 0
        self.num_refilled = 0
        self.num_movable = 0
        self.pages: list[int] = []
        self.is_in_flight = False
        self.is_cancelled = False

    @property
    def id(self) -> SequenceId:
        """The id of the request."""
        return self.request.id

    @property
    def num_generated(self) -> int:
        """Tokens generated so far, also by earlier replicas."""
        return len(self.token_ids) - len(self.request.prompt_ids)

    @property
    def generated(self) -> tuple[int, ...]:
        """The tokens generated so far, also by earlier replicas."""
        return tuple(self.token_ids[len(self.request.prompt_ids) :])

    @property
    def num_kept(self) -> int:
        """Tokens whose KV is on every stage, the first too."""
        return min(self.num_computed, self.num_refilled)

    @property
    def num_uncomputed(self) -> int:
        """Tokens still to be computed before the next can be sampled."""
        return len(self.token_ids) - self.num_computed

    def finish_reason(
        self, eos_token_ids: frozenset[int], max_context: int
    ) -> str | None:
        """`stop` or `length` if the sequence is complete, None while it goes on."""
        if self.num_generated == 0:
            return None
        sampling, last = self.request.sampling, self.token_ids[-1]
        if last in sampling.stop_token_ids:
            return STOP
        if last in eos_token_ids and not sampling.ignore_eos:
            return STOP
        if self.num_generated >= sampling.max_tokens:
            return LENGTH
        if len(self.token_ids) >= max_context:
            return LENGTH
        return None
