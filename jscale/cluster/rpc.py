"""Typed bidirectional streams between our own processes, over gRPC.

The public endpoint speaks protocol buffers (`jscale.v1`); between processes of one
cluster, both ends are this package, and a message is its msgspec class as msgpack.
Every call carries the cluster's token; without the right one it is refused.
"""

import dataclasses
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TypeVar

import grpc
import msgspec
from grpc import aio

from jscale.cluster import messages
from jscale.cluster.gateway_messages import (
    GatewayCommand,
    GatewayReport,
    LauncherCommand,
    LauncherReport,
)
from jscale.core.errors import UnavailableError
from jscale.core.units import MIB
from jscale.pipeline import messages as pipeline_messages

Up = TypeVar("Up")
Down = TypeVar("Down")

TOKEN_KEY = "jscale-cluster-token"
MESSAGE_SIZE_BYTES_MAX = 64 * MIB
PORT_MAX = 65_535
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_SIZE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_SIZE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.so_reuseport", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


@dataclasses.dataclass(frozen=True)
class Stream(Generic[Up, Down]):
    """A bidirectional stream: `up` goes to the server, `down` comes from it."""

    service: str
    method: str
    up: Any
    down: Any

    @property
    def path(self) -> str:
        """The gRPC path of the call."""
        return f"/{self.service}/{self.method}"

    def open(
        self, channel: aio.Channel, token: str
    ) -> "aio.StreamStreamCall[Up, Down]":
        """The client's end of a new stream."""
        call = channel.stream_stream(
            self.path,
            request_serializer=msgspec.msgpack.encode,
            response_deserializer=msgspec.msgpack.Decoder(self.down).decode,
        )
        return call(metadata=((TOKEN_KEY, token),))

    def handler(
        self,
        serve: Callable[[AsyncIterator[Up], Callable[[Down], Awaitable[None]]], Any],
        token: str,
    ) -> grpc.RpcMethodHandler:
        """The server's end: `serve(incoming, write)` runs once for every stream."""

        async def guarded(
            incoming: AsyncIterator[Up],
            context: "aio.ServicerContext[Up, Down]",
        ) -> None:
            given = dict(context.invocation_metadata() or ()).get(TOKEN_KEY, "")
            if not hmac.compare_digest(str(given).encode(), token.encode()):
                await context.abort(
                    grpc.StatusCode.UNAUTHENTICATED,
                    "the cluster token is missing or not the one of this cluster; "
                    "give every process the same --cluster_token_file",
                )
            await serve(incoming, context.write)

        return grpc.stream_stream_rpc_method_handler(
            guarded,
            request_deserializer=msgspec.msgpack.Decoder(self.up).decode,
            response_serializer=msgspec.msgpack.encode,
        )


CONTROL = "jscale.internal.Control"
SERVE = "jscale.internal.Serve"

ATTACH_WORKER: Stream[messages.WorkerReport, messages.WorkerCommand] = Stream(
    CONTROL, "AttachWorker", messages.WorkerReport, messages.WorkerCommand
)
ATTACH_GATEWAY: Stream[GatewayReport, GatewayCommand] = Stream(
    CONTROL, "AttachGateway", GatewayReport, GatewayCommand
)
ATTACH_LAUNCHER: Stream[LauncherReport, LauncherCommand] = Stream(
    CONTROL, "AttachLauncher", LauncherReport, LauncherCommand
)
ATTACH_HEAD: Stream[pipeline_messages.ServeCommands, pipeline_messages.ServeEvents] = (
    Stream(
        SERVE,
        "AttachGateway",
        pipeline_messages.ServeCommands,
        pipeline_messages.ServeEvents,
    )
)


def service(
    name: str, handlers: dict[str, grpc.RpcMethodHandler]
) -> grpc.GenericRpcHandler:
    """What `aio.Server.add_generic_rpc_handlers` takes."""
    return grpc.method_handlers_generic_handler(name, handlers)


async def listen(server: aio.Server, address: str) -> str:
    """The address with the real port, after binding it.

    Raises:
      UnavailableError: the port is in use or the address is not of this machine.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > PORT_MAX:
        raise UnavailableError(
            f"address {address!r}: expected HOST:PORT, with a port of 0 to {PORT_MAX}"
        )
    try:
        # Tried by hand first: gRPC would log why it cannot, and not tell us.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
        bound = server.add_insecure_port(address)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnavailableError(
            f"cannot listen on {address}: {reason}; "
            f"choose another address of this machine, or port 0 for a free one"
        ) from error
    return f"{host}:{bound}"
