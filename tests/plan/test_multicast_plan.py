"""What every kind of multicast plan promises, by delivering chunk after chunk."""

import pytest

from jscale.plan.kinds import PLAN_KINDS, multicast
from jscale.plan.multicast_plan import MulticastPlan


def deliver(plan: MulticastPlan) -> None:
    """Carries out a plan step by step; an assertion fails where it breaks a promise."""
    num_members, num_chunks = plan.num_members, plan.num_chunks
    held = [set(range(num_chunks))] + [set() for _ in range(num_members - 1)]
    for step in range(plan.num_steps):
        sent, received = {}, {}
        for index in range(num_members):
            out = plan.outgoing_at(index, step)
            if out is not None:
                target, chunk = out
                assert target not in sent, f"step {step}: two send to {target}"
                sent[target] = (index, chunk)
                assert chunk in held[index], f"step {step}: {index} lacks {chunk}"
            incoming = plan.incoming_at(index, step)
            if incoming is not None:
                received[index] = incoming
        assert sent == received, f"step {step}: sends and receives differ"
        for target, (_, chunk) in sent.items():
            assert chunk not in held[target], f"step {step}: {target} had {chunk}"
            held[target].add(chunk)
    assert all(len(chunks) == num_chunks for chunks in held), "someone lacks a chunk"


def kinds_for(num_members: int) -> list[str]:
    power_of_two = num_members & (num_members - 1) == 0
    return [kind for kind in PLAN_KINDS if power_of_two or kind != "hypercube"]


@pytest.mark.parametrize("kind", PLAN_KINDS)
def test_every_target_receives_each_chunk_once_from_one_who_holds_it(kind):
    for num_members in range(2, 18):
        if kind not in kinds_for(num_members):
            continue
        for num_chunks in (*range(1, 12), 33):
            deliver(multicast(1, num_members - 1, num_chunks, kind=kind))
