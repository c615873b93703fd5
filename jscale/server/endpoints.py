"""The gateways that a client may talk to, and when a stream that broke goes on."""

import threading
import time

import grpc
from grpc_health.v1 import health_pb2_grpc

from jscale.core.errors import ConfigError
from jscale.proto.v1 import jscale_pb2_grpc as pb_grpc

FINAL_KEY = "jscale-final"
"""Trailing metadata of an error that a gateway decided: of no use is to ask again…"""

HERE = "here"
"""… this gateway, for it is leaving."""

EVERYWHERE = "everywhere"
"""… any gateway."""

OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
PAUSE_S = 0.1
PAUSE_S_MAX = 1.0

_BROKEN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
}
"""What a stream ends with whose other end is gone, by how far it was."""


class Endpoint:
    """The channel to one gateway. Immutable; any thread."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address, options=OPTIONS)
        self.stub = pb_grpc.JscaleStub(self.channel)  # type: ignore[no-untyped-call]
        self.health = health_pb2_grpc.HealthStub(self.channel)


class Endpoints:
    """One or several gateways of one cluster, in use one at a time. Any thread.

    Attributes:
      has_answered: one of them did, ever: the addresses are right, and one that does
        not answer now is worth waiting for.
    """

    def __init__(self, addresses: str) -> None:
        """Connects when first used; `addresses` is HOST:PORT, or some with commas.

        Raises:
          ConfigError: there is none.
        """
        names = [name.strip() for name in addresses.split(",") if name.strip()]
        if not names:
            raise ConfigError(f"address {addresses!r}: give HOST:PORT of a gateway")
        self._all = tuple(map(Endpoint, names))
        self._lock = threading.Lock()
        self._index = 0
        self.has_answered = False
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._all)

    @property
    def current(self) -> Endpoint:
        """The one in use."""
        return self._all[self._index]

    def leave(self, endpoint: Endpoint) -> None:
        """Uses the next one, if it is this that is in use."""
        with self._lock:
            if self.current is endpoint:
                self._index = (self._index + 1) % len(self._all)

    def is_worth_another(self, error: grpc.RpcError) -> bool:
        """Whether a gateway may answer where one failed so."""
        metadata = dict(error.trailing_metadata() or ())
        others = {None} if len(self._all) == 1 else {None, HERE}
        return error.code() in _BROKEN and metadata.get(FINAL_KEY) in others

    def close(self) -> None:
        """Ends every call."""
        self.is_closed = True
        for endpoint in self._all:
            endpoint.channel.close()


class Resumption:
    """When a stream that broke is opened again; of one stream and its thread."""

    def __init__(self, endpoints: Endpoints, timeout_s: float) -> None:
        """Waits `timeout_s` at most since the stream last brought something."""
        self._endpoints = endpoints
        self._timeout_s = timeout_s
        self._given_up = threading.Event()
        self._endpoint = endpoints.current
        self._pause_s = PAUSE_S
        self._deadline_s: float | None = None
        self._num_broken = 0

    @property
    def is_given_up(self) -> bool:
        """Nobody wants the rest of the stream."""
        return self._given_up.is_set()

    def give_up(self) -> None:
        """The stream is not opened again. Any thread."""
        self._given_up.set()

    def endpoint(self) -> Endpoint:
        """Where to open the stream now."""
        self._endpoint = self._endpoints.current
        return self._endpoint

    def answered(self) -> None:
        """The stream brought something."""
        self._endpoints.has_answered = True
        self._pause_s = PAUSE_S
        self._deadline_s = None

    def broke(self, error: grpc.RpcError) -> None:
        """Returns when the stream is to be opened again, or is given up.

        Raises:
          grpc.RpcError: the one given: no gateway would answer otherwise, none ever
            did, or the time is over.
        """
        now_s = time.monotonic()
        if self._deadline_s is None:
            self._deadline_s = now_s + self._timeout_s
        self._num_broken += 1
        if self.is_given_up:
            return
        all_tried = self._num_broken >= len(self._endpoints)
        if (
            self._endpoints.is_closed
            or not (self._endpoints.is_worth_another(error) or self._is_crowded(error))
            or (all_tried and not self._endpoints.has_answered)
            or now_s > self._deadline_s
        ):
            raise error
        if not self._is_crowded(error):
            self._endpoints.leave(self._endpoint)
        self._given_up.wait(self._pause_s)
        self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)

    def _is_crowded(self, error: grpc.RpcError) -> bool:
        """All that a lost gateway had come to this one at once: its queue is full.

        The stream was taken once; only one that never was is refused for good.
        """
        is_full = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        return is_full and self._num_broken > 1
