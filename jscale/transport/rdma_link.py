"""One end of an RDMA connection: what is on its way, and how it ends."""

import collections
import contextlib
import functools
import threading
import time
from collections.abc import Callable, Sequence

from jscale.core.errors import PeerLostError, TransportError
from jscale.transport.rdma_endpoint import Bye, Note, Region
from jscale.transport.rdma_flow import FlowLimits, StreamCredit
from jscale.transport.rdma_memory import RegisteredMemory
from jscale.transport.rdma_offers import OfferedChunk, OfferedChunks, Write
from jscale.transport.rdma_queue_pairs import QueuePair
from jscale.transport.rdma_rail import Completion, Rail
from jscale.transport.rdma_requests import Requests
from jscale.transport.rdma_send_slots import SendSlots
from jscale.transport.rdma_side_channel import ENDING_S, SideChannel
from jscale.transport.rdma_status import FLUSHED, SUCCESS, explain
from jscale.transport.rdma_wire import (
    Immediate,
    Place,
    Word,
    WordKind,
    decode_words,
)


class RdmaLink:
    """Queue pairs, one on each rail, and the socket beside them. Thread-safe.

    Three kinds of threads meet here. Senders wait in `send` and `offer`, one at a time;
    the receive thread in `wait` and `next_bytes`; the poller calls `completed`,
    `read_notes`, `settle` and `check`, and waits for nobody.
    """

    def __init__(
        self,
        channel: SideChannel,
        queue_pairs: Sequence[QueuePair],
        memory: RegisteredMemory,
        slots: SendSlots,
        limits: FlowLimits,
        *,
        timeout_s: float,
    ) -> None:
        self.queue_pairs = tuple(queue_pairs)
        self.limits = limits
        self.slots = slots
        self._stream_rail = self.queue_pairs[0].rail
        self.channel = channel
        self._memory = memory
        self._timeout_s = timeout_s
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        """Senders wait for it: credit, a slot, the end of an offer."""
        self._news = threading.Condition(self._lock)
        """The receive thread waits for it."""
        # Guarded by _lock:
        self._requests = Requests(self.queue_pairs, slots, limits)
        self._credit = StreamCredit(limits.stream)
        self._offers = OfferedChunks(limits.offers, len(self.queue_pairs))
        self._expected: set[int] = set()
        self._arrived: set[int] = set()
        self._inbox: collections.deque[tuple[int, int]] = collections.deque()
        self._num_received = 0
        self._failure = ""
        self._interruption = ""
        self._is_closed = False

    # --- senders ----------------------------------------------------------------------

    def send(self, parts: Sequence[memoryview]) -> None:
        """Appends bytes to the stream; returns when they may be changed.

        Raises:
          PeerLostError: the peer is gone, or took nothing for the timeout.
        """
        left = [part for part in parts if part.nbytes]
        while left:
            with self._lock:
                self._wait(lambda: self._credit.may_send and self.slots.stream)
                slot = self.slots.stream.popleft()
                self._credit.sent()
            size_bytes = _fill(slot.view, left)
            with self._lock:
                self._require_alive()
                self._requests.send_stream(slot, size_bytes)

    def offer(self, chunk: OfferedChunk) -> None:
        """Opens an offer; the frame that tells of it must be sent next.

        Raises:
          PeerLostError: the peer is gone, or took no chunk for the timeout.
        """
        with self._lock:
            self._wait(lambda: not self._offers.is_full)
            self._offers.open(chunk)

    # --- the receive thread -----------------------------------------------------------

    def wait(self, number: int | None) -> bool:
        """Waits for bytes of the stream, or the chunk of that offer.

        Returns:
          Whether there are bytes; if not, the chunk is here.

        Raises:
          PeerLostError: nothing more comes.
        """
        with self._lock:
            self._wait_for_news(lambda: self._inbox or number in self._arrived)
            if not self._inbox and number not in self._arrived:
                raise PeerLostError(self._why_ended)
            return bool(self._inbox)

    def wait_for_chunk(self, number: int) -> None:
        """Waits for the chunk of that offer.

        Raises:
          PeerLostError: it does not come.
        """
        with self._lock:
            self._wait_for_news(lambda: number in self._arrived)
            if number not in self._arrived:
                raise PeerLostError(self._why_ended)

    def forget(self, number: int) -> None:
        """The chunk of that offer, which was here, is done with."""
        with self._lock:
            self._arrived.discard(number)

    def next_bytes(self) -> tuple[int, memoryview]:
        """The next bytes of the stream, and the buffer they are in, for `taken`.

        Raises:
          PeerLostError: nothing more comes.
        """
        with self._lock:
            self._wait_for_news(lambda: self._inbox)
            if not self._inbox:
                raise PeerLostError(self._why_ended)
            buffer, size_bytes = self._inbox.popleft()
        return buffer, self._stream_rail.buffer(buffer, size_bytes)

    def taken(self, buffer: int) -> None:
        """The bytes of that buffer were read."""
        self._stream_rail.repost(buffer)
        with self._lock:
            if number := self._credit.taken():
                self._requests.say(Word(WordKind.CREDIT, number))

    def refuse(self, number: int) -> None:
        """The chunk of that offer is not needed."""
        with self._lock:
            self._requests.say_later(Word(WordKind.REFUSE, number))

    def speak(self) -> None:
        """Says what was kept to be said together with what came next."""
        with self._lock:
            self._requests.send_words()

    def grant(self, number: int, place: Place) -> None:
        """The chunk of that offer may be written there."""
        with self._lock:
            self._expected.add(number)
            self._requests.say_later(Word(WordKind.GRANT, number, place))

    def pull(self, number: int, place: Place, size_bytes: int, source: Place) -> None:
        """Reads the chunk of that offer from the peer's memory, once it is known.

        Raises:
          PeerLostError: the peer is gone before it has told of that memory.
          TransportError: the bytes are outside of it.
        """
        with self._lock:
            self._wait_for_news(lambda: self._offers.knows(source.region))
            if not self._offers.knows(source.region):
                raise PeerLostError(self._why_ended)
            rail = self._offers.rail_of(number)
            remote = self._offers.remote(source, size_bytes, rail)
            local = self._memory.local(place, size_bytes, rail)
            done = functools.partial(self._was_pulled, number)
            self._requests.read(rail, local, remote, done)

    # --- the poller: it waits for nobody ----------------------------------------------

    def completed(self, rail: Rail, completion: Completion) -> None:
        """Something has come, or something of ours is done.

        Raises:
          TransportError: the peer has done what it must not.
        """
        with self._lock:
            if completion.is_received:
                self._came(rail, completion)
            else:
                self._done(rail, completion)
            if self._why_ended or self._is_closed:
                self._news.notify_all()

    def read_notes(self) -> bool:
        """Reads what the peer says on the socket; whether it was its last.

        Raises:
          TransportError: it cannot be understood.
        """
        notes, has_ended = self.channel.read()
        with self._lock:
            for note in notes:
                self._heard(note)
        return has_ended

    def settle(self, now_s: float) -> bool:
        """Ends it once all has come that the peer has sent; whether it has ended."""
        with self._lock:
            if reason := self.channel.why_over(self._num_received, now_s):
                self._fail(reason)
            return bool(self._failure)

    def check(self, rail: Rail, what: str, *, is_device: bool) -> None:
        """Ends it if the device, or a queue pair of it, has failed."""
        with self._lock:
            for queue_pair in self.queue_pairs:
                is_there = queue_pair.rail is rail and not self._is_closed
                if is_there and (is_device or queue_pair.is_failed()):
                    self._fail(f"{rail.port.name}: {what}")

    # --- any thread -------------------------------------------------------------------

    def fail(self, reason: str) -> None:
        """Ends it for that reason, unless it has ended."""
        with self._lock:
            self._fail(reason)

    def interrupt(self, reason: str) -> None:
        """Wakes all who wait; what is on its way still goes out."""
        with self._lock:
            self._interruption = self._interruption or reason
            self._wake()

    def flush(self) -> None:
        """Waits until all that was sent has arrived, for a bounded time."""
        with self._lock:
            requests, news = self._requests, self._news
            news.wait_for(lambda: self._failure or not self._offers, ENDING_S)
            if not self._failure:
                with contextlib.suppress(PeerLostError):  # A completion says so, too.
                    requests.hear_of_all()
                news.wait_for(lambda: self._failure or requests.is_idle, ENDING_S)

    def stop(self, reason: str) -> None:
        """Says the last note, and stops the queue pairs: no peer reaches memory now.

        Called once, when nobody sends or receives any more; the poller still listens.
        """
        with self._lock:
            self._is_closed = True
            num_sent = 0 if self._failure else self._requests.num_sent
            for buffer, _ in self._inbox:
                self._stream_rail.repost(buffer)
            self._inbox.clear()
        self.channel.end(Bye(num_sent, reason))
        with self._lock:
            self._requests.stop()
            self._news.wait_for(lambda: self._requests.is_idle, ENDING_S)

    def close(self) -> None:
        """Gives queue pairs and socket back; the poller has forgotten them."""
        for queue_pair in self.queue_pairs:
            queue_pair.close()
        self.channel.close()

    # --- under the lock ---------------------------------------------------------------

    @property
    def _why_ended(self) -> str:
        return self._failure or self._interruption

    def _wait(self, is_free: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + self._timeout_s
        while not (self._why_ended or is_free()):
            if not self._room.wait(deadline_s - time.monotonic()):
                raise PeerLostError("it took nothing for too long")
        self._require_alive()

    def _wait_for_news(self, is_here: Callable[[], object]) -> None:
        """Waits on the receive thread; says first what it has kept to say together."""
        if not (is_here() or self._why_ended):
            self._requests.send_words()
            self._news.wait_for(lambda: is_here() or self._why_ended)

    def _wake(self) -> None:
        self._room.notify_all()
        self._news.notify_all()

    def _require_alive(self) -> None:
        if self._why_ended:
            raise PeerLostError(self._why_ended)

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self._wake()

    def _write(self, write: Write) -> None:
        local = self._memory.local(write.source, write.size_bytes, write.rail)
        done = functools.partial(self._offers.was_written, write.number)
        self._requests.write(write, local, done)

    def _came(self, rail: Rail, completion: Completion) -> None:
        buffer = completion.buffer
        if completion.status != SUCCESS or self._is_closed:
            rail.repost(buffer)
            if completion.status not in (SUCCESS, FLUSHED):
                self._fail(explain(completion.status))
            return
        self._num_received += 1
        if completion.is_write:
            rail.repost(buffer)
            if completion.immediate not in self._expected:
                raise TransportError(f"a write of {completion.immediate}, not granted")
            self._expected.remove(completion.immediate)
            self._arrived.add(completion.immediate)
            self._news.notify_all()
        elif rail is not self._stream_rail:
            rail.repost(buffer)
            raise TransportError(f"{rail.port.name}: a SEND where only writes come")
        elif completion.immediate == Immediate.STREAM:
            try:
                self._credit.came()
            except TransportError:
                rail.repost(buffer)
                raise
            self._inbox.append((buffer, completion.size_bytes))
            self._news.notify_all()
        else:
            words = bytes(rail.buffer(buffer, completion.size_bytes))
            rail.repost(buffer)
            for word in decode_words(words):
                self._obey(word)
            self._room.notify_all()

    def _obey(self, word: Word) -> None:
        match word.kind:
            case WordKind.GRANT:
                assert word.place is not None
                for write in self._offers.granted(word.number, word.place):
                    self._write(write)
            case WordKind.REFUSE:
                self._offers.refused(word.number)
                rail = self._offers.rail_of(word.number)
                if not self._offers.has_unanswered(rail):
                    self._requests.hear_of_silent(rail)
            case WordKind.TAKEN:
                self._offers.was_read(word.number)
            case WordKind.CREDIT:
                self._credit.granted(word.number)

    def _done(self, rail: Rail, completion: Completion) -> None:
        is_right = completion.status == SUCCESS
        self._requests.completed(rail.index, completion.number, is_right=is_right)
        if not is_right and not self._is_closed:
            self._fail(explain(completion.status))
        self._room.notify_all()

    def _was_pulled(self, number: int) -> None:
        self._arrived.add(number)
        self._news.notify_all()
        self._requests.say(Word(WordKind.TAKEN, number))

    def _heard(self, note: Note) -> None:
        match note:
            case Region():
                for write in self._offers.told(note):
                    self._write(write)
                self._news.notify_all()
            case _:
                raise TransportError(f"{type(note).__name__} note after the first")


def _fill(view: memoryview, parts: list[memoryview]) -> int:
    """Moves bytes from the front of the parts; how many fit."""
    filled = 0
    while parts and filled < view.nbytes:
        piece = parts[0][: view.nbytes - filled]
        view[filled : filled + piece.nbytes] = piece
        filled += piece.nbytes
        parts[0] = parts[0][piece.nbytes :]
        if not parts[0].nbytes:
            parts.pop(0)
    return filled
