"""How much may be on its way in one RDMA connection. Pure.

A SEND, and a write with an immediate, uses up a receive buffer of the peer. There are
three kinds, and each is bounded by itself, so that none can take the place of another:

*Stream.* At most `stream` SENDs that the receive thread has not taken; it gives credit
back for half of them at a time.

*Writes.* At most `offers` chunks are offered and not done with; none is granted while
as many of those that were are still on their way.

*Control words.* An answer for each offer, and credit at most three times (a return is
of `stream // 2`, at least 1, and all returns on their way are of at most `stream`).
They are taken from their buffers by a thread that waits for nobody, before it acts on
them, so that two sides never wait for each other.
"""

import collections
import dataclasses
from typing import Generic, TypeVar

from jscale.core.errors import TransportError

CREDIT_WORDS_MAX = 3

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class FlowLimits:
    """Bounds that both ends of a connection share.

    Attributes:
      stream: SENDs of the stream on their way, or waiting to be read.
      offers: chunks offered and not done with.
    """

    stream: int
    offers: int

    def __post_init__(self) -> None:
        assert self.stream > 0, self.stream
        assert self.offers > 0, self.offers

    @property
    def words(self) -> int:
        """SENDs of control words on their way."""
        return self.offers + CREDIT_WORDS_MAX

    @property
    def stream_rail_buffers(self) -> int:
        """Receive buffers that one end promises on the rail of the stream."""
        return self.stream + self.offers + self.words

    @property
    def send_depth(self) -> int:
        """Work requests that one end has posted on one rail, at most.

        The stream, control words, writes of its own offers (each perhaps with one of
        no bytes that tells of it), reads of the peer's or, where it refuses offers and
        acknowledges nothing, more of no bytes behind the stream, and two at the end
        that tell when the queue is empty.
        """
        rest = max(self.stream, self.offers)
        return self.stream + self.words + 2 * self.offers + rest + 2


class StreamCredit:
    """Both halves of the stream's credit at one end. Mutable; guarded by its owner."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._may_send = limit
        self._peer_may_send = limit
        self._taken = 0

    @property
    def may_send(self) -> int:
        """SENDs for which the peer has a buffer."""
        return self._may_send

    def sent(self) -> None:
        """One more was sent."""
        assert self._may_send, "without credit"
        self._may_send -= 1

    def granted(self, number: int) -> None:
        """The peer gave credit back.

        Raises:
          TransportError: more than it ever had of us.
        """
        if not 0 < number <= self._limit - self._may_send:
            raise TransportError(
                f"credit for {number} SENDs, {self._limit - self._may_send} were sent"
            )
        self._may_send += number

    def came(self) -> None:
        """The peer sent one.

        Raises:
          TransportError: it had no credit.
        """
        if not self._peer_may_send:
            raise TransportError("a SEND without credit")
        self._peer_may_send -= 1

    def taken(self) -> int:
        """One that came was read and its buffer posted again; credit to give, or 0."""
        self._taken += 1
        if self._taken < max(1, self._limit // 2):
            return 0
        number, self._taken = self._taken, 0
        self._peer_may_send += number
        return number


class SendQueue(Generic[Item]):
    """Work requests of one queue pair, from posting to completion.

    Every n-th is signalled, and whichever the caller says; a completion tells of all
    before it, too, as a reliable connection carries them out in order. The caller says
    so of the last for the time being, and so hears of each in the end. Mutable; guarded
    by its owner.
    """

    def __init__(self, depth: int, signal_every: int) -> None:
        assert 0 < signal_every <= depth, (signal_every, depth)
        self._depth = depth
        self._signal_every = signal_every
        self._posted: collections.deque[Item] = collections.deque()
        self._num_completed = 0
        self._num_silent = 0

    def __len__(self) -> int:
        return len(self._posted)

    @property
    def is_silent(self) -> bool:
        """Whether no completion will tell of the last one that was posted."""
        return self._num_silent > 0

    def post(self, item: Item, *, is_signalled: bool) -> tuple[int, bool]:
        """The work request's number, and whether it is to be signalled.

        Args:
          item: what `completed` returns for it.
          is_signalled: it is to be.
        """
        assert len(self._posted) < self._depth, "the queue is full"
        self._posted.append(item)
        self._num_silent += 1
        is_signalled = is_signalled or self._num_silent >= self._signal_every
        if is_signalled:
            self._num_silent = 0
        return self._num_completed + len(self._posted) - 1, is_signalled

    def completed(self, number: int) -> list[Item]:
        """The items that are done with when the request of this number is.

        Raises:
          TransportError: there is no such request.
        """
        count = number - self._num_completed + 1
        if not 0 < count <= len(self._posted):
            raise TransportError(f"completion of request {number}, which is not posted")
        self._num_completed += count
        return [self._posted.popleft() for _ in range(count)]
