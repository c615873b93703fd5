"""Connections to other workers: one each, made when first needed."""

import queue
import threading
from collections.abc import Callable

import msgspec
from absl import logging

from jscale.core.errors import PeerLostError, TransportError
from jscale.core.ids import WorkerId
from jscale.pipeline.messages import StageMessage
from jscale.transport.base import Connection, Handler, Landing, Transport
from jscale.transport.plan_router import PlanRouter

_DECODER = msgspec.msgpack.Decoder(StageMessage)
QUEUE_LENGTH_MAX = 4096
"""Messages that wait for one peer; more means it stopped taking any."""


class Peers(Handler):
    """Who is connected, and what arrives from them. Any thread may use it."""

    def __init__(
        self,
        transport: Transport,
        *,
        deliver: Callable[[StageMessage, memoryview], None],
        lose: Callable[[WorkerId], None],
    ) -> None:
        """Connects by `transport`.

        Args:
          transport: not closed by us.
          deliver: what to do with a message; called on receive threads.
          lose: told once for every peer that is gone; called on any thread.
        """
        self._transport = transport
        self._deliver = deliver
        self._lose = lose
        self._lock = threading.Lock()
        self._connections: dict[WorkerId, Connection] = {}
        self._senders: dict[WorkerId, _Sender] = {}
        self.plans = PlanRouter()

    def connection(self, worker: WorkerId, address: str) -> Connection:
        """The connection to a worker, made now if there is none.

        Raises:
          TransportError: it cannot be reached.
        """
        with self._lock:
            if worker in self._connections:
                return self._connections[worker]
        made = self._transport.connect(address, self)
        with self._lock:
            kept = self._connections.setdefault(worker, made)
        if kept is made:
            self.plans.opened(made)
        else:
            made.close()
        return kept

    def send(
        self, worker: WorkerId, address: str, message: StageMessage, payload: bytes
    ) -> None:
        """Queues a message, in order for each worker. Never waits."""
        with self._lock:
            sender = self._senders.get(worker)
            if sender is None:
                sender = self._senders[worker] = _Sender(self, worker, address)
        sender.put(message, payload)

    def close(self) -> None:
        """Ends every sender; the connections end with the transport."""
        with self._lock:
            senders = list(self._senders.values())
            self._senders.clear()
        for sender in senders:
            sender.close()

    def drop(self, worker: WorkerId) -> None:
        """Forgets a peer that cannot be talked to any more, and tells."""
        with self._lock:
            connection = self._connections.pop(worker, None)
            sender = self._senders.pop(worker, None)
        if connection is not None:
            self.plans.lost(connection)
            connection.close()
        if sender is not None:
            sender.close()
        self._lose(worker)

    # --- Handler: called on receive threads ----------------------------------------

    def opened(self, connection: Connection) -> None:
        """Keeps a connection that a peer made, unless there is one."""
        with self._lock:
            self._connections.setdefault(connection.peer, connection)
        self.plans.opened(connection)

    def landing(self, plan: int) -> Landing | None:
        """Where the plan's chunks go, while we are part of it."""
        return self.plans.landing(plan)

    def message(
        self, connection: Connection, header: bytes, payload: memoryview
    ) -> None:
        """Decodes and delivers."""
        try:
            message = _DECODER.decode(header)
        except msgspec.MsgspecError as error:
            logging.error("peer=%s sent rubbish, dropped: %s", connection.peer, error)
            return
        self._deliver(message, payload)

    def announced(self, connection: Connection, plan: int, held: bytes) -> None:
        """Tells the plan's member what the peer holds."""
        self.plans.announced(connection, plan, held)

    def asked(self, connection: Connection, plan: int, chunk: int) -> None:
        """Tells the plan's member what the peer wants again."""
        self.plans.asked(connection, plan, chunk)

    def lost(self, connection: Connection, error: PeerLostError) -> None:
        """Tells every member, and forgets the peer."""
        logging.warning("peer=%s lost: %s", connection.peer, error)
        self.plans.lost(connection)
        with self._lock:
            if self._connections.get(connection.peer) is not connection:
                return
        self.drop(connection.peer)


class _Sender:
    """A queue and a thread for what one peer is told."""

    def __init__(self, peers: Peers, worker: WorkerId, address: str) -> None:
        self._peers = peers
        self._worker = worker
        self._address = address
        self._queue: queue.Queue[tuple[StageMessage, bytes] | None] = queue.Queue(
            QUEUE_LENGTH_MAX
        )
        self._thread = threading.Thread(
            target=self._run, name=f"to-{worker}", daemon=True
        )
        self._thread.start()

    def put(self, message: StageMessage, payload: bytes) -> None:
        try:
            self._queue.put_nowait((message, payload))
        except queue.Full:
            logging.error(
                "peer=%s takes nothing; its messages are dropped", self._worker
            )

    def close(self) -> None:
        if threading.current_thread() is not self._thread:
            self._queue.put(None)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            message, payload = item
            try:
                connection = self._peers.connection(self._worker, self._address)
                connection.send_message(msgspec.msgpack.encode(message), payload)
            except TransportError as error:
                logging.warning("peer=%s cannot be told: %s", self._worker, error)
                self._peers.drop(self._worker)
                return
