"""What the gateway tells of itself and the cluster, and asks of the manager."""

import asyncio
import contextlib

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from jscale.cluster import gateway_messages, messages, rpc
from jscale.core.errors import UnavailableError
from jscale.proto.v1 import jscale_pb2 as pb
from tests.server.conftest import FakeManager, served

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


def test_scale_to_reaches_the_manager(stage, tools):
    async def play(stage):
        await ready(stage, "w0")
        await collect(stage.stub.Generate(ask()))
        answer = await stage.stub.ScaleTo(pb.ScaleToRequest(num_workers=4))
        assert answer.num_workers_before == 1
        assert await stage.manager.reports.get() == gateway_messages.ScaleTo(4)
        code, details = await tools.failure(
            stage.stub.ScaleTo(pb.ScaleToRequest(num_workers=-1))
        )
        assert code is tools.StatusCode.INVALID_ARGUMENT
        assert details == "num_workers=-1: give 0 to 4096"

    stage(play)


def test_the_next_manager_hears_what_the_last_one_wanted(stage):
    async def play(stage):
        async with contextlib.AsyncExitStack() as stack:
            first = FakeManager()
            stage.manager_address = await stack.enter_async_context(
                served(rpc.ATTACH_GATEWAY, first.serve)
            )
            head = await stage.start_head("w0")
            await stage.start_gateway()
            hello = await first.hellos.get()
            assert (hello.num_workers_wanted, hello.wanted_epoch) == (None, 0)
            await first.tell_replicas(head.replica(), epoch=7)
            await health_is(stage, SERVING)
            await stage.stub.ScaleTo(pb.ScaleToRequest(num_workers=3))
            assert await first.reports.get() == gateway_messages.ScaleTo(3)
        await stage.start_manager(stage.manager_address)
        hello = await stage.manager.hellos.get()
        assert (hello.num_workers_wanted, hello.wanted_epoch) == (3, 7)

    stage(play)


def test_the_manager_hears_of_the_load_when_it_changes(stage):
    async def play(stage):
        (head,) = await ready(stage, "w0")
        load = await stage.manager.loads.get()
        assert (load.num_arrived, load.num_running) == (0, 0)
        head.tokens_at_once = 2
        call = stage.stub.Generate(ask(5))
        while load.num_tokens < 2:
            load = await stage.manager.loads.get()
        assert (load.num_arrived, load.num_running, load.num_finished) == (1, 1, 0)
        assert (load.num_waiting, load.prompt_tokens) == (0, len(PROMPT))
        call.cancel()
        while not load.num_finished:
            load = await stage.manager.loads.get()
        assert load.num_running == 0

    stage(play)


def test_scale_to_without_a_manager_is_unavailable(stage, tools):
    async def play(stage):
        await stage.start_gateway(manager_address="127.0.0.1:1")
        request = pb.ScaleToRequest(num_workers=2)
        code, _ = await tools.failure(stage.stub.ScaleTo(request))
        assert code is tools.StatusCode.UNAVAILABLE

    stage(play)


def test_model_status_tells_holdings_pipelines_and_speed(stage):
    async def play(stage):
        await ready(stage, "w0")
        await collect(stage.stub.Generate(ask()))
        status = await stage.stub.ModelStatus(pb.ModelStatusRequest()).read()
        assert status.model == "fake"
        assert [*status.block_sizes_bytes] == [100, 200]
        (worker,) = status.workers
        assert (worker.worker, worker.phase) == ("w0", pb.PHASE_LOCAL)
        assert ([*worker.blocks], worker.received_bytes) == ([0, 1], 300)
        (pipeline,) = status.pipelines
        assert (pipeline.id, pipeline.capacity) == (1, 8)
        assert pipeline.stages[0].num_blocks == 2
        serving = status.serving
        assert (serving.num_finished, serving.num_tokens) == (1, 5)
        assert serving.tokens_per_s > 0
        assert serving.ttft_p90_ms > 0

    stage(play)


def test_model_status_follows_changes(stage):
    async def play(stage):
        (head,) = await ready(stage, "w0")
        await health_is(stage, SERVING)
        call = stage.stub.ModelStatus(pb.ModelStatusRequest(interval_ms=10))
        assert [len((await anext(aiter(call))).pipelines)] == [1]
        await stage.manager.tell_replicas(head.replica(1), head.replica(2))
        while len((await anext(aiter(call))).pipelines) != 2:
            pass
        once = stage.stub.ModelStatus(pb.ModelStatusRequest(once=True))
        assert len([status async for status in once]) == 1

    stage(play)


def test_a_gateway_that_the_manager_refuses_ends_with_the_reason(stage):
    async def play(stage):
        await stage.start_manager()
        await stage.manager.tell(messages.Refuse("it speaks protocol 9"))
        await stage.start_gateway()
        with pytest.raises(UnavailableError, match="it speaks protocol 9"):
            await stage.gateway
        stage.gateway = asyncio.create_task(asyncio.sleep(0))

    stage(play)


def test_a_port_in_use_is_one_clear_error(stage):
    async def play(stage):
        await stage.start_manager()
        with pytest.raises(UnavailableError, match=r"cannot listen on 127\.0\.0\.1"):
            await stage.start_gateway(listen_address=stage.manager_address)
        stage.gateway = asyncio.create_task(asyncio.sleep(0))

    stage(play)


def test_the_server_tells_what_it_is_by_reflection(stage):
    async def play(stage):
        await stage.start_gateway(manager_address="127.0.0.1:1")
        stub = reflection_pb2_grpc.ServerReflectionStub(stage.channel)
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await anext(aiter(call))
        names = {service.name for service in answer.list_services_response.service}
        assert {"jscale.v1.Jscale", "grpc.health.v1.Health"} <= names
        await call.done_writing()

    stage(play)
