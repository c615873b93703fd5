"""A sequence that is handed over goes on with its KV moved as with its KV computed."""

import collections

import msgspec
import numpy as np
import pytest

from jscale.core.ids import SequenceId
from jscale.pipeline.messages import FetchKv, PipelineSpec
from tests.pipeline.cluster_in_process import World
from tests.pipeline.hand_overs import (
    CROSSED,
    LOCAL,
    OTHERS,
    PAIR,
    SAMPLED,
    THREE,
    Alone,
    Parts,
    begin,
    check_tokens,
    clients,
    messages_on,
    num_moved,
    num_tickets,
    with_workers,
)
from tests.pipeline.test_stage_host import count_rows


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (LOCAL, PAIR),
        (PAIR, LOCAL),
        (THREE, PAIR),
        (PAIR, THREE),
        (THREE, OTHERS),
        (OTHERS, LOCAL),
        (CROSSED, THREE),
        (LOCAL, CROSSED),
        (PAIR, PAIR),
    ],
    ids=str,
)
def test_moved_sequences_go_on_and_compute_no_token_twice(
    moving: World,
    alone: Alone,
    monkeypatch: pytest.MonkeyPatch,
    older: list[tuple[str, int]],
    newer: list[tuple[str, int]],
    sampling: dict[str, object],
) -> None:
    wanted = alone(sampling)
    spec = begin(moving, older, **sampling)
    target = moving.open(*newer)
    moving.close(spec)
    tickets = num_tickets(moving)
    left = sum(
        40 - len(client.tokens) if client.kv else len(client.request.prompt_ids) + 39
        for client in clients(moving)
        if not client.finish_reason
    )
    rows = count_rows(moving, newer[0][0], monkeypatch)
    moving.hand_over_returned(target)
    moving.run()
    check_tokens(moving, wanted)
    assert num_moved(moving) == tickets
    stages = sum(worker == newer[0][0] for worker, _ in newer)
    assert sum(rows) == left * stages, "one row a token, and no prompt again"


def kv_of(world: World, spec: PipelineSpec, name: str) -> list[bytes]:
    """The KV of a sequence's computed tokens, block by block, as bytes."""
    (sequence,) = (
        each
        for each in world.hosts[spec.head]
        ._pipelines[spec.pipeline]
        .head._scheduler._running
        if each.id == name
    )
    found = []
    for stage in spec.stages:
        host = world.hosts[stage.worker]
        page_map = host._leases.page_map(spec.pipeline)
        for block in stage.blocks:
            pages = page_map[sequence.pages]
            tokens = []
            for pool in (host._executor._k_pools, host._executor._v_pools):
                kv = np.asarray(pool[block])[:, pages]
                layers, _, _, *rest = kv.shape
                tokens.append(kv.reshape(layers, -1, *rest)[:, : sequence.num_kept])
            found.append(np.stack(tokens).tobytes())
    return found


def test_moved_kv_is_the_kv_that_is_recomputed_bit_for_bit(
    parts: Parts,
) -> None:
    found = []
    for moves_kv in ("always", "never"):
        world = with_workers(World(*parts), moves_kv)
        spec = world.open(*THREE)
        prompt = (1, *range(260, 360))
        world.submit(spec, "long", prompt, max_tokens=100, **SAMPLED)
        client = world.clients[SequenceId("long")]
        while len(client.tokens) < 50:
            world.step()
        newer = world.open(*OTHERS)
        world.close(spec)
        world.hand_over_returned(newer)
        while len(client.tokens) < 70:
            world.step()
        assert (client.num_moved_tokens >= 149) == (moves_kv == "always")
        found.append((client.tokens[:70], kv_of(world, newer, "long")))
    assert found[0] == found[1]


def test_never_moves_nothing(world: World, alone: Alone) -> None:
    wanted = alone({})
    with_workers(world, "never")
    spec = begin(world, PAIR)
    newer = world.open(*LOCAL)
    world.close(spec)
    world.hand_over_returned(newer)
    assert not messages_on(world, FetchKv)
    world.run()
    check_tokens(world, wanted)
    assert num_moved(world) == 0


@pytest.mark.parametrize("link_bytes_per_s", [1e3, 1e12])
def test_by_cost_kv_is_moved_over_a_fast_link_and_not_over_a_slow_one(
    world: World, alone: Alone, link_bytes_per_s: float
) -> None:
    wanted = alone({})
    with_workers(world, "auto")
    for host in world.hosts.values():
        host._link.__init__(link_bytes_per_s)  # type: ignore[misc]
    spec = begin(world, LOCAL)
    world.now_ns += 10**9
    newer = world.open(*OTHERS)
    world.close(spec)
    tickets = num_tickets(world)
    for name in world.returned:
        kv = world.clients[name].kv
        if kv is None:
            continue
        assert kv.prefill_tokens_per_s > 0
        slow = msgspec.structs.replace(kv, prefill_tokens_per_s=1000.0, step_ns=0)
        world.clients[name].kv = slow
    world.hand_over_returned(newer)
    world.run()
    check_tokens(world, wanted)
    # Three tokens and more take 3 ms and more to compute, and seconds on a slow link.
    assert num_moved(world) == (tickets if link_bytes_per_s > 1e6 else 0)


def test_what_stays_on_its_worker_crosses_no_wire(moving: World, alone: Alone) -> None:
    wanted = alone({})
    spec = begin(moving, PAIR)
    newer = moving.open(*PAIR)
    moving.close(spec)
    tickets = num_tickets(moving)
    moving.hand_over_returned(newer)
    seen = collections.Counter[str]()
    while moving.step():
        seen.update({"fetch": len(messages_on(moving, FetchKv))})
    check_tokens(moving, wanted)
    assert num_moved(moving) == tickets
    assert not seen["fetch"]
