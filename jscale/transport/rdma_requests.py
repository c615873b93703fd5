"""Work requests of one connection: how they are posted, and what is done when done."""

import collections
import contextlib
import functools
from collections.abc import Callable, Sequence

from jscale.core.errors import PeerLostError
from jscale.transport.rdma_flow import FlowLimits, SendQueue
from jscale.transport.rdma_offers import Write
from jscale.transport.rdma_queue_pairs import QueuePair
from jscale.transport.rdma_send_slots import WORDS_MAX, SendSlots, Slot
from jscale.transport.rdma_wire import Immediate, Word, encode_word

SIGNAL_EVERY = 4
"""Requests of which one is signalled; fewer than may be on their way of any kind."""

_STREAM_RAIL = 0

Local = tuple[int, int, int]
"""Bytes of ours, as requests name them: address, size, key."""

Remote = tuple[int, int]
"""Bytes of the peer: address, key."""

Done = Callable[[], None]


class Requests:
    """What is posted on the queue pairs of one link. Mutable; guarded by its owner.

    Flow control keeps the queues from overflowing. After `stop` nothing is posted.
    """

    def __init__(
        self, queue_pairs: Sequence[QueuePair], slots: SendSlots, limits: FlowLimits
    ) -> None:
        self.num_sent = 0
        """SENDs and writes: what the peer hears of."""
        self._queue_pairs = queue_pairs
        self._slots = slots
        signal_every = min(SIGNAL_EVERY, limits.offers, limits.stream)
        self._queues = [
            SendQueue[Done](limits.send_depth, signal_every) for _ in queue_pairs
        ]
        self._words: collections.deque[Word] = collections.deque()
        self._is_stopped = False

    @property
    def is_idle(self) -> bool:
        """Whether all that was posted is done with, and nothing waits to be."""
        return not self._words and not any(len(queue) for queue in self._queues)

    def send_stream(self, slot: Slot, size_bytes: int) -> None:
        """Sends the first bytes of a slot of the stream, and frees it.

        Raises:
          PeerLostError: the queue pair takes nothing any more; so for the others.
        """
        free = functools.partial(self._slots.stream.append, slot)
        self._send(slot.local(size_bytes), Immediate.STREAM, free)

    def say(self, word: Word) -> None:
        """Sends a control word, with all that waited."""
        self._words.append(word)
        self.send_words()

    def say_later(self, word: Word) -> None:
        """Keeps a control word for the next `say` or `send_words`."""
        self._words.append(word)

    def send_words(self) -> None:
        """Sends the control words that wait, as far as there are slots for them."""
        slots = self._slots.words
        while self._words and slots and not self._is_stopped:
            slot = slots.popleft()
            number = min(len(self._words), WORDS_MAX)
            data = b"".join(encode_word(self._words.popleft()) for _ in range(number))
            slot.view[: len(data)] = data
            free = functools.partial(slots.append, slot)
            self._send(slot.local(len(data)), Immediate.WORDS, free)

    def write(self, write: Write, local: Local, done: Done) -> None:
        """Writes a chunk to where the peer wants it."""
        if self._is_stopped:
            return
        position, is_signalled = self._queues[write.rail].post(
            done, is_signalled=write.is_last
        )
        self._queue_pairs[write.rail].write(
            local,
            (write.address, write.rkey),
            write.number,
            number=position,
            is_signalled=is_signalled,
        )
        self.num_sent += 1

    def read(self, rail: int, local: Local, remote: Remote, done: Done) -> None:
        """Reads a chunk from where the peer has it."""
        if self._is_stopped:
            return
        position, _ = self._queues[rail].post(done, is_signalled=True)
        self._queue_pairs[rail].read(local, remote, number=position, is_signalled=True)

    def hear_of_all(self) -> None:
        """Has completions tell of all that was posted."""
        self.send_words()
        for rail in range(len(self._queues)):
            self.hear_of_silent(rail)

    def hear_of_silent(self, rail: int) -> None:
        """Has a completion tell of writes that left that to one that will not come."""
        if self._queues[rail].is_silent and not self._is_stopped:
            position, _ = self._queues[rail].post(_nothing, is_signalled=True)
            self._queue_pairs[rail].write_nothing(number=position)

    def completed(self, rail: int, number: int, *, is_right: bool) -> None:
        """Does what is to be done when that request, and those before it, are done.

        Args:
          rail: on which.
          number: of the request.
          is_right: they were carried out; if not, nothing is to be done.

        Raises:
          TransportError: there is no such request.
        """
        for done in self._queues[rail].completed(number):
            if is_right:
                done()
        self.send_words()

    def stop(self) -> None:
        """Stops the queue pairs, and posts what tells that all before it is flushed."""
        self._is_stopped = True
        self._words.clear()
        for queue_pair, queue in zip(self._queue_pairs, self._queues, strict=True):
            queue_pair.stop()
            position, _ = queue.post(_nothing, is_signalled=True)
            with contextlib.suppress(PeerLostError):
                queue_pair.send((0, 0, 0), 0, number=position, is_signalled=True)

    def _send(self, local: Local, immediate: Immediate, done: Done) -> None:
        position, is_signalled = self._queues[_STREAM_RAIL].post(
            done, is_signalled=False
        )
        self._queue_pairs[_STREAM_RAIL].send(
            local, immediate, number=position, is_signalled=is_signalled
        )
        self.num_sent += 1


def _nothing() -> None:
    """What is done when nothing is."""
