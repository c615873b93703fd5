"""A client of the public endpoint."""

import contextlib
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import grpc
import msgspec
from grpc_health.v1 import health_pb2

from jscale.core.errors import (
    JscaleError,
    OverloadedError,
    RequestError,
    UnavailableError,
)
from jscale.engine.request import SamplingParams
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.endpoints import PAUSE_S, Endpoint, Endpoints, Resumption
from jscale.server.generation import Generation, Token

__all__ = ["Client", "Generation", "Token"]

UNARY_TIMEOUT_S = 10.0
TRY_S = 1.0
"""How long one of several gateways may take to say that it serves."""

RESUME_TIMEOUT_S = 30.0
"""A gateway that is started again answers after seconds, also where all are busy."""

Answer = TypeVar("Answer")

_ERRORS: dict[grpc.StatusCode, type[JscaleError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: RequestError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
}


class Client:
    """Speaks `jscale.v1` to a gateway. Any thread may use it.

    A stream whose gateway is lost goes on where it was, at the next gateway that
    answers, be it the same.
    """

    def __init__(
        self, address: str, *, resume_timeout_s: float = RESUME_TIMEOUT_S
    ) -> None:
        """Connects when first used.

        Args:
          address: HOST:PORT of a gateway, or of several of one cluster, with commas
            between: one is used until it is lost, then the next.
          resume_timeout_s: how long a stream waits for a gateway at most.
        """
        self._resume_timeout_s = resume_timeout_s
        self._endpoints = Endpoints(address)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """HOST:PORT of the gateway in use."""
        return self._endpoints.current.address

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

        def open_stream(endpoint: Endpoint, generated: Sequence[int]) -> Any:
            del request.generated_ids[:]
            request.generated_ids.extend(generated)
            return endpoint.stub.Generate(request)

        return Generation(open_stream, self._resumption(), self._told)

    def abort(self, request_id: str) -> bool:
        """Ends a running request; whether there was one of that id.

        Raises:
          UnavailableError: the gateway is not there.
        """
        request = pb.AbortRequest(request_id=request_id)
        return self._ask(
            lambda stub: bool(stub.Abort(request, timeout=UNARY_TIMEOUT_S).found)
        )

    def scale_to(self, num_workers: int) -> int:
        """Asks for so many workers and returns at once how many were wanted before.

        Raises:
          RequestError: no cluster has so many.
          UnavailableError: the gateway or its manager is not there.
        """
        with _written():
            request = pb.ScaleToRequest(num_workers=num_workers)
        return self._ask(
            lambda stub: int(
                stub.ScaleTo(request, timeout=UNARY_TIMEOUT_S).num_workers_before
            )
        )

    def status(self) -> pb.ModelStatusResponse:
        """The cluster now.

        Raises:
          UnavailableError: the gateway is not there.
        """
        request = pb.ModelStatusRequest(once=True)
        return self._ask(
            lambda stub: cast(
                pb.ModelStatusResponse,
                next(stub.ModelStatus(request, timeout=UNARY_TIMEOUT_S)),
            )
        )

    def watch(
        self, *, interval_ms: int = 100, timeout_s: float | None = None
    ) -> Iterator[pb.ModelStatusResponse]:
        """The cluster now, and whenever it changes, until the iterator is closed.

        Raises:
          UnavailableError: the gateway is not there, or the time is over.
        """
        request = pb.ModelStatusRequest(interval_ms=interval_ms)
        resumption = self._resumption()
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
            stub = resumption.endpoint().stub
            call = stub.ModelStatus(request, timeout=left_s)
            try:
                for status in call:
                    resumption.answered()
                    yield status
                return
            except grpc.RpcError as error:
                with self._told():
                    resumption.broke(error)
            finally:
                call.cancel()

    def wait_until_serving(self, timeout_s: float = 60.0) -> None:
        """Returns when a request would be run.

        Raises:
          UnavailableError: that is not so in time.
        """
        end_s = time.monotonic() + timeout_s
        while True:
            endpoint = self._endpoints.current
            left_s = max(0.0, end_s - time.monotonic())
            try_s = left_s if len(self._endpoints) == 1 else min(left_s, TRY_S)
            with self._told(endpoint):
                try:
                    if _serves(endpoint, try_s):
                        self._endpoints.has_answered = True
                        return
                except grpc.RpcError:
                    if time.monotonic() >= end_s:
                        raise
            self._endpoints.leave(endpoint)
            time.sleep(PAUSE_S)

    def close(self) -> None:
        """Ends every call of this client."""
        self._endpoints.close()

    def _resumption(self) -> Resumption:
        return Resumption(self._endpoints, self._resume_timeout_s)

    def _ask(self, call: Callable[[Any], Answer]) -> Answer:
        """The answer of the gateway in use, or of the first other that is there."""
        for is_last in [*[False] * (len(self._endpoints) - 1), True]:
            endpoint = self._endpoints.current
            try:
                answer = call(endpoint.stub)
            except grpc.RpcError as error:
                if is_last or not self._endpoints.is_worth_another(error):
                    with self._told(endpoint):
                        raise error
                self._endpoints.leave(endpoint)
            else:
                self._endpoints.has_answered = True
                return answer
        raise AssertionError("the last gateway answers or fails")

    @contextlib.contextmanager
    def _told(self, endpoint: Endpoint | None = None) -> Iterator[None]:
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
            address = self.address if endpoint is None else endpoint.address
            message = f"gateway {address}: {details}"
            raise known(details if known is RequestError else message) from error


def _serves(endpoint: Endpoint, timeout_s: float) -> bool:
    """Whether it serves before it ends.

    Raises:
      grpc.RpcError: neither is so in time, or it is lost.
    """
    request = health_pb2.HealthCheckRequest()
    call = endpoint.health.Watch(request, timeout=timeout_s, wait_for_ready=True)
    try:
        serving = health_pb2.HealthCheckResponse.SERVING
        return any(answer.status == serving for answer in call)
    finally:
        call.cancel()


@contextlib.contextmanager
def _written() -> Iterator[None]:
    """Tells of values that no message can hold, as of any that cannot be used."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise RequestError(f"the request cannot be written: {error}") from error
