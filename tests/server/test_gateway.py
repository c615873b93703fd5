"""The gateway on real gRPC, between a client and a fake manager and heads."""

import asyncio
import contextlib

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from jscale.proto.v1 import jscale_pb2 as pb

PROMPT = [104, 105]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def ask(num_tokens=5, **fields):
    fields.setdefault("token_ids", PROMPT)
    sampling = pb.SamplingParameters(max_tokens=num_tokens)
    return pb.GenerateRequest(sampling=sampling, **fields)


async def collect(call):
    tokens, reason = [], None
    async for response in call:
        tokens += response.tokens
        reason = response.finish_reason
    return tokens, reason


async def ready(stage, *names, **replica):
    """A gateway with one local replica for each name."""
    await stage.start_manager()
    heads = [await stage.start_head(name) for name in names]
    await stage.start_gateway()
    await stage.manager.tell_replicas(
        *(head.replica(index + 1, **replica) for index, head in enumerate(heads))
    )
    return heads


async def health_is(stage, wanted):
    stub = health_pb2_grpc.HealthStub(stage.channel)
    request = health_pb2.HealthCheckRequest(service="jscale.v1.Jscale")
    call = stub.Watch(request)
    async for answer in call:
        if answer.status == wanted:
            call.cancel()
            return


def test_tokens_come_with_text_logprob_and_index(stage, tools):
    async def play(stage):
        await ready(stage, "w0")
        tokens, reason = await collect(
            stage.stub.Generate(ask(text="hi", token_ids=[]))
        )
        ids = tools.continuation(PROMPT, 5)
        assert [token.id for token in tokens] == ids
        assert "".join(token.text for token in tokens) == bytes(ids).decode()
        assert [token.index for token in tokens] == [0, 1, 2, 3, 4]
        assert {token.logprob for token in tokens} == {-0.25}
        assert reason == pb.FINISH_REASON_LENGTH

    stage(play)


def test_the_first_response_counts_the_prompt(stage):
    async def play(stage):
        await ready(stage, "w0")
        call = stage.stub.Generate(ask(request_id="mine"))
        first = await anext(aiter(call))
        assert (first.request_id, first.prompt_tokens) == ("mine", 2)
        await collect(call)

    stage(play)


def test_a_request_waits_for_the_first_replica(stage, tools):
    async def play(stage):
        await stage.start_manager()
        await stage.start_gateway()
        head = await stage.start_head("w0")
        waiting = asyncio.create_task(collect(stage.stub.Generate(ask())))
        status = await stage.stub.ModelStatus(pb.ModelStatusRequest()).read()
        assert status.note == "the manager is not there yet"
        await stage.manager.tell_replicas(head.replica())
        tokens, _ = await waiting
        assert [token.id for token in tokens] == tools.continuation(PROMPT, 5)

    stage(play)


def test_a_manager_that_comes_later_is_found(stage, tools):
    async def play(stage):
        await stage.start_manager()
        address = stage.manager_address
        await stage.__aexit__()
        await stage.start_gateway()
        health = health_pb2_grpc.HealthStub(stage.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == NOT_SERVING
        head = await stage.start_head("w0")
        await stage.start_manager(address)
        await stage.manager.tell_replicas(head.replica())
        await health_is(stage, SERVING)
        tokens, _ = await collect(stage.stub.Generate(ask()))
        assert len(tokens) == 5

    stage(play)


def test_a_returned_request_goes_on_elsewhere_with_the_same_tokens(stage, tools):
    async def play(stage):
        (first,) = await ready(stage, "w0")
        first.tokens_at_once = 3
        call = asyncio.create_task(collect(stage.stub.Generate(ask(9))))
        submit = await first.submits.get()
        second = await stage.start_head("w1")
        await stage.manager.tell_replicas(second.replica(2))
        await first.give_back(submit)
        again = await second.submits.get()
        assert (again.attempt, len(again.generated)) == (1, 3)
        tokens, _ = await call
        assert [token.id for token in tokens] == tools.continuation(PROMPT, 9)
        assert [token.index for token in tokens] == [*range(9)]

    stage(play)


def test_a_request_survives_the_death_of_its_head(stage, tools):
    async def play(stage):
        await stage.start_manager()
        await stage.start_gateway()
        async with contextlib.AsyncExitStack() as life:
            doomed = await stage.start_head("w0", life)
            doomed.tokens_at_once = 4
            await stage.manager.tell_replicas(doomed.replica())
            call = asyncio.create_task(collect(stage.stub.Generate(ask(9))))
            await doomed.submits.get()
        other = await stage.start_head("w1")
        await stage.manager.tell_replicas(other.replica(2))
        tokens, _ = await call
        assert [token.id for token in tokens] == tools.continuation(PROMPT, 9)
        status = await stage.stub.ModelStatus(pb.ModelStatusRequest()).read()
        assert status.serving.num_handed_over == 1

    stage(play)


def test_a_client_that_goes_away_cancels_its_request(stage):
    async def play(stage):
        (head,) = await ready(stage, "w0")
        head.tokens_at_once = 1
        call = stage.stub.Generate(ask())
        await anext(aiter(call))
        submit = await head.submits.get()
        call.cancel()
        assert (await head.cancels.get()).sequence == submit.sequence

    stage(play)


def test_abort_ends_the_stream_as_cancelled(stage):
    async def play(stage):
        (head,) = await ready(stage, "w0")
        head.tokens_at_once = 1
        call = stage.stub.Generate(ask(request_id="mine"))
        await anext(aiter(call))
        request = pb.AbortRequest(request_id="mine")
        assert (await stage.stub.Abort(request)).found
        assert (await anext(aiter(call))).finish_reason == pb.FINISH_REASON_CANCELLED
        await head.cancels.get()
        await collect(call)
        assert not (await stage.stub.Abort(request)).found

    stage(play)


def test_a_request_id_is_free_again_when_its_request_is_done(stage, tools):
    async def play(stage):
        (head,) = await ready(stage, "w0")
        await collect(stage.stub.Generate(ask(request_id="mine")))
        head.tokens_at_once = 1
        call = stage.stub.Generate(ask(request_id="mine"))
        await anext(aiter(call))
        again = stage.stub.Generate(ask(request_id="mine"))
        code, details = await tools.failure(again)
        assert code is tools.StatusCode.INVALID_ARGUMENT
        assert details == (
            "request id 'mine' is running: choose another, or abort it first"
        )
        call.cancel()

    stage(play)


BAD = {
    "both": (
        {"text": "hi", "token_ids": [1]},
        "both text (2 characters) and token_ids (1) are given: give one of them",
    ),
    "empty": ({}, "the prompt is empty: give at least one token"),
    "long": (
        {"token_ids": [3] * 64},
        "the prompt has 64 tokens and the context holds 64: shorten it to at most 63",
    ),
    "huge": ({"text": "x" * 5000}, "the prompt has 5000 characters and the context"),
    "unknown": ({"token_ids": [1, 512]}, "unknown token id 512 at position 1"),
    "name": (
        {"token_ids": [1], "request_id": "x" * 257},
        "request_id of 257 characters: give at most 256, or none",
    ),
    "negative": ({"token_ids": [-1]}, "unknown token id -1 at position 0"),
    "longer": (
        {"token_ids": [1], "generated_ids": [3] * 129},
        "generated_ids has 129 tokens and the request ends after 63: give those of",
    ),
    "strange": (
        {"token_ids": [1], "generated_ids": [3, 512]},
        "unknown token id 512 at index 1 of generated_ids",
    ),
}
BAD_SAMPLING = {
    "temperature": -1.0,
    "top_k": -1,
    "top_p": 1.5,
    "seed": -1,
    "max_tokens": 0,
    "stop_token_ids": [512],
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_prompt_is_refused_with_what_to_change(stage, tools, case):
    fields, message = BAD[case]

    async def play(stage):
        await stage.start_gateway(manager_address="127.0.0.1:1")
        call = stage.stub.Generate(pb.GenerateRequest(**fields))
        code, details = await tools.failure(call)
        assert code is tools.StatusCode.INVALID_ARGUMENT
        assert details.startswith(message)

    stage(play)


def test_absurd_sampling_is_refused_naming_the_value(stage, tools):
    async def play(stage):
        await stage.start_gateway(manager_address="127.0.0.1:1")
        for name, value in [*BAD_SAMPLING.items(), ("temperature", float("nan"))]:
            sampling = pb.SamplingParameters(**{name: value})
            request = pb.GenerateRequest(token_ids=PROMPT, sampling=sampling)
            code, details = await tools.failure(stage.stub.Generate(request))
            assert code is tools.StatusCode.INVALID_ARGUMENT
            assert name in details
            assert str(value).strip("[]") in details

    stage(play)


def test_max_tokens_beyond_the_context_end_where_it_does(stage):
    async def play(stage):
        await ready(stage, "w0")
        tokens, reason = await collect(stage.stub.Generate(ask(1000)))
        assert len(tokens) == 64 - len(PROMPT)
        assert reason == pb.FINISH_REASON_LENGTH

    stage(play)


def test_a_full_queue_is_resource_exhausted(stage, tools):
    async def play(stage):
        await stage.start_manager()
        await stage.start_gateway(max_queued=1)
        calls = [stage.stub.Generate(ask()) for _ in range(2)]
        ends = [asyncio.create_task(tools.failure(call)) for call in calls]
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        (code, details) = done.pop().result()
        assert code is tools.StatusCode.RESOURCE_EXHAUSTED
        assert details.startswith("1 requests are waiting")
        for call in calls:
            call.cancel()
        for end in ends:
            end.cancel()

    stage(play)


def test_without_a_replica_for_long_requests_are_unavailable(stage, tools):
    async def play(stage):
        await stage.start_manager()
        await stage.start_gateway(unavailable_after_s=0.01)
        code, details = await tools.failure(stage.stub.Generate(ask()))
        assert code is tools.StatusCode.UNAVAILABLE
        assert "no worker could serve" in details

    stage(play)


def test_draining_lets_what_runs_finish_and_takes_no_more(stage, tools):
    async def play(stage):
        (head,) = await ready(stage, "w0")
        head.tokens_at_once = 2
        call = stage.stub.Generate(ask(5))
        await anext(aiter(call))
        submit = await head.submits.get()
        watching = stage.stub.ModelStatus(pb.ModelStatusRequest())
        await anext(aiter(watching))
        stage.stop.set()
        await health_is(stage, NOT_SERVING)
        code, details = await tools.failure(stage.stub.Generate(ask()))
        assert code is tools.StatusCode.UNAVAILABLE
        assert "leaving" in details
        more = submit.__class__(
            submit.pipeline,
            submit.sequence,
            submit.attempt,
            submit.request,
            tuple(tools.continuation(PROMPT, 2)),
        )
        await head.run(more, 3)
        tokens, _ = await collect(call)
        assert len(tokens) == 3
        await stage.gateway

    stage(play)
