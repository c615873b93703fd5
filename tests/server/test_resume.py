"""A client whose gateway is lost goes on at another: every token once, no gap."""

import asyncio
import contextlib

import pytest
from grpc import StatusCode, aio

from jscale.core.errors import OverloadedError, RequestError, UnavailableError
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.proto.v1 import jscale_pb2_grpc as pb_grpc
from jscale.server.client import Client
from jscale.server.endpoints import EVERYWHERE, FINAL_KEY, HERE

PROMPT = (104, 105)
NUM_TOKENS = 9
PATIENCE_S = 20


FULL = "full"


class FakeGateway(pb_grpc.JscaleServicer):
    """Gives tokens 100, 101, … and breaks after so many; then after the next number.

    In place of a number, `FULL` has it refuse one request, for too many wait.

    A break is what a client sees of a gateway that is killed: UNAVAILABLE, unmarked.
    """

    def __init__(self, *breaks_after, refusal=None):
        self.requests = []
        self.resumed = asyncio.Event()
        self._breaks_after = list(breaks_after)
        self._refusal = refusal

    async def Generate(self, request, context):  # noqa: N802
        self.requests.append(request)
        if self._refusal is not None:
            await context.abort(*self._refusal)
        first = len(request.generated_ids)
        count = self._breaks_after.pop(0) if self._breaks_after else NUM_TOKENS
        if count == FULL:
            await context.abort(StatusCode.RESOURCE_EXHAUSTED, "many wait")
        last = min(first + count, request.sampling.max_tokens)
        for index in range(first, last):
            token = pb.Token(id=100 + index, text=chr(97 + index), index=index)
            await context.write(pb.GenerateResponse(tokens=[token]))
        if last < request.sampling.max_tokens:
            await context.abort(StatusCode.UNAVAILABLE, "Socket closed")
        reason = pb.FINISH_REASON_LENGTH
        await context.write(pb.GenerateResponse(finish_reason=reason))

    async def ModelStatus(self, request, context):  # noqa: N802
        self.requests.append(request)
        await context.write(pb.ModelStatusResponse(num_workers_wanted=1))
        if len(self.requests) < 3:
            await context.abort(StatusCode.UNAVAILABLE, "Socket closed")


def run(gateways, use, **settings):
    """Plays `use(client)` in a thread against these gateways."""

    async def play():
        async with contextlib.AsyncExitStack() as stack, asyncio.timeout(PATIENCE_S):
            addresses = []
            for gateway in gateways:
                server = aio.server()
                pb_grpc.add_JscaleServicer_to_server(gateway, server)
                port = server.add_insecure_port("127.0.0.1:0")
                addresses.append(f"127.0.0.1:{port}")
                await server.start()
                stack.push_async_callback(server.stop, None)

            def in_thread():
                with Client(",".join(addresses), **settings) as client:
                    use(client)

            await asyncio.get_running_loop().run_in_executor(None, in_thread)

    asyncio.run(play())


def is_whole(generation):
    tokens = list(generation)
    assert [token.id for token in tokens] == [100 + i for i in range(NUM_TOKENS)]
    assert [token.index for token in tokens] == list(range(NUM_TOKENS))
    assert "".join(token.text for token in tokens) == "abcdefghi"
    assert generation.finish_reason == "length"
    return True


@pytest.mark.parametrize("after", range(1, NUM_TOKENS))
def test_a_stream_that_breaks_goes_on_after_its_tokens(after):
    gateway = FakeGateway(after)

    def use(client):
        generation = client.generate(PROMPT, max_tokens=NUM_TOKENS, seed=7)
        assert is_whole(generation)
        assert generation.num_resumed == 1

    run([gateway], use)
    first, second = gateway.requests
    assert list(second.generated_ids) == [100 + index for index in range(after)]
    assert second.sampling == first.sampling
    assert second.token_ids == first.token_ids


def test_it_goes_on_however_often_it_breaks():
    def use(client):
        assert is_whole(client.generate(PROMPT, max_tokens=NUM_TOKENS))

    run([FakeGateway(1, 2, 0, 3)], use)


def test_a_stream_that_was_taken_waits_where_too_many_came_over_at_once():
    def use(client):
        assert is_whole(client.generate(PROMPT, max_tokens=NUM_TOKENS))
        with pytest.raises(OverloadedError, match="many wait"):
            list(client.generate(PROMPT, max_tokens=NUM_TOKENS))

    run([FakeGateway(3, FULL, FULL, NUM_TOKENS, FULL)], use)


def test_of_several_gateways_the_next_takes_over_and_keeps_the_client():
    first, second = FakeGateway(3), FakeGateway()

    def use(client):
        assert is_whole(client.generate(PROMPT, max_tokens=NUM_TOKENS))
        assert is_whole(client.generate(PROMPT, max_tokens=NUM_TOKENS))

    run([first, second], use)
    assert (len(first.requests), len(second.requests)) == (1, 2)


def test_a_gateway_that_is_leaving_is_left_before_the_first_token():
    here = ((FINAL_KEY, HERE),)
    leaving = FakeGateway(refusal=(StatusCode.UNAVAILABLE, "it is leaving", here))

    def use(client):
        assert is_whole(client.generate(PROMPT, max_tokens=NUM_TOKENS))

    def use_alone(client):
        with pytest.raises(UnavailableError, match="it is leaving"):
            list(client.generate(PROMPT))

    run([leaving, FakeGateway()], use)
    run([leaving], use_alone)


def test_an_answer_of_no_is_not_asked_again():
    final = ((FINAL_KEY, EVERYWHERE),)
    unavailable = FakeGateway(refusal=(StatusCode.UNAVAILABLE, "no worker", final))
    bad = FakeGateway(refusal=(StatusCode.INVALID_ARGUMENT, "too long"))

    def use_unavailable(client):
        with pytest.raises(UnavailableError, match="no worker"):
            list(client.generate(PROMPT))

    def use_bad(client):
        with pytest.raises(RequestError, match="too long"):
            list(client.generate(PROMPT))

    run([unavailable, FakeGateway()], use_unavailable)
    run([bad, FakeGateway()], use_bad)
    assert len(unavailable.requests) == len(bad.requests) == 1


def test_waiting_for_a_gateway_is_bounded():
    def use(client):
        generation = client.generate(PROMPT, max_tokens=NUM_TOKENS)
        with pytest.raises(UnavailableError, match="Socket closed"):
            list(generation)
        assert generation.num_resumed >= 1

    run([FakeGateway(1, *[0] * 99)], use, resume_timeout_s=0.3)


def test_a_stream_that_was_given_up_is_not_opened_again():
    gateway = FakeGateway(1)

    def use(client):
        generation = client.generate(PROMPT, max_tokens=NUM_TOKENS)
        next(generation)
        generation.cancel()
        assert list(generation) == []
        assert generation.finish_reason == "cancelled"

    run([gateway], use)
    assert len(gateway.requests) == 1


def test_a_watch_goes_on_too():
    gateway = FakeGateway()

    def use(client):
        assert len(list(client.watch())) == 3

    run([gateway], use)
