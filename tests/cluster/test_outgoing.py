"""What a stream is still to be told."""

import asyncio

import pytest

from jscale.cluster import outgoing as module
from jscale.cluster.outgoing import outgoing


def test_messages_are_written_in_order_and_flushed():
    written = []

    async def write(message):
        written.append(message)

    async def play():
        async with outgoing(write) as queue:
            for number in range(100):
                queue.put(number)
            await queue.flushed()
            assert written == list(range(100))

    asyncio.run(play())


def test_a_stream_that_takes_nothing_is_ended(monkeypatch):
    monkeypatch.setattr(module, "MESSAGES_MAX", 10)
    ended = []

    async def never(message):
        await asyncio.Event().wait()

    async def serve():
        async with outgoing(never) as queue:
            try:
                for number in range(100):
                    queue.put(number)
                await asyncio.Event().wait()
            finally:
                ended.append(True)

    async def play():
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await asyncio.ensure_future(serve())

    asyncio.run(play())
    assert ended == [True]
