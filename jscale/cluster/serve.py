"""A worker's side of the streams to gateways."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from absl import logging

from jscale.cluster.device import Device
from jscale.cluster.outgoing import Outgoing, outgoing
from jscale.pipeline.messages import (
    Cancel,
    ServeCommand,
    ServeCommands,
    ServeEvent,
    ServeEvents,
    Submit,
)
from jscale.pipeline.stage_host import StageHost


class GatewayStreams:
    """Every attached gateway and what it is to be told. Owned by the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queues: dict[str, Outgoing] = {}
        self._next_name = 0
        self.device: Device | None = None

    def emit(self, gateway: str, events: tuple[ServeEvent, ...]) -> None:
        """Queues events for a gateway, in order. Any thread may call it."""
        self._loop.call_soon_threadsafe(self._put, gateway, ServeEvents(events))

    def _put(self, gateway: str, events: ServeEvents) -> None:
        if gateway in self._queues:
            self._queues[gateway].put(events)

    async def flushed(self, timeout_s: float) -> None:
        """Returns when every gateway was told what it is to be told, or in time."""
        waits = [queue.flushed() for queue in self._queues.values()]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*waits), timeout_s)

    async def serve(
        self,
        incoming: AsyncIterator[ServeCommands],
        write: Callable[[Any], Awaitable[None]],
    ) -> None:
        """One gateway's stream, until it ends; what it submitted ends with it."""
        gateway = f"g{self._next_name}"
        self._next_name += 1
        logging.info("gateway attached gateway=%s", gateway)
        async with outgoing(write) as queue:
            self._queues[gateway] = queue
            try:
                async for command in incoming:
                    if self.device is not None:  # Else no pipeline can be open yet.
                        self.device.post(partial(_obey, gateway, command.commands))
            finally:
                del self._queues[gateway]
                if self.device is not None:
                    self.device.post(lambda host: host.forget_gateway(gateway))
                logging.info("gateway detached gateway=%s", gateway)


def _obey(gateway: str, commands: tuple[ServeCommand, ...], host: StageHost) -> None:
    """Runs on the device thread."""
    for command in commands:
        match command:
            case Submit():
                host.submit(gateway, command)
            case Cancel(sequence):
                host.cancel(sequence)
