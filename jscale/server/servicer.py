"""The public endpoint `jscale.v1.Jscale`, over a `Gateway`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from jscale.core.errors import (
    JscaleError,
    OverloadedError,
    RequestError,
    UnavailableError,
)
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.proto.v1 import jscale_pb2_grpc as pb_grpc
from jscale.server.endpoints import EVERYWHERE, FINAL_KEY, HERE
from jscale.server.gateway import Gateway

STATUS_INTERVAL_MS = 100
STATUS_INTERVAL_MS_MIN = 10
STATUS_INTERVAL_MS_MAX = 60_000

STATUS_CODES: dict[type[JscaleError], grpc.StatusCode] = {
    RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
}
"""How errors travel; any other is our own fault and INTERNAL."""


class Servicer(pb_grpc.JscaleServicer):
    """Protocol buffers on one side, the gateway on the other. Holds no state."""

    def __init__(self, gateway: Gateway, draining: asyncio.Event) -> None:
        self._gateway = gateway
        self._draining = draining

    async def Generate(  # noqa: N802 - the name in the .proto
        self, request: pb.GenerateRequest, context: Any
    ) -> None:
        """Writes tokens as they are made; ends the request when the client goes."""
        async with _told_to(context, final=HERE):
            stream = self._gateway.generate(request)
        try:
            async with _told_to(context, final=EVERYWHERE):
                async for response in stream.responses():
                    await context.write(response)
        finally:
            self._gateway.forget(stream)

    async def Abort(  # noqa: N802
        self, request: pb.AbortRequest, context: Any
    ) -> pb.AbortResponse:
        """Ends a request by its id."""
        del context
        return pb.AbortResponse(found=self._gateway.abort(request.request_id))

    async def ModelStatus(  # noqa: N802
        self, request: pb.ModelStatusRequest, context: Any
    ) -> None:
        """Writes the status at once and whenever it changes, until either side goes."""
        interval_ms = request.interval_ms or STATUS_INTERVAL_MS
        async with _told_to(context):
            if not STATUS_INTERVAL_MS_MIN <= interval_ms <= STATUS_INTERVAL_MS_MAX:
                raise RequestError(
                    f"interval_ms={interval_ms}: give {STATUS_INTERVAL_MS_MIN} to "
                    f"{STATUS_INTERVAL_MS_MAX}, or 0 for {STATUS_INTERVAL_MS}"
                )
            last = None
            while not self._draining.is_set():
                status = self._gateway.status()
                if status != last:
                    await context.write(status)
                if request.once:
                    return
                last = status
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(interval_ms / 1000):
                        await self._draining.wait()

    async def ScaleTo(  # noqa: N802
        self, request: pb.ScaleToRequest, context: Any
    ) -> pb.ScaleToResponse:
        """Asks the manager for so many workers."""
        async with _told_to(context):
            before = self._gateway.scale_to(request.num_workers)
        return pb.ScaleToResponse(num_workers_before=before)


@contextlib.asynccontextmanager
async def _told_to(context: Any, *, final: str = "") -> AsyncIterator[None]:
    """Tells the client of an error in its own terms, and where not to ask again."""
    try:
        yield
    except JscaleError as error:
        code = STATUS_CODES.get(type(error), grpc.StatusCode.INTERNAL)
        mark = ((FINAL_KEY, final),) if final else ()
        await context.abort(code, str(error), mark)
