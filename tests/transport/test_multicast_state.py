"""The decisions of a member, alone and in whole parties, without any transport."""

import collections
import dataclasses
import random

import pytest

from jscale.plan import PLAN_KINDS, multicast
from jscale.transport.multicast_state import (
    ASKS_PER_CHUNK_MAX,
    Announce,
    Ask,
    MulticastState,
    WriteChunk,
)

NOTHING = b""


def bitmap(chunks, num_chunks):
    bits = bytearray(-(-num_chunks // 8))
    for chunk in chunks:
        bits[chunk // 8] |= 1 << chunk % 8
    return bytes(bits)


def everything(num_chunks):
    return bitmap(range(num_chunks), num_chunks)


def actions(state):
    found = []
    while (action := state.next_action()) is not None:
        found.append(action)
    return found


def chain_source(num_chunks=3):
    return MulticastState(multicast(1, 2, num_chunks, kind="chain"), "w0", b"\xff")


def chain_middle(num_chunks=3):
    return MulticastState(multicast(1, 2, num_chunks, kind="chain"), "w1", NOTHING)


def test_nothing_is_sent_to_who_has_not_said_that_it_is_ready():
    state = chain_source()
    state.connected("w1")
    assert actions(state) == [Announce("w1")]
    state.announced("w1", NOTHING)
    assert actions(state) == [WriteChunk("w1", chunk) for chunk in range(3)]
    assert state.is_over


def test_members_know_whom_they_need():
    plan = multicast(1, 4, 1, kind="chain")
    peers = [MulticastState(plan, member, NOTHING).peers for member in plan.members]
    assert peers[0] == {"w1", "w2", "w3", "w4"}
    assert peers[1] == {"w0", "w2"}
    assert peers[3] == {"w0", "w2", "w4"}


def test_what_the_target_holds_is_not_sent():
    state = chain_source()
    state.announced("w1", bitmap([0, 2], 3))
    assert actions(state) == [WriteChunk("w1", 1)]


def test_a_chunk_is_passed_on_when_it_lands():
    state = chain_middle()
    state.announced("w2", NOTHING)
    assert actions(state) == []
    state.landed(1)
    assert actions(state) == [WriteChunk("w2", 1)]
    state.landed(0)
    state.landed(2)
    assert actions(state) == [WriteChunk("w2", 0), WriteChunk("w2", 2)]
    assert state.is_over


def test_sends_go_in_the_order_of_the_plan():
    state = chain_middle()
    for chunk in (2, 0, 1):
        state.landed(chunk)
    state.announced("w2", NOTHING)
    assert actions(state) == [WriteChunk("w2", chunk) for chunk in range(3)]


def test_a_damaged_chunk_is_asked_of_the_source():
    plan = multicast(1, 3, 1, kind="chain")
    state = MulticastState(plan, "w2", NOTHING)
    for peer in ("w0", "w1", "w3"):
        state.connected(peer)
    actions(state)
    state.failed("w1", 0)
    assert actions(state) == [Ask("w0", 0)]


def test_a_damaged_chunk_is_asked_of_its_sender_if_the_source_is_not_connected():
    plan = multicast(1, 3, 1, kind="chain")
    state = MulticastState(plan, "w2", NOTHING)
    state.connected("w1")
    actions(state)
    state.failed("w1", 0)
    assert actions(state) == [Ask("w1", 0)]


def test_a_chunk_that_is_always_damaged_is_given_up():
    state = chain_middle(num_chunks=1)
    state.connected("w0")
    state.announced("w2", NOTHING)
    for _ in range(ASKS_PER_CHUNK_MAX + 1):
        assert not state.is_over
        actions(state)
        state.failed("w0", 0)
    assert actions(state) == []
    assert state.is_over
    assert state.num_missing == 1


def test_an_asked_chunk_goes_first():
    state = chain_source()
    state.announced("w1", NOTHING)
    assert state.next_action() == WriteChunk("w1", 0)
    state.asked("w1", 0)
    assert actions(state)[:2] == [WriteChunk("w1", 0), WriteChunk("w1", 1)]


def test_a_question_about_a_chunk_that_does_not_exist_is_ignored():
    state = chain_source()
    state.asked("w1", 3)
    state.asked("w1", -1)
    assert actions(state) == []


def test_nothing_goes_to_a_lost_peer():
    state = chain_source()
    state.connected("w1")
    state.announced("w1", NOTHING)
    state.lost("w1")
    state.announced("w1", NOTHING)
    state.asked("w1", 0)
    assert actions(state) == []
    assert state.is_over
    assert state.lost_peers == {"w1"}


def test_what_a_lost_peer_owed_is_asked_of_the_source():
    plan = multicast(1, 3, 2, kind="chain")
    state = MulticastState(plan, "w2", bitmap([0], 2))
    for peer in ("w0", "w1", "w3"):
        state.connected(peer)
    actions(state)
    state.lost("w1")
    assert actions(state) == [Ask("w0", 1)]


def test_without_anyone_to_ask_the_part_is_over():
    state = chain_middle()
    state.connected("w0")
    state.announced("w2", NOTHING)
    state.landed(0)
    state.lost("w0")
    assert actions(state) == [WriteChunk("w2", 0)]
    assert state.is_over
    assert state.num_missing == 2


def test_a_dropped_chunk_is_fetched_again():
    state = chain_middle()
    state.connected("w0")
    actions(state)
    state.landed(1)
    state.dropped([0, 1])
    assert state.num_missing == 3
    assert not state.holds(1)
    assert actions(state) == [Ask("w0", 1)]


class Party:
    """Every member's state, and frames on the way between them, in order by pair."""

    def __init__(self, plan, rng, *, held=(), full_mesh=True, damage=0.0):
        self.rng = rng
        self.plan = plan
        self.damage = damage
        self.writes = collections.Counter()
        self.states = {}
        self.frames = collections.defaultdict(collections.deque)
        for member in plan.members:
            chunks = range(plan.num_chunks) if member == plan.source else held
            bits = bitmap(chunks, plan.num_chunks)
            self.states[member] = MulticastState(plan, member, bits)
        for member, state in self.states.items():
            others = set(plan.members) - {member} if full_mesh else state.peers
            for other in sorted(others):
                state.connected(other)

    def run(self, kill=None, kill_at=0):
        """Random turns until nobody has anything left to do."""
        awake = set(self.states)
        turn = 0
        while moves := sorted(awake) + self._busy():
            move = self.rng.choice(moves)
            if turn == kill_at and kill is not None:
                self._kill(kill)
                awake = set(self.states)
            elif isinstance(move, tuple):
                self._deliver(*move)
                awake.add(move[1])
            elif not self._act(move):
                awake.remove(move)
            turn += 1

    def _busy(self):
        return sorted(pair for pair, frames in self.frames.items() if frames)

    def _act(self, member):
        action = self.states[member].next_action()
        if action is None:
            return False
        if isinstance(action, WriteChunk):
            assert self.states[member].holds(action.chunk)
            self.writes[action.peer, action.chunk] += 1
        if action.peer in self.states:
            self.frames[member, action.peer].append(action)
        return True

    def _deliver(self, source, target):
        action = self.frames[source, target].popleft()
        state = self.states[target]
        match action:
            case Announce():
                held = [c for c in range(self.plan.num_chunks) if self._has(source, c)]
                state.announced(source, bitmap(held, self.plan.num_chunks))
            case Ask(_, chunk):
                state.asked(source, chunk)
            case WriteChunk(_, chunk) if self.rng.random() < self.damage:
                state.failed(source, chunk)
            case WriteChunk(_, chunk):
                state.landed(chunk)

    def _has(self, member, chunk):
        return self.states[member].holds(chunk)

    def _kill(self, member):
        del self.states[member]
        for pair in [pair for pair in self.frames if member in pair]:
            del self.frames[pair]
        for state in self.states.values():
            state.lost(member)

    def check_complete(self):
        for member, state in self.states.items():
            assert state.num_missing == 0, member
            assert state.is_over, member


def kinds_for(num_members):
    is_power = num_members & (num_members - 1) == 0
    return [kind for kind in PLAN_KINDS if kind != "hypercube" or is_power]


CASES = [
    (kind, num_members, num_chunks)
    for num_members in (2, 3, 4, 5, 7, 8, 9)
    for kind in kinds_for(num_members)
    for num_chunks in (1, 2, 7)
]


@pytest.mark.parametrize(("kind", "num_members", "num_chunks"), CASES)
def test_every_chunk_is_sent_once_whatever_the_order_of_events(
    kind, num_members, num_chunks
):
    plan = multicast(1, num_members - 1, num_chunks, kind=kind)
    for seed in range(3):
        party = Party(plan, random.Random(seed), full_mesh=False)
        party.run()
        party.check_complete()
        assert set(party.writes.values()) == {1}
        assert len(party.writes) == (num_members - 1) * num_chunks


@pytest.mark.parametrize("seed", range(60))
def test_survivors_complete_though_a_target_dies_and_chunks_are_damaged(seed):
    rng = random.Random(seed)
    num_members, num_chunks = rng.randint(2, 9), rng.randint(1, 12)
    kind = rng.choice(kinds_for(num_members))
    plan = multicast(1, num_members - 1, num_chunks, kind=kind)
    held = rng.sample(range(num_chunks), rng.randint(0, num_chunks))
    party = Party(plan, rng, held=held, damage=0.05)
    party.run(kill=rng.choice(plan.members[1:]), kill_at=rng.randint(0, 200))
    party.check_complete()


def test_a_source_that_lacks_what_leads_is_sent_it_before_it_sends_it_on():
    plan = multicast(2, 2, 6, num_leading=2)
    serving, reading = plan.sources
    plan = dataclasses.replace(plan, lacking=(reading,))
    (target,) = (t for t in plan.subgroups[1].targets)
    state = MulticastState(plan, reading, NOTHING)
    helper = MulticastState(plan, serving, everything(6))
    assert serving in state.peers
    assert reading in helper.peers
    for peer in (serving, target):
        state.connected(peer)
    assert actions(state) == [Announce(serving), Announce(target)]
    state.announced(target, NOTHING)
    state.announced(serving, everything(6))
    assert actions(state) == [Ask(serving, 0), Ask(serving, 1)]
    assert not state.is_over
    for chunk in range(6):
        state.landed(chunk)
        assert actions(state) == [WriteChunk(target, chunk)]
    assert state.is_over


def test_what_was_to_come_by_other_means_is_asked_for_if_it_does_not():
    state = chain_middle()
    for peer in ("w0", "w2"):
        state.connected(peer)
    actions(state)
    state.landed(1)  # From its disk.
    state.missed(1)  # Nothing is missing.
    state.missed(2)
    assert actions(state) == [Ask("w0", 2)]
    alone = chain_source()
    alone.missed(0)
    assert actions(alone) == []
