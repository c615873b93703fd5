"""A stream to another process that is kept open for as long as it is wanted."""

import asyncio
from collections.abc import Callable
from typing import Any

from absl import logging
from grpc import StatusCode, aio

from jscale.cluster import rpc
from jscale.cluster.outgoing import Outgoing
from jscale.core.errors import UnavailableError

CONNECT_TIMEOUT_S = 1.0
RETRY_S = 0.1
RETRY_S_MAX = 1.0


class Link:
    """Attaches to an address, again and again, and says when it is there.

    Owned by the event loop that runs `run`. What is sent while it is not attached is
    dropped: whoever uses it hears of the loss and decides anew.
    """

    def __init__(
        self,
        stream: rpc.Stream[Any, Any],
        address: str,
        token: str,
        *,
        name: str,
        hello: Any = None,
        on_attached: Callable[[], None],
        on_message: Callable[[Any], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.address = address
        self._stream = stream
        self._token = token
        self._name = name
        self._hello = hello
        self._on_attached = on_attached
        self._on_message = on_message
        self._on_lost = on_lost
        self._outgoing: Outgoing | None = None
        self._last_said = ""

    @property
    def is_attached(self) -> bool:
        """What is sent now goes out."""
        return self._outgoing is not None

    def send(self, message: Any) -> None:
        """Queues the message, in order; dropped when the link is not attached."""
        if self._outgoing is not None:
            self._outgoing.put(message)

    async def run(self) -> None:
        """Keeps the link until cancelled, or until `on_message` raises.

        Raises:
          UnavailableError: the other side does not take our token.
        """
        retry_s = RETRY_S
        while True:
            async with aio.insecure_channel(self.address, rpc.OPTIONS) as channel:
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        await channel.channel_ready()
                except TimeoutError:
                    self._say(f"{self._name} is not there yet address={self.address}")
                    continue
                if await self._attach(channel):
                    retry_s = RETRY_S
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, RETRY_S_MAX)

    async def _attach(self, channel: aio.Channel) -> bool:
        """One stream from its start to its end; whether the other side said a word."""
        call = self._stream.open(channel, self._token)
        outgoing = Outgoing(call.write, call.cancel)
        if self._hello is not None:
            outgoing.put(self._hello)
        self._outgoing = outgoing
        pump = asyncio.create_task(outgoing.run())
        said_a_word = False
        reason = "it closed the stream"
        try:
            self._on_attached()
            async for message in call:
                if not said_a_word:
                    self._say(f"attached to {self._name} address={self.address}")
                said_a_word = True
                self._on_message(message)
        except aio.AioRpcError as error:
            reason = str(error.details() or error.code())
            if error.code() is StatusCode.UNAVAILABLE:
                reason = "it is gone"
            if error.code() is StatusCode.UNAUTHENTICATED:
                raise UnavailableError(f"{self._name}: {reason}") from error
        finally:
            pump.cancel()
            call.cancel()
            self._outgoing = None
            await asyncio.wait({pump})
            self._say(f"lost {self._name} address={self.address}: {reason}")
            self._on_lost(reason)
        return said_a_word

    def _say(self, text: str) -> None:
        """Logs what is new: a retry that fails like the one before is not."""
        if text != self._last_said:
            logging.info("%s", text)
        self._last_said = text
