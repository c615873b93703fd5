"""Whatever becomes of KV that moves, the tokens are the same and nothing hangs."""

import msgspec
import pytest

from jscale.core.ids import PipelineId, SequenceId, WorkerId
from jscale.engine.executables import ExecutableSet
from jscale.pipeline import kv_mover
from jscale.pipeline.messages import (
    FetchKv,
    KvPiece,
    KvTicket,
    MoveEnded,
    MoveKv,
    PipelineSpec,
    Returned,
)
from tests.pipeline.cluster_in_process import CODEC, PROMPTS, World
from tests.pipeline.hand_overs import (
    CROSSED,
    LOCAL,
    OTHERS,
    PAIR,
    SAMPLED,
    THREE,
    WORKERS,
    Alone,
    begin,
    check_tokens,
    messages_on,
    num_moved,
    num_tickets,
)


def test_kv_that_was_left_gives_way_to_pipelines_that_need_its_pages(
    moving: World, alone: Alone
) -> None:
    wanted = alone({})
    newer = moving.open(*OTHERS)
    spec = begin(moving, LOCAL)
    moving.close(spec)
    free = moving.hosts[WorkerId("w0")].num_free_pages
    assert free == moving.config.num_pages
    for _ in range(8):
        moving.open(*LOCAL)  # All pages of w0, those that were left too.
    moving.hand_over_returned(newer)
    moving.run()
    check_tokens(moving, wanted)
    assert num_moved(moving) == 0


def test_pages_that_give_way_in_mid_move_end_it(moving: World, alone: Alone) -> None:
    wanted = alone({})
    newer = moving.open(*OTHERS)
    spec = begin(moving, LOCAL)
    moving.close(spec)
    tickets = num_tickets(moving)
    moving.hand_over_returned(newer)
    while not messages_on(moving, KvPiece):
        assert moving.step()
    for _ in range(8):
        moving.open(*LOCAL)
    moving.run()
    check_tokens(moving, wanted)
    assert num_moved(moving) < tickets


@pytest.mark.parametrize("world", range(6), indirect=True)
@pytest.mark.parametrize("victim", ["w0", "w1"])
def test_worker_that_dies_while_its_kv_moves_costs_a_recomputation(
    moving: World, alone: Alone, victim: str
) -> None:
    wanted = alone(SAMPLED)
    spec = begin(moving, PAIR, **SAMPLED)
    newer = moving.open(*OTHERS)
    moving.close(spec)
    moving.hand_over_returned(newer)
    moving.run(moving.random.randrange(40))
    moving.kill(WorkerId(victim))
    moving.run()
    check_tokens(moving, wanted)


@pytest.mark.parametrize("world", range(6), indirect=True)
@pytest.mark.parametrize("victim", ["w2", "w3"])
def test_new_worker_that_dies_while_kv_moves_to_it_costs_a_hand_over(
    moving: World, alone: Alone, victim: str
) -> None:
    wanted = alone(SAMPLED)
    spec = begin(moving, PAIR, **SAMPLED)
    newer = moving.open(*OTHERS)
    moving.close(spec)
    moving.hand_over_returned(newer)
    moving.run(moving.random.randrange(40))
    moving.kill(WorkerId(victim))
    unfinished = [n for n in PROMPTS if not moving.clients[SequenceId(n)].finish_reason]
    moving.returned = [SequenceId(name) for name in unfinished]
    moving.hand_over_returned(moving.open(*LOCAL))
    moving.run()
    check_tokens(moving, wanted)


def run_without(world: World, kind: type) -> None:
    """Runs on while every message of a kind is lost, though nobody is."""
    while True:
        for wire, index in reversed(messages_on(world, kind)):
            del world.wires[wire][index]
        if not world.step():
            return


@pytest.mark.parametrize("kind", [FetchKv, KvPiece])
def test_silence_of_those_who_have_kv_ends_a_move_in_time(
    moving: World, alone: Alone, kind: type
) -> None:
    wanted = alone({})
    spec = begin(moving, PAIR)
    newer = moving.open(*LOCAL)
    moving.close(spec)
    moving.hand_over_returned(newer)
    run_without(moving, kind)
    host = moving.hosts[WorkerId("w0")]
    assert host.deadline_ns is not None
    while host.deadline_ns is not None:
        moving.now_ns = host.deadline_ns
        run_without(moving, kind)
    check_tokens(moving, wanted)
    assert num_moved(moving) == 0


@pytest.mark.parametrize("kind", [MoveKv, MoveEnded])
def test_silence_of_a_stage_that_is_to_get_kv_breaks_its_pipeline_in_time(
    moving: World, alone: Alone, kind: type
) -> None:
    wanted = alone({})
    spec = begin(moving, PAIR)
    newer = moving.open(*OTHERS)
    moving.close(spec)
    moving.hand_over_returned(newer)
    run_without(moving, kind)
    head = moving.hosts[WorkerId("w2")]
    assert head.deadline_ns is not None
    assert not moving.returned
    while head.deadline_ns is not None:
        moving.now_ns = head.deadline_ns
        run_without(moving, kind)
    assert moving.returned
    moving.hand_over_returned(moving.open(*LOCAL))
    moving.run()
    check_tokens(moving, wanted)


def test_a_trickle_ends_a_move_in_time(
    moving: World, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_mover, "PIECES_ASKED_MAX", 1)
    wanted = alone({})
    spec = begin(moving, PAIR)
    newer = moving.open(*LOCAL)
    moving.close(spec)
    tickets = num_tickets(moving)
    moving.hand_over_returned(newer)
    while moving.step():
        if messages_on(moving, KvPiece):
            moving.now_ns += kv_mover.STALL_NS - 10**6
    check_tokens(moving, wanted)
    assert 0 < num_moved(moving) < tickets


def test_cancelled_while_its_kv_moves_a_sequence_keeps_its_pages_until_it_ends(
    moving: World, alone: Alone
) -> None:
    wanted = alone({})
    spec = begin(moving, PAIR)
    newer = moving.open(*OTHERS)
    moving.close(spec)
    moving.hand_over_returned(newer)
    while not messages_on(moving, FetchKv):
        assert moving.step()
    head = moving.hosts[WorkerId("w2")]
    scheduler = head._pipelines[newer.pipeline].head._scheduler
    for name in PROMPTS:
        head.cancel(SequenceId(name))
    assert scheduler.num_free_pages < newer.num_pages
    moving.run()
    assert scheduler.num_free_pages == newer.num_pages
    for name in PROMPTS:
        client = moving.clients[SequenceId(name)]
        assert client.finish_reason == "cancelled"
        assert client.tokens == wanted[name][: len(client.tokens)]
    # And the replica is as good as new.
    moving.submit(newer, "later", PROMPTS["b"])
    moving.run()
    assert moving.clients[SequenceId("later")].tokens == wanted["b"]


@pytest.mark.parametrize("world", range(6), indirect=True)
def test_a_replica_that_closes_while_kv_moves_to_it_passes_the_ticket_on(
    moving: World, alone: Alone
) -> None:
    wanted = alone(SAMPLED)
    spec = begin(moving, LOCAL, **SAMPLED)
    between = moving.open(*OTHERS)
    newer = moving.open(("w1", 5))
    moving.close(spec)
    tickets = num_tickets(moving)
    moving.hand_over_returned(between)
    while not messages_on(moving, FetchKv):
        assert moving.step()
    moving.close(between)
    assert num_tickets(moving) == tickets
    moving.hand_over_returned(newer)
    moving.run()
    check_tokens(moving, wanted)
    assert num_moved(moving) == tickets


@pytest.mark.parametrize("world", range(4), indirect=True)
def test_a_recut_that_continues_waits_for_kv_that_moves(
    moving: World, alone: Alone
) -> None:
    wanted = alone(SAMPLED)
    spec = begin(moving, LOCAL, **SAMPLED)
    first = moving.open(("w1", 1), ("w0", 4))
    moving.close(spec)
    tickets = num_tickets(moving)
    moving.hand_over_returned(first)
    moving.run(moving.random.randrange(12))
    second = moving.open(("w1", 3), ("w0", 2), continues=first)
    moving.close(first, continued_by=second)
    moving.run()
    assert not moving.returned
    check_tokens(moving, wanted)
    assert num_moved(moving) == tickets


def test_a_worker_that_cannot_copy_kv_yet_computes_it(
    moving: World, alone: Alone
) -> None:
    wanted = alone({})
    without = ExecutableSet(moving.program)
    for spec in (*moving.program.stage_specs(), *moving.program.fused_specs()):
        without._ready[spec] = moving.executables.find(spec)
    moving.executables = without
    moving.add_worker("w2")
    older = begin(moving, LOCAL)
    newer = moving.open(*OTHERS)
    moving.close(older)
    moving.hand_over_returned(newer)
    moving.run()
    check_tokens(moving, wanted)
    assert num_moved(moving) == 0


@pytest.mark.parametrize(
    "damage",
    [
        {"pipeline": PipelineId(77)},
        {"pages": (9999,)},
        {"pages": (0,)},
        {"pages": ()},
        {"num_tokens": 10**6},
        {"stages": ()},
    ],
    ids=str,
)
def test_a_ticket_that_is_stale_or_damaged_costs_a_recomputation(
    moving: World, alone: Alone, damage: dict[str, object]
) -> None:
    wanted = alone({})
    spec = begin(moving, PAIR)
    newer = moving.open(*OTHERS)
    moving.close(spec)
    for name in moving.returned:
        kv = moving.clients[name].kv
        assert isinstance(kv, KvTicket)
        moving.clients[name].kv = msgspec.structs.replace(kv, **damage)
    moving.hand_over_returned(newer)
    moving.run()
    check_tokens(moving, wanted)


@pytest.mark.parametrize("payload", [b"", b"rubbish", b"x" * 3000])
def test_a_piece_of_another_size_ends_the_move(
    moving: World, alone: Alone, payload: bytes
) -> None:
    wanted = alone({})
    spec = begin(moving, LOCAL)
    newer = moving.open(*OTHERS)
    moving.close(spec)
    moving.hand_over_returned(newer)
    while moving.step():
        for wire, index in messages_on(moving, KvPiece):
            header, _ = moving.wires[wire][index]
            moving.wires[wire][index] = header, payload
    check_tokens(moving, wanted)
    assert num_moved(moving) == 0


def test_rubbish_that_nobody_asked_for_changes_nothing(
    moving: World, alone: Alone
) -> None:
    wanted = alone({})
    spec = begin(moving, PAIR)
    host = moving.hosts[WorkerId("w1")]
    reader = spec.stages[1]
    for message in (
        KvPiece(5, True),
        KvPiece(6, False),
        MoveEnded(spec.pipeline, 3, WorkerId("w0"), 7, 7),
        MoveEnded(PipelineId(99), 3, WorkerId("w0"), 7, 7),
        MoveKv(PipelineId(99), 1, KvTicket(spec.pipeline, spec.stages, (1,), 3), (1,)),
        FetchKv(spec.pipeline, 1, reader, 99, (1,)),
        FetchKv(spec.pipeline, 2, reader, -1, (1,)),
        FetchKv(spec.pipeline, 3, reader, 0, ()),
        FetchKv(spec.pipeline, 4, reader, 0, tuple(range(1, 100))),
        FetchKv(PipelineId(99), 5, reader, 0, (1,)),
    ):
        host.take(message, memoryview(b"rubbish"))
    answers = messages_on(moving, KvPiece)
    assert len(answers) == 5
    for wire, index in answers:
        assert CODEC.decode(moving.wires[wire][index][0]).is_there is False  # type: ignore[union-attr]
    moving.run()
    check_tokens(moving, wanted)


def test_a_broken_pipeline_leaves_no_ticket(moving: World, alone: Alone) -> None:
    spec = begin(moving, PAIR)
    moving.kill(WorkerId("w0"))
    assert moving.returned
    assert all(moving.clients[name].kv is None for name in moving.returned)
    assert isinstance(spec, PipelineSpec)


def test_a_replica_that_takes_no_more_gives_the_ticket_back(
    moving: World, alone: Alone
) -> None:
    spec = begin(moving, LOCAL)
    busy = moving.open(*OTHERS)
    moving.submit(busy, "there", (1,))
    moving.close(busy, finish=True)
    moving.close(spec)
    tickets = {name: moving.clients[name].kv for name in moving.returned}
    moving.hand_over_returned(busy)
    assert {name: moving.clients[name].kv for name in moving.returned} == tickets
    assert Returned.__struct_fields__[-1] == "kv"


@pytest.mark.parametrize("world", range(12), indirect=True)
def test_hand_overs_with_moves_and_faults_at_random_change_no_token(
    moving: World, alone: Alone
) -> None:
    """Re-cuts one after the other, some before the last move ended, and a loss."""
    wanted = alone(SAMPLED)
    cuts = [LOCAL, PAIR, OTHERS, THREE, CROSSED, [("w3", 5)]]
    spec = moving.open(*moving.random.choice(cuts))
    for name, prompt in PROMPTS.items():
        moving.submit(spec, name, prompt, **SAMPLED)
    victim = WorkerId(moving.random.choice(WORKERS))
    for turn in range(6):
        moving.run(moving.random.randrange(60))
        if turn == 3:
            moving.kill(victim)
            moving.returned = [
                SequenceId(name)
                for name in PROMPTS
                if not moving.clients[SequenceId(name)].finish_reason
                and (spec.head == victim or SequenceId(name) in moving.returned)
            ]
            cuts = [cut for cut in cuts if victim not in dict(cut)]
        newer = moving.open(*moving.random.choice(cuts))
        moving.close(spec)
        moving.hand_over_returned(newer)
        spec = newer
    moving.run()
    check_tokens(moving, wanted)
