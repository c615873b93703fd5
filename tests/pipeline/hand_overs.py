"""Worlds in which sequences are handed over, and what must hold afterwards."""

from collections.abc import Callable

import msgspec

from jscale.core.ids import SequenceId
from jscale.engine.executables import ExecutableSet
from jscale.engine.program import ModelProgram
from jscale.pipeline.messages import PipelineSpec
from jscale.store.block_store import BlockStore
from tests.pipeline.cluster_in_process import CODEC, PROMPTS, Client, World

Parts = tuple[ModelProgram, ExecutableSet, BlockStore]
Alone = Callable[[dict[str, object]], dict[str, list[int]]]

LOCAL = [("w0", 5)]
PAIR = [("w1", 2), ("w0", 3)]
OTHERS = [("w2", 1), ("w3", 4)]
THREE = [("w2", 1), ("w0", 2), ("w1", 2)]
CROSSED = [("w1", 1), ("w0", 1), ("w1", 1), ("w2", 2)]
WORKERS = ("w0", "w1", "w2", "w3")
SAMPLED: dict[str, object] = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "seed": 7}


def with_workers(world: World, moves_kv: str) -> World:
    world.config = msgspec.structs.replace(world.config, moves_kv=moves_kv)
    for worker in WORKERS:
        world.add_worker(worker)
    return world


def begin(world: World, cut: list[tuple[str, int]], **sampling: object) -> PipelineSpec:
    """Every prompt on one replica, until four run; the fifth may still wait."""
    spec = world.open(*cut)
    for name, prompt in PROMPTS.items():
        world.submit(spec, name, prompt, **sampling)
    while sum(len(client.tokens) in range(3, 35) for client in clients(world)) < 4:
        assert world.step()
    return spec


def clients(world: World) -> list[Client]:
    return [world.clients[SequenceId(name)] for name in PROMPTS]


def check_tokens(world: World, expected: dict[str, list[int]]) -> None:
    for name in PROMPTS:
        client = world.clients[SequenceId(name)]
        assert client.tokens == expected[name], name
        assert client.finish_reason
    for worker, host in world.hosts.items():
        for opened in host._pipelines.values():
            if opened.head:
                scheduler = opened.head._scheduler
                assert scheduler.num_free_pages == opened.spec.num_pages, worker
                assert not opened.head._arrivals._tickets
                assert not opened.head._arrivals._moves
        assert host.deadline_ns is None, worker


def num_moved(world: World) -> int:
    return sum(client.num_moved_tokens > 0 for client in clients(world))


def num_tickets(world: World) -> int:
    """Sequences that were returned with KV; never none, or tests would show nothing."""
    found = sum(client.kv is not None for client in clients(world))
    assert found >= 4
    return found


def messages_on(world: World, kind: type) -> list[tuple[tuple[str, str], int]]:
    """Wire and place of every message of a kind that has not arrived."""
    return [
        (wire, index)
        for wire, queue in world.wires.items()
        for index, (header, _) in enumerate(queue)
        if isinstance(CODEC.decode(header), kind)
    ]
