"""Members that go on by another plan: somebody was lost, or came late."""

import threading

import pytest

from jscale.core.ids import PlanId
from tests.transport.party import (
    CHUNK_SIZE_BYTES,
    NUM_CHUNKS,
    PATIENCE_S,
    PLAN,
    plan_for,
)


@pytest.mark.parametrize("kind", ["binomial", "chain"])
def test_the_others_go_on_by_another_plan_when_one_is_lost(party, kind):
    peers = party(5)
    lost = peers[2]
    all_have_joined = threading.Event()

    def leave(chunk):
        if len(lost.landed_chunks) == 9:
            all_have_joined.wait(PATIENCE_S)
            lost.transport.close()

    lost.on_chunk = leave
    for peer in peers:
        peer.join(plan_for(peers, kind))
    all_have_joined.set()
    assert peers[0].peers_lost.get(timeout=PATIENCE_S) == lost.name
    rest = [peer for peer in peers if peer is not lost]
    for peer in rest:
        peer.follow(plan_for(rest), PlanId(4))
    for peer in rest:
        while (outcome := peer.outcome()).plan != 4:
            pass
        assert outcome.num_missing == 0
        assert outcome.lost_peers == frozenset()
        assert peer.memory.digest() == peers[0].memory.digest()
        assert len(peer.landed_chunks) == len(set(peer.landed_chunks))


def test_a_lost_peer_stays_lost_in_a_plan_that_does_not_know_it_yet(party):
    peers = party(3)
    lost = peers[1]
    lost.transport.close()
    for peer in (peers[0], peers[2]):
        peer.join(plan_for(peers, "chain"))
        peer.member.unreachable(lost.name)
    assert peers[2].outcome().num_missing == 0
    for peer in (peers[0], peers[2]):
        peer.follow(plan_for(peers, "chain"), PlanId(4))
    while (outcome := peers[0].outcome()).plan != 4:
        pass
    assert outcome.lost_peers == {lost.name}


def test_one_who_comes_when_the_others_are_done_is_served_by_the_next_plan(party):
    peers = party(4)
    early = peers[:3]
    for peer in early:
        peer.join(plan_for(early))
    for peer in early:
        assert peer.outcome().num_missing == 0
    for peer in early:
        peer.follow(plan_for(peers), PlanId(4))
    peers[3].join(plan_for(peers), PlanId(4))
    for peer in peers:
        assert (peer.outcome().plan, peer.member.num_missing) == (4, 0)
    assert peers[3].memory.digest() == peers[0].memory.digest()


def test_what_arrives_while_another_plan_follows_counts_as_held(party):
    peers = party(2)
    source, target = peers
    target.join(plan_for(peers), stall_timeout_s=60.0)
    connection = target.router.connections[0]
    slot = target.member.slot(connection, 5)
    told = threading.Event()
    source.announced = lambda _, plan, held: plan == 4 and held[0] == 32 and told.set()
    target.follow(plan_for(peers), PlanId(4))
    assert told.wait(PATIENCE_S)
    # It lands by the plan that follows, as if it had come by that one.
    slot[:] = bytes(CHUNK_SIZE_BYTES)
    assert target.router.landing(PLAN) is target.member
    target.router.landing(PLAN).landed(connection, 5)
    assert target.member.num_missing == NUM_CHUNKS - 1
    assert target.landed_chunks == [5]
