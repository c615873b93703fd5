"""A link to a process that is not there, comes, goes, or does not want us."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from grpc import aio

from jscale.cluster import gateway_messages, rpc
from jscale.cluster.link import Link
from jscale.core.errors import UnavailableError


async def manager_that_says(
    *commands: gateway_messages.GatewayCommand, token: str = "right"
) -> tuple[aio.Server, str, list[Any]]:
    """A server of the gateway's stream, its address, and what it was told."""
    told: list[Any] = []

    async def serve(
        incoming: AsyncIterator[Any], write: Callable[[Any], Awaitable[None]]
    ) -> None:
        for command in commands:
            await write(command)
        async for report in incoming:
            told.append(report)

    server = aio.server(options=rpc.OPTIONS)
    handler = rpc.ATTACH_GATEWAY.handler(serve, token)
    handlers = {rpc.ATTACH_GATEWAY.method: handler}
    server.add_generic_rpc_handlers((rpc.service(rpc.CONTROL, handlers),))
    address = await rpc.listen(server, "127.0.0.1:0")
    await server.start()
    return server, address, told


def link_to(address: str, events: list[str], token: str = "right") -> Link:
    return Link(
        rpc.ATTACH_GATEWAY,
        address,
        token,
        name="the manager",
        hello=gateway_messages.GatewayHello("g"),
        on_attached=lambda: events.append("attached"),
        on_message=lambda command: events.append(type(command).__name__),
        on_lost=lambda reason: events.append("lost"),
    )


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def test_link_attaches_says_hello_and_hears_of_the_loss() -> None:
    async def run() -> None:
        server, address, told = await manager_that_says(
            gateway_messages.ReplicasChanged(())
        )
        events: list[str] = []
        task = asyncio.create_task(link_to(address, events).run())
        await until(lambda: bool(told) and "ReplicasChanged" in events)
        assert told == [gateway_messages.GatewayHello("g")]
        await server.stop(None)
        await until(lambda: "lost" in events)
        assert events[:3] == ["attached", "ReplicasChanged", "lost"]
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(run())


def test_wrong_token_ends_the_link_with_what_to_do() -> None:
    async def run() -> None:
        server, address, _ = await manager_that_says(token="another")
        with pytest.raises(UnavailableError, match="--cluster_token_file"):
            await link_to(address, []).run()
        await server.stop(None)

    asyncio.run(run())


def test_port_that_is_in_use_is_one_clear_error() -> None:
    async def run() -> None:
        server, address, _ = await manager_that_says()
        with pytest.raises(UnavailableError, match="in use"):
            await rpc.listen(aio.server(options=rpc.OPTIONS), address)
        await server.stop(None)

    asyncio.run(run())
