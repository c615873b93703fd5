"""What a stream is still to be told: in order, and no more than it may be behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from absl import logging
from grpc import aio

MESSAGES_MAX = 65_536
"""Messages that wait for one stream; whoever is further behind takes none at all, and
its stream is ended: it can come back, and is then told how things are."""


class Outgoing:
    """A bounded queue that is written out as fast as the stream takes it.

    Owned by the event loop.
    """

    def __init__(
        self, write: Callable[[Any], Awaitable[object]], end: Callable[[], object]
    ) -> None:
        """Nothing waits.

        Args:
          write: sends one message; run by one task, in order.
          end: ends the stream; called when it takes nothing.
        """
        self._write = write
        self._end = end
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, message: Any) -> None:
        """Queues a message; never waits."""
        num_waiting = self._queue.qsize()
        if num_waiting < MESSAGES_MAX:
            self._queue.put_nowait(message)
        elif num_waiting == MESSAGES_MAX:
            self._queue.put_nowait(message)  # So that this is said once.
            logging.error("%d messages wait for a stream: ending it", num_waiting)
            self._end()

    async def flushed(self) -> None:
        """Returns when nothing waits any more."""
        await self._queue.join()

    async def run(self) -> None:
        """Writes until cancelled, or until the stream breaks: its reader tells that."""
        with contextlib.suppress(
            aio.AioRpcError, aio.BaseError, asyncio.InvalidStateError
        ):
            while True:
                message = await self._queue.get()
                try:
                    await self._write(message)
                finally:
                    self._queue.task_done()


@contextlib.asynccontextmanager
async def outgoing(
    write: Callable[[Any], Awaitable[object]],
) -> AsyncIterator[Outgoing]:
    """What the caller's stream is told, until the block is left.

    A stream that takes nothing is ended by cancelling the task that is in the block.
    """
    task = asyncio.current_task()
    assert task is not None
    queue = Outgoing(write, task.cancel)
    pump = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        pump.cancel()
        await asyncio.wait({pump})
