"""The manager's edge: who attaches, and who may not."""

import asyncio

import pytest
from grpc import aio

from jscale.cluster import messages, rpc
from jscale.cluster.config import ManagerConfig
from jscale.cluster.manager import Manager
from jscale.core.ids import WorkerId
from tests.cluster.manager_script import ManagerScript

TOKEN = "secret"


def hello(data_address):
    return messages.WorkerHello(WorkerId("w0"), data_address, "127.0.0.1:1")


async def answers(channel, data_address):
    """A new stream that said hello, and its first answer."""
    call = rpc.ATTACH_WORKER.open(channel, TOKEN)
    await call.write(hello(data_address))
    return call, await call.read()


def run(play, tmp_path):
    """Plays against a manager that listens."""

    async def played():
        ready_file = tmp_path / "ready"
        config = ManagerConfig("/model", TOKEN, ready_file=str(ready_file))
        manager = Manager(ManagerScript(3, 1).state, config)
        serving = asyncio.create_task(manager.serve())
        async with asyncio.timeout(20):
            while not ready_file.exists():
                await asyncio.sleep(0)
            address = ready_file.read_text().strip()
            async with aio.insecure_channel(address) as channel:
                await play(channel)
        serving.cancel()
        await asyncio.wait({serving})

    asyncio.run(played())


def test_a_name_that_is_taken_is_refused(tmp_path):
    async def play(channel):
        first, answer = await answers(channel, "tcp://127.0.0.1:1")
        assert isinstance(answer, messages.Welcome)
        second, answer = await answers(channel, "tcp://127.0.0.1:2")
        assert isinstance(answer, messages.Refuse)
        assert answer.reason == (
            "there is a worker w0 already, at tcp://127.0.0.1:1: "
            "give this one another name"
        )
        assert isinstance(await first.read(), messages.LoadFromDisk)
        first.cancel()
        second.cancel()

    run(play, tmp_path)


def test_a_worker_that_comes_back_takes_its_place(tmp_path):
    """The manager has not seen yet that the stream before is gone."""

    async def play(channel):
        before, _ = await answers(channel, "tcp://127.0.0.1:1")
        again, answer = await answers(channel, "tcp://127.0.0.1:1")
        assert isinstance(answer, messages.Welcome)
        assert isinstance(await again.read(), messages.LoadFromDisk)
        await before.write(messages.BlockReady(0))
        assert await before.read() is not None  # What it was told before.
        assert await before.read() is aio.EOF
        again.cancel()

    run(play, tmp_path)


def test_a_manager_with_a_bug_ends_instead_of_limping_on(tmp_path):
    class Broken:
        def step(self, event, now_ns):
            raise AssertionError("a bug")

    async def played():
        config = ManagerConfig("/model", TOKEN, ready_file=str(tmp_path / "ready"))
        async with asyncio.timeout(20):
            await Manager(Broken(), config).serve()

    with pytest.raises(AssertionError, match="a bug"):
        asyncio.run(played())
