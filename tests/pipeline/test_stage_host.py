import pytest

from jscale.core.errors import OverloadedError, UnavailableError
from jscale.core.ids import BatchId, SequenceId, WorkerId
from jscale.pipeline.messages import Sampled
from tests.pipeline.cluster_in_process import (
    PROMPTS,
    World,
    count_rows,
    expected_alone,
)

STORY = SequenceId("story")


def test_local_replica_gives_the_tokens_of_the_oracle(
    world: World, oracle: list[int]
) -> None:
    world.add_worker("w0")
    world.submit(world.open(("w0", 5)), "story", (1,), max_tokens=300)
    world.run()
    assert world.clients[STORY].tokens == oracle
    assert world.clients[STORY].finish_reason == "length"


@pytest.mark.parametrize(
    "cut",
    [
        [("w0", 1), ("w1", 4)],
        [("w0", 4), ("w1", 1)],
        [("w0", 1), ("w1", 1), ("w2", 1), ("w0", 1), ("w1", 1)],
        [("w1", 2), ("w0", 1), ("w1", 2)],
    ],
    ids=str,
)
def test_every_cut_gives_the_tokens_of_the_oracle(
    world: World, oracle: list[int], cut: list[tuple[str, int]]
) -> None:
    for worker in ("w0", "w1", "w2"):
        world.add_worker(worker)
    world.submit(world.open(*cut), "story", (1,), max_tokens=120)
    world.run()
    assert world.clients[STORY].tokens == oracle[:120]


@pytest.mark.parametrize("world", range(3), indirect=True)
@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "seed": 7}],
    ids=str,
)
def test_many_sequences_over_shared_workers_get_the_tokens_they_get_alone(
    world: World, sampling: dict[str, object]
) -> None:
    expected = expected_alone(world, **sampling)
    for worker in ("w0", "w1", "w2"):
        world.add_worker(worker)
    specs = [
        world.open(("w0", 5)),
        world.open(("w1", 2), ("w0", 3)),
        world.open(("w2", 3), ("w0", 2)),
    ]
    for index, spec in enumerate(specs * 2):
        for name, prompt in PROMPTS.items():
            world.submit(spec, f"{name}-{index}", prompt, **sampling)
            world.run(7)
    world.run()
    for name in PROMPTS:
        for index in range(6):
            client = world.clients[SequenceId(f"{name}-{index}")]
            assert client.tokens == expected[name], (name, index)
            assert client.finish_reason


@pytest.mark.parametrize("world", range(4), indirect=True)
def test_handed_over_sequences_go_on_with_the_same_tokens(world: World) -> None:
    sampling: dict[str, object] = {"temperature": 0.7, "seed": 3}
    expected = expected_alone(world, **sampling)
    for worker in ("w0", "w1"):
        world.add_worker(worker)
    spec = world.open(("w1", 1), ("w0", 4))
    for name, prompt in PROMPTS.items():
        world.submit(spec, name, prompt, **sampling)
    for cut in ([("w1", 2), ("w0", 3)], [("w1", 4), ("w0", 1)], [("w1", 5)]):
        world.run(world.random.randrange(200))
        newer = world.open(*cut)
        world.close(spec)
        world.hand_over_returned(newer)
        spec = newer
    world.run()
    for name in PROMPTS:
        assert world.clients[SequenceId(name)].tokens == expected[name]


@pytest.mark.parametrize("world", range(8), indirect=True)
def test_recut_that_continues_keeps_what_the_source_has_computed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling: dict[str, object] = {"temperature": 0.7, "seed": 3}
    expected = expected_alone(world, **sampling)
    for worker in ("w0", "w1"):
        world.add_worker(worker)
    source_rows = count_rows(world, "w0", monkeypatch)
    spec = world.open(("w1", 1), ("w0", 4))
    for name, prompt in PROMPTS.items():
        world.submit(spec, name, prompt, **sampling)
    for num_blocks in (2, 3, 4):
        world.run(world.random.randrange(200))
        newer = world.open(("w1", num_blocks), ("w0", 5 - num_blocks), continues=spec)
        world.submit(newer, f"new-{num_blocks}", PROMPTS["b"], **sampling)
        world.run(world.random.randrange(20))
        world.close(spec, continued_by=newer)
        spec = newer
    world.run()
    assert not world.returned
    assert world.num_moved
    for name in PROMPTS:
        assert world.clients[SequenceId(name)].tokens == expected[name]
    for num_blocks in (2, 3, 4):
        tokens = world.clients[SequenceId(f"new-{num_blocks}")].tokens
        assert tokens == expected["b"]
    prompts = [*PROMPTS.values(), *[PROMPTS["b"]] * 3]
    needed = sum(len(prompt) + 39 for prompt in prompts)
    assert sum(source_rows) == needed, "the source computes nothing twice"
    world.close(spec)
    assert world.hosts[WorkerId("w0")].num_free_pages == world.config.num_pages


def test_recut_of_a_recut_that_still_waits_continues_both(world: World) -> None:
    expected = expected_alone(world)
    for worker in ("w0", "w1"):
        world.add_worker(worker)
    first = world.open(("w1", 1), ("w0", 4))
    for name, prompt in PROMPTS.items():
        world.submit(first, name, prompt)
    head = world.hosts[WorkerId("w1")]
    assert head.run_one()  # In flight: the head cannot hand on before it is back.
    second = world.open(("w1", 2), ("w0", 3), continues=first)
    head.close(first.pipeline, "re-cut", continued_by=second.pipeline)
    third = world.open(("w1", 3), ("w0", 2), continues=second)
    head.close(second.pipeline, "re-cut", continued_by=third.pipeline)
    source = world.hosts[WorkerId("w0")]
    source.close(first.pipeline, "re-cut", continued_by=second.pipeline)
    source.close(second.pipeline, "re-cut", continued_by=third.pipeline)
    world.run()
    assert not world.returned
    for name in PROMPTS:
        assert world.clients[SequenceId(name)].tokens == expected[name]
    gone = {pipeline for _, pipeline in world.closed}
    assert gone == {first.pipeline, second.pipeline}


def test_recut_that_cannot_continue_is_refused_or_starts_anew(world: World) -> None:
    expected = expected_alone(world)
    for worker in ("w0", "w1"):
        world.add_worker(worker)
    spec = world.open(("w1", 1), ("w0", 4))
    world.submit(spec, "a", PROMPTS["a"])
    world.run(20)
    newer = world.open(("w1", 2), ("w0", 3), continues=spec)
    world.submit(newer, "b", PROMPTS["b"])
    # The old one breaks before the new one is known to be open everywhere.
    world.close(spec)
    world.hand_over_returned(newer)
    world.run()
    for name in ("a", "b"):
        assert world.clients[SequenceId(name)].tokens == expected[name]
    with pytest.raises(UnavailableError, match="which 4 continues, is gone"):
        world.open(("w1", 3), ("w0", 2), continues=spec)


@pytest.mark.parametrize("world", range(4), indirect=True)
@pytest.mark.parametrize("victim", ["w0", "w1"])
def test_loss_of_a_stage_in_mid_request_changes_no_token(
    world: World, victim: str
) -> None:
    expected = expected_alone(world)
    for worker in ("w0", "w1", "w2"):
        world.add_worker(worker)
    spec = world.open(("w1", 2), ("w0", 3))
    for name, prompt in PROMPTS.items():
        world.submit(spec, name, prompt)
    world.run(world.random.randrange(1, 120))
    world.kill(WorkerId(victim))
    if victim == "w1":  # The head is gone, and with it the stream: all are handed over.
        world.returned = [
            sequence
            for sequence, client in world.clients.items()
            if not client.finish_reason
        ]
    world.hand_over_returned(world.open(("w2", 5)))
    world.run()
    for name in PROMPTS:
        assert world.clients[SequenceId(name)].tokens == expected[name]


def test_pages_are_given_back_when_pipelines_close(world: World) -> None:
    world.add_worker("w0")
    opened = [world.open(("w0", 5)) for _ in range(8)]
    with pytest.raises(OverloadedError, match="pages wanted"):
        world.open(("w0", 5))
    for spec in opened:
        world.close(spec)
    assert [pipeline for _, pipeline in world.closed] == [s.pipeline for s in opened]
    for _ in range(8):
        world.open(("w0", 5))


def test_finishing_replica_ends_what_it_has_and_takes_nothing_new(
    world: World, oracle: list[int]
) -> None:
    world.add_worker("w0")
    spec = world.open(("w0", 5))
    world.submit(spec, "story", (1,), max_tokens=30)
    world.run(5)
    world.close(spec, finish=True)
    world.submit(spec, "late", (1,))
    assert world.returned == ["late"]
    assert not world.closed
    world.run()
    assert world.clients[STORY].tokens == oracle[:30]
    assert world.closed == [("w0", spec.pipeline)]


def test_cancelled_sequence_ends_and_others_go_on(
    world: World, oracle: list[int]
) -> None:
    world.add_worker("w0")
    spec = world.open(("w0", 5))
    world.submit(spec, "story", (1,), max_tokens=60)
    world.submit(spec, "unwanted", (1,), max_tokens=60)
    world.run(9)
    world.hosts[WorkerId("w0")].cancel(SequenceId("unwanted"))
    world.run()
    assert world.clients[SequenceId("unwanted")].finish_reason == "cancelled"
    assert len(world.clients[SequenceId("unwanted")].tokens) < 60
    assert world.clients[STORY].tokens == oracle[:60]


@pytest.mark.parametrize("damage", ["batch", "activations", "results"])
def test_rubbish_from_a_stage_breaks_its_pipeline_and_no_other(
    world: World, oracle: list[int], damage: str
) -> None:
    for worker in ("w0", "w1"):
        world.add_worker(worker)
    spec = world.open(("w1", 2), ("w0", 3))
    other = world.open(("w0", 5))
    world.submit(spec, "hurt", (1,))
    world.submit(other, "story", (1,), max_tokens=30)
    world.hosts[WorkerId("w1")].run_one()
    wire = world.wires[("w1", "w0")]
    header, payload = wire.popleft()
    if damage == "batch":
        wire.append((header, b"x" + payload[1:]))
    elif damage == "activations":
        wire.append((header, payload[:-1]))
    else:
        sampled = Sampled(spec.pipeline, BatchId(0), (1, 2, 3), (0.0,) * 3)
        world.hosts[WorkerId("w1")].take(sampled, memoryview(b""))
    world.run()
    assert world.returned == ["hurt"]
    assert {("w0", spec.pipeline), ("w1", spec.pipeline)} == set(world.closed)
    assert world.clients[STORY].tokens == oracle[:30]


def test_message_for_a_closed_pipeline_is_dropped(world: World) -> None:
    for worker in ("w0", "w1"):
        world.add_worker(worker)
    spec = world.open(("w1", 2), ("w0", 3))
    world.submit(spec, "story", (1,))
    world.hosts[WorkerId("w1")].run_one()
    assert world.wires[("w1", "w0")]
    world.hosts[WorkerId("w0")].close(spec.pipeline, "gone here first")
    world.run()
    assert world.clients[STORY].tokens == []
    assert world.returned == []


def test_what_waits_for_the_same_blocks_is_run_in_one_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = expected_alone(world)
    for worker in ("w0", "w1", "w2"):
        world.add_worker(worker)
    source = world.hosts[WorkerId("w0")]
    rows = count_rows(world, "w0", monkeypatch)
    for target in ("w1", "w2"):
        spec = world.open((target, 2), ("w0", 3))
        for name, prompt in PROMPTS.items():
            world.submit(spec, f"{name}-{target}", prompt)
        for host in (WorkerId(target),):
            while world.hosts[host].run_one():
                pass
    for wire, queue in list(world.wires.items()):
        while queue:
            world._arrive(wire, queue)
    waiting = sum(len(each.waiting) for each in source._pipelines.values())
    assert waiting >= 2
    source.run_one()
    assert len(rows) == 1
    assert not any(each.waiting for each in source._pipelines.values())
    world.run()
    for name in PROMPTS:
        for target in ("w1", "w2"):
            tokens = world.clients[SequenceId(f"{name}-{target}")].tokens
            assert tokens == expected[name]
