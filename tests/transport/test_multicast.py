"""Members of a multicast over real connections, for each scheme."""

import threading

import pytest

from jscale.core.ids import PlanId
from jscale.transport.chunk_memory import ChunkMemory
from tests.transport.party import (
    CHUNK_SIZE_BYTES,
    NUM_CHUNKS,
    PATIENCE_S,
    PLAN,
    Peer,
    plan_for,
)


@pytest.mark.parametrize("num_members", [2, 3, 5, 8])
def test_every_member_ends_with_the_bytes_of_the_source(party, num_members):
    peers = party(num_members)
    for peer in peers:
        peer.join(plan_for(peers))
    for peer in peers:
        outcome = peer.outcome()
        assert (outcome.plan, outcome.num_missing, outcome.reason) == (PLAN, 0, "")
        assert peer.memory.digest() == peers[0].memory.digest()
    for peer in peers[1:]:
        assert sorted(peer.landed_chunks) == list(range(NUM_CHUNKS))
        assert peer.regions == [0]
        assert peer.outcomes.empty()


@pytest.mark.parametrize("kind", ["chain", "tree", "hypercube"])
def test_any_kind_of_plan_will_do(party, kind):
    peers = party(4)
    for peer in peers:
        peer.join(plan_for(peers, kind))
    for peer in peers:
        assert peer.outcome().num_missing == 0
        assert peer.memory.digest() == peers[0].memory.digest()


def test_a_member_may_hear_of_the_plan_last(party):
    peers = party(3)
    for peer in (peers[1], peers[2], peers[0]):
        peer.join(plan_for(peers))
    for peer in peers:
        assert peer.outcome().num_missing == 0


def test_a_member_may_be_connected_last(net, party):
    peers = party(1)
    peers.append(Peer(net, "w1"))
    for peer in peers:
        peer.join(plan_for(peers))
    peers[1].connect(peers[0])
    for peer in peers:
        assert peer.outcome().num_missing == 0
    peers[1].member.close()


def test_held_chunks_are_not_sent_again(party):
    peers = party(3)
    peers[1].memory.copy(peers[0].memory, range(0, NUM_CHUNKS, 2))
    peers[2].memory.copy(peers[0].memory, range(NUM_CHUNKS))
    for peer in peers:
        peer.join(plan_for(peers))
    for peer in peers:
        assert peer.outcome().num_missing == 0
    assert sorted(peers[1].landed_chunks) == list(range(1, NUM_CHUNKS, 2))
    assert peers[2].landed_chunks == []


def test_damaged_chunks_are_sent_again(party, lying_checksum):
    peers = party(4, checksum=lying_checksum(0, 3, 7, 20, 50))
    for peer in peers:
        peer.join(plan_for(peers))
    for peer in peers:
        assert peer.outcome().num_missing == 0
        assert peer.memory.digest() == peers[0].memory.digest()


def test_a_chunk_that_always_comes_damaged_is_given_up(party, lying_checksum):
    peers = party(2, checksum=lying_checksum(*range(10_000)))
    plan = plan_for(peers)
    peers[1].join(plan, stall_timeout_s=1.0)
    peers[0].join(plan, stall_timeout_s=1.0)
    outcome = peers[1].outcome()
    assert outcome.num_missing == NUM_CHUNKS
    assert outcome.reason


def test_a_dropped_block_is_fetched_again_from_who_has_finished(party):
    peers = party(3)
    for peer in peers:
        peer.join(plan_for(peers))
    for peer in peers:
        peer.outcome()
    peers[2].memory.cut(CHUNK_SIZE_BYTES)
    again = threading.Event()
    left = set(range(NUM_CHUNKS))

    def count(chunk):
        left.discard(chunk)
        if not left:
            again.set()

    peers[2].on_chunk = count
    peers[2].member.drop(range(NUM_CHUNKS))
    assert again.wait(PATIENCE_S)
    assert peers[2].memory.digest() == peers[0].memory.digest()


@pytest.mark.parametrize("kind", ["binomial", "chain", "tree"])
def test_the_others_complete_when_a_target_is_lost(party, kind):
    peers = party(5)
    lost = peers[2]
    all_have_joined = threading.Event()

    def leave(chunk):
        if len(lost.landed_chunks) > 3:
            all_have_joined.wait(PATIENCE_S)
            lost.transport.close()

    lost.on_chunk = leave
    for peer in peers:
        peer.join(plan_for(peers, kind))
    all_have_joined.set()
    for peer in peers:
        if peer is not lost:
            outcome = peer.outcome()
            assert outcome.num_missing == 0, outcome
            assert peer.memory.digest() == peers[0].memory.digest()


def test_the_others_complete_without_a_target_that_cannot_be_reached(party):
    peers = party(4)
    peers[2].transport.close()
    rest = [peer for peer in peers if peer is not peers[2]]
    for peer in rest:
        peer.join(plan_for(peers))
        peer.member.unreachable(peers[2].name)
    for peer in rest:
        assert peer.outcome().num_missing == 0
        assert peer.peers_lost.get(timeout=PATIENCE_S) == "w2"
        assert peer.peers_lost.empty()


def test_a_lost_source_ends_the_part_with_what_is_missing(party):
    peers = party(2)
    source, target = peers
    whole = ChunkMemory(NUM_CHUNKS * CHUNK_SIZE_BYTES, CHUNK_SIZE_BYTES)
    source.memory.cut(CHUNK_SIZE_BYTES)
    source.memory.copy(whole, range(10))
    all_that_comes = threading.Barrier(2, timeout=PATIENCE_S)
    target.on_chunk = lambda chunk: chunk == 9 and all_that_comes.wait()
    for peer in peers:
        peer.join(plan_for(peers))
    all_that_comes.wait()
    source.transport.close()
    outcome = target.outcome()
    assert outcome.num_missing == target.member.num_missing == NUM_CHUNKS - 10
    assert outcome.lost_peers == {"w0"}
    assert outcome.reason == "nobody who holds them is left"
    assert target.peers_lost.get(timeout=PATIENCE_S) == "w0"


def test_a_member_whose_peers_never_come_gives_up(party):
    peers = party(2)
    peers[1].join(plan_for(peers), stall_timeout_s=0.1)
    outcome = peers[1].outcome()
    assert outcome.num_missing == NUM_CHUNKS
    assert outcome.reason == "nothing moved for 0.1 s"


def test_a_second_plan_brings_what_the_first_did_not(party):
    peers = party(4)
    lost = peers[1]
    all_have_joined = threading.Event()

    def leave(chunk):
        if chunk == 2:
            all_have_joined.wait(PATIENCE_S)
            lost.transport.close()

    lost.on_chunk = leave
    for peer in peers:
        peer.join(plan_for(peers, "chain"))
    all_have_joined.set()
    rest = [peer for peer in peers if peer is not lost]
    for peer in rest:
        assert (
            peer.peers_lost.get(timeout=PATIENCE_S) == lost.name
            if peer
            in (
                peers[0],
                peers[2],
            )
            else True
        )
        peer.member.close()
        peer.router.remove(PLAN)
        assert peer.outcome().plan == PLAN
    for peer in rest:
        peer.join(plan_for(rest), PlanId(4))
    for peer in rest:
        assert peer.outcome().num_missing == 0
        assert peer.memory.digest() == peers[0].memory.digest()
        assert len(peer.landed_chunks) == len(set(peer.landed_chunks))


def test_closing_a_member_cancels_it(party):
    peers = party(2)
    stopped = threading.Event()
    peers[1].on_chunk = lambda chunk: chunk == 3 and stopped.set()
    for peer in peers:
        peer.join(plan_for(peers), stall_timeout_s=60.0)
    assert stopped.wait(PATIENCE_S)
    for peer in peers:
        peer.member.close()
        peer.member.close()
    outcome = peers[1].outcome()
    if outcome.num_missing:
        assert outcome.reason == "it was cancelled"
    # Nothing of it touches the memory any more.
    assert peers[1].member.slot(None, 0) is None


def test_closing_cuts_off_a_peer_that_never_finishes_its_chunk(party):
    peers = party(2)
    peers[1].join(plan_for(peers))
    connection = peers[1].router.connections[0]
    assert peers[1].member.slot(connection, 0) is not None
    closed = []
    connection.close = lambda: closed.append(True)
    peers[1].member.close()
    assert closed
    peers[1].member.failed(connection, 0)
    del connection.close


def test_a_chunk_that_the_plan_does_not_have_ends_the_connection(party):
    peers = party(2)
    peers[1].join(plan_for(peers))
    connection = peers[0].router.connections[0]
    connection.write_chunk(PLAN, NUM_CHUNKS, memoryview(bytes(CHUNK_SIZE_BYTES)))
    assert peers[1].peers_lost.get(timeout=PATIENCE_S) == "w0"
