"""A client of the public endpoint."""

import contextlib
import types
from collections.abc import Iterator, Sequence

import grpc
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from jscale.core.errors import (
    JscaleError,
    OverloadedError,
    RequestError,
    UnavailableError,
)
from jscale.engine.request import SamplingParams
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.proto.v1 import jscale_pb2_grpc as pb_grpc
from jscale.server.generation import Generation, Token

__all__ = ["Client", "Generation", "Token"]

OPTIONS = (("grpc.initial_reconnect_backoff_ms", 100),)
SCALE_TIMEOUT_S = 10.0
ABORT_TIMEOUT_S = 10.0

_ERRORS: dict[grpc.StatusCode, type[JscaleError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: RequestError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
}


class Client:
    """Speaks `jscale.v1` to the gateway at HOST:PORT. Any thread may use it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._stub = pb_grpc.JscaleStub(self._channel)  # type: ignore[no-untyped-call]
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        stop_token_ids: Sequence[int] = (),
        ignore_eos: bool = False,
        request_id: str = "",
    ) -> Generation:
        """The tokens that follow the prompt, as they are made.

        Args:
          prompt: text, or token ids, which are used as they are.
          max_tokens: generation ends after so many, or where the context does.
          temperature: 0 takes the most likely token.
          top_k: samples among so many most likely tokens; 0: among all.
          top_p: samples among the most likely tokens that hold this probability.
          seed: the same seed gives the same tokens.
          stop_token_ids: generation ends after any of these.
          ignore_eos: go on after the model's own end of text.
          request_id: names the request for `abort`; empty: the gateway names it.

        Raises:
          RequestError: a sampling value is out of its range, or some value is of the
            wrong type; all others that a request can meet come from the iterator.
        """
        text, token_ids = (prompt, ()) if isinstance(prompt, str) else ("", prompt)
        with _written():
            sampling = SamplingParams(
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                seed=seed,
                max_tokens=max_tokens,
                stop_token_ids=tuple(stop_token_ids),
                ignore_eos=ignore_eos,
            )
            request = pb.GenerateRequest(
                request_id=request_id,
                text=text,
                token_ids=token_ids,
                sampling=pb.SamplingParameters(**msgspec.structs.asdict(sampling)),
            )
        return Generation(self._stub.Generate(request), self._told)

    def abort(self, request_id: str) -> bool:
        """Ends a running request; whether there was one of that id.

        Raises:
          UnavailableError: the gateway is not there.
        """
        with self._told():
            request = pb.AbortRequest(request_id=request_id)
            return bool(self._stub.Abort(request, timeout=ABORT_TIMEOUT_S).found)

    def scale_to(self, num_workers: int) -> int:
        """Asks for so many workers and returns at once how many were wanted before.

        Raises:
          RequestError: no cluster has so many.
          UnavailableError: the gateway or its manager is not there.
        """
        with _written():
            request = pb.ScaleToRequest(num_workers=num_workers)
        with self._told():
            told = self._stub.ScaleTo(request, timeout=SCALE_TIMEOUT_S)
            return int(told.num_workers_before)

    def status(self) -> pb.ModelStatusResponse:
        """The cluster now.

        Raises:
          UnavailableError: the gateway is not there.
        """
        with self._told():
            request = pb.ModelStatusRequest(once=True)
            status: pb.ModelStatusResponse = next(self._stub.ModelStatus(request))
            return status

    def watch(
        self, *, interval_ms: int = 100, timeout_s: float | None = None
    ) -> Iterator[pb.ModelStatusResponse]:
        """The cluster now, and whenever it changes, until the iterator is closed.

        Raises:
          UnavailableError: the gateway is not there, or the time is over.
        """
        request = pb.ModelStatusRequest(interval_ms=interval_ms)
        with self._told():
            call = self._stub.ModelStatus(request, timeout=timeout_s)
            try:
                yield from call
            finally:
                call.cancel()

    def wait_until_serving(self, timeout_s: float = 60.0) -> None:
        """Returns when a request would be run.

        Raises:
          UnavailableError: that is not so in time.
        """
        request = health_pb2.HealthCheckRequest()
        serving = health_pb2.HealthCheckResponse.SERVING
        with self._told():
            call = self._health.Watch(request, timeout=timeout_s, wait_for_ready=True)
            try:
                for answer in call:
                    if answer.status == serving:
                        return
            finally:
                call.cancel()
        raise UnavailableError(f"gateway {self.address} ended before it served")

    def close(self) -> None:
        """Ends every call of this client."""
        self._channel.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns gRPC statuses into the errors that they were."""
        try:
            yield
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            known = _ERRORS.get(code, JscaleError)
            if code is grpc.StatusCode.UNAVAILABLE and "resolving" in details:
                details = "no such host: give HOST:PORT of a gateway"
            if code is grpc.StatusCode.UNAVAILABLE and "connect" in details:
                details = f"nobody answers there ({details.rpartition(': ')[2]}): "
                details += "start jscale-serve, or correct the address"
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                details = "no answer in time: see its log, or wait longer"
            message = f"gateway {self.address}: {details}"
            raise known(details if known is RequestError else message) from error


@contextlib.contextmanager
def _written() -> Iterator[None]:
    """Tells of values that no message can hold, as of any that cannot be used."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise RequestError(f"the request cannot be written: {error}") from error
