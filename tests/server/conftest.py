"""A gateway between a real client and a fake manager and heads, on real gRPC."""

import asyncio
import contextlib

import grpc
import pytest
import tokenizers
from grpc import aio
from tokenizers import decoders, models, pre_tokenizers

from jscale.cluster import gateway_messages, rpc
from jscale.core.ids import PipelineId, WorkerId
from jscale.pipeline.messages import (
    Cancel,
    Emitted,
    Finished,
    PipelineSpec,
    Returned,
    ServeEvents,
    StageSpec,
    Submit,
)
from jscale.proto.v1 import jscale_pb2_grpc as pb_grpc
from jscale.server.gateway_config import GatewayConfig
from jscale.server.gateway_process import serve
from jscale.server.model_facts import ModelFacts
from jscale.server.tokenizer import Tokenizer

TOKEN = "secret"
PATIENCE_S = 20


@contextlib.asynccontextmanager
async def served(stream, handler, address="127.0.0.1:0"):
    server = aio.server(options=rpc.OPTIONS)
    handlers = {stream.method: stream.handler(handler, TOKEN)}
    server.add_generic_rpc_handlers((rpc.service(stream.service, handlers),))
    bound = await rpc.listen(server, address)
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(grace=None)


class FakeManager:
    """Tells gateways what the test tells it."""

    def __init__(self):
        self.hellos = asyncio.Queue()
        self.loads = asyncio.Queue()
        self.reports = asyncio.Queue()
        self._writes = []
        self._last = {}

    async def serve(self, incoming, write):
        hello = await anext(incoming)
        assert isinstance(hello, gateway_messages.GatewayHello)
        self.hellos.put_nowait(hello)
        for command in self._last.values():
            await write(command)
        self._writes.append(write)
        async for report in incoming:
            is_load = isinstance(report, gateway_messages.LoadReported)
            (self.loads if is_load else self.reports).put_nowait(report)

    async def tell(self, command):
        self._last[type(command)] = command
        for write in self._writes:
            await write(command)

    async def tell_replicas(self, *replicas, phase="LOCAL", epoch=0):
        heads = {replica.head for replica in replicas}
        await self.tell(gateway_messages.ReplicasChanged(replicas, is_snapshot=True))
        await self.tell(
            gateway_messages.StatusChanged(
                model_name="fake",
                block_sizes_bytes=(100, 200),
                num_workers_wanted=len(heads),
                workers=tuple(
                    gateway_messages.WorkerStatus(head, phase, (0, 1), 300, 1.5)
                    for head in sorted(heads)
                ),
                pipelines=tuple(
                    PipelineSpec(
                        replica.pipeline,
                        (StageSpec(replica.head, "mem://x", 0, 2),),
                        num_pages=8,
                    )
                    for replica in replicas
                ),
                epoch=epoch,
            )
        )


class FakeHead:
    """A head of replicas whose tokens are `next_token` of the ones before."""

    def __init__(self, name):
        self.name = WorkerId(name)
        self.address = ""
        self.submits = asyncio.Queue()
        self.cancels = asyncio.Queue()
        self.tokens_at_once = 10**6
        self._lock = asyncio.Lock()
        self._stream = None

    async def serve(self, incoming, write):
        self._stream = write
        async for told in incoming:
            for command in told.commands:
                match command:
                    case Submit():
                        self.submits.put_nowait(command)
                        await self.run(command, self.tokens_at_once)
                    case Cancel():
                        self.cancels.put_nowait(command)

    async def run(self, submit, num_tokens):
        """Emits so many tokens, and the end if it is reached."""
        tokens = [*submit.request.prompt_ids, *submit.generated]
        max_tokens = submit.request.sampling.max_tokens
        first = len(submit.generated)
        who = (submit.sequence, submit.attempt)
        events = []
        for index in range(first, min(max_tokens, first + num_tokens)):
            tokens.append(next_token(tokens))
            events.append(Emitted(*who, index, tokens[-1], -0.25))
            if index + 1 == max_tokens:
                events.append(Finished(*who, "length"))
        if events:
            await self._write(ServeEvents(tuple(events)))

    async def _write(self, events):
        async with self._lock:
            await self._stream(events)

    async def give_back(self, submit):
        returned = Returned(submit.sequence, submit.attempt, "it closes")
        await self._write(ServeEvents((returned,)))

    def replica(self, pipeline=1, *, is_local=True, capacity=8):
        return gateway_messages.Replica(
            PipelineId(pipeline),
            self.name,
            self.address,
            is_local,
            capacity,
            (self.name,),
        )


def next_token(tokens):
    return 97 + (sum(tokens) + len(tokens)) % 26


def continuation(prompt_ids, num_tokens):
    tokens = list(prompt_ids)
    for _ in range(num_tokens):
        tokens.append(next_token(tokens))
    return tokens[len(prompt_ids) :]


class Stage:
    """What a test plays on: a gateway, its manager, and heads."""

    def __init__(self, facts, ready_file):
        self.facts = facts
        self.manager = FakeManager()
        self.address = ""
        self.stub = None
        self.channel = None
        self.stop = asyncio.Event()
        self.gateway = None
        self.manager_address = ""
        self._ready_file = ready_file
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        await self._stack.aclose()

    async def start_manager(self, address="127.0.0.1:0"):
        self.manager_address = await self._stack.enter_async_context(
            served(rpc.ATTACH_GATEWAY, self.manager.serve, address)
        )

    async def start_gateway(self, **settings):
        self.gateway = asyncio.create_task(
            serve(self.config(**settings), self.facts, self.stop)
        )
        self._stack.push_async_callback(self._end_gateway)
        while not self._ready_file.exists():
            await asyncio.sleep(0)
            if self.gateway.done():
                await self.gateway
        self.address = self._ready_file.read_text().strip()
        self.channel = aio.insecure_channel(self.address)
        self._stack.push_async_callback(self.channel.close)
        self.stub = pb_grpc.JscaleStub(self.channel)

    def config(self, **settings):
        given = {
            "model_path": "fake",
            "manager_address": self.manager_address,
            "cluster_token": TOKEN,
            "ready_file": str(self._ready_file),
            **settings,
        }
        return GatewayConfig(**given)

    async def _end_gateway(self):
        self.stop.set()
        self.gateway.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.gateway

    async def start_head(self, name, stack=None):
        head = FakeHead(name)
        head.address = await (stack or self._stack).enter_async_context(
            served(rpc.ATTACH_HEAD, head.serve)
        )
        return head


async def failure(call):
    """The status that a call ends with."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except aio.AioRpcError as error:
        return error.code(), error.details()
    raise AssertionError("the call did not fail")


@pytest.fixture
def facts(tmp_path):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: ord(letter) for letter in letters if ord(letter) < 256}
    rest = (i for i in range(512) if i not in set(vocab.values()))
    vocab |= {letter: next(rest) for letter in letters if letter not in vocab}
    made = tokenizers.Tokenizer(models.BPE(vocab, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(tmp_path / "tokenizer.json"))
    return ModelFacts("fake", 512, 64, (2,), Tokenizer(tmp_path / "tokenizer.json"))


@pytest.fixture
def stage(facts, tmp_path):
    """Runs an async test on a fresh stage, bounded in time."""

    def run(play):
        async def bounded():
            async with asyncio.timeout(PATIENCE_S):
                async with Stage(facts, tmp_path / "ready") as stage:
                    await play(stage)

        asyncio.run(bounded())

    return run


@pytest.fixture
def tools():
    """The helpers of this file, for tests to use by name."""
    return type(
        "Tools",
        (),
        {
            "continuation": staticmethod(continuation),
            "failure": staticmethod(failure),
            "StatusCode": grpc.StatusCode,
            "FakeHead": FakeHead,
            "served": staticmethod(served),
        },
    )
