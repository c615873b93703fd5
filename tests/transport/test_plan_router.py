from jscale.plan import multicast
from jscale.transport.plan_router import EARLY_PLANS_MAX, PlanRouter


class FakeConnection:
    def __init__(self, peer):
        self.peer = peer


class FakeMember:
    """Notes what it is told."""

    def __init__(self, plan_id=1, members=("w0", "w1")):
        self.plan_id = plan_id
        self.members = frozenset(members)
        self.told = []

    def follow(self, plan_id, plan):
        self.plan_id = plan_id
        self.members = frozenset(plan.members)
        self.told.append(("follow", plan_id))

    def attach(self, connection):
        self.told.append(("attach", connection.peer))

    def announced(self, connection, held):
        self.told.append(("announced", connection.peer, held))

    def asked(self, connection, chunk):
        self.told.append(("asked", connection.peer, chunk))

    def lost(self, connection):
        self.told.append(("lost", connection.peer))


def test_a_connection_that_comes_first_is_attached():
    router, member = PlanRouter(), FakeMember()
    router.opened(FakeConnection("w1"))
    router.add(member)
    assert member.told == [("attach", "w1")]


def test_a_connection_that_comes_last_is_attached():
    router, member = PlanRouter(), FakeMember()
    router.add(member)
    router.opened(FakeConnection("w1"))
    assert member.told == [("attach", "w1")]


def test_connections_to_others_are_not_attached():
    router, member = PlanRouter(), FakeMember()
    router.opened(FakeConnection("w7"))
    router.add(member)
    router.opened(FakeConnection("w8"))
    assert member.told == []


def test_what_was_announced_too_early_is_told_later():
    router, member = PlanRouter(), FakeMember()
    router.announced(FakeConnection("w1"), 1, b"\x01")
    router.add(member)
    router.announced(FakeConnection("w1"), 1, b"\x03")
    assert member.told == [("announced", "w1", b"\x01"), ("announced", "w1", b"\x03")]


def test_what_was_asked_too_early_is_told_after_what_was_announced():
    router, member = PlanRouter(), FakeMember()
    connection = FakeConnection("w1")
    router.announced(connection, 1, b"\x01")
    router.asked(connection, 1, 5)
    router.add(member)
    assert member.told == [("announced", "w1", b"\x01"), ("asked", "w1", 5)]


def test_what_a_lost_peer_announced_is_forgotten():
    router, member = PlanRouter(), FakeMember()
    connection = FakeConnection("w1")
    router.opened(connection)
    router.announced(connection, 1, b"\x01")
    router.lost(connection)
    router.add(member)
    assert member.told == []


def test_early_announcements_are_bounded():
    router = PlanRouter()
    for plan in range(EARLY_PLANS_MAX + 1):
        router.announced(FakeConnection("w1"), plan, b"")
    oldest, newest = FakeMember(0), FakeMember(EARLY_PLANS_MAX)
    router.add(oldest)
    router.add(newest)
    assert oldest.told == []
    assert newest.told == [("announced", "w1", b"")]


def test_frames_go_to_the_member_of_their_plan_until_it_is_removed():
    router, first, second = PlanRouter(), FakeMember(1), FakeMember(2)
    router.add(first)
    router.add(second)
    connection = FakeConnection("w1")
    router.asked(connection, 2, 5)
    assert (first.told, second.told) == ([], [("asked", "w1", 5)])
    assert router.landing(2) is second
    router.remove(2)
    assert router.landing(2) is None
    router.asked(connection, 2, 6)
    router.lost(connection)
    assert second.told == [("asked", "w1", 5)]
    assert first.told == [("lost", "w1")]


def test_chunks_of_a_plan_that_another_followed_still_land():
    router, member = PlanRouter(), FakeMember(1)
    connections = [FakeConnection("w1"), FakeConnection("w2")]
    for connection in connections:
        router.opened(connection)
    router.add(member)
    router.announced(connections[1], 2, b"\x01")
    member.told.clear()
    router.follow(member, 2, multicast(["w0"], ["w2"], 8))
    assert member.told == [
        ("follow", 2),
        ("attach", "w2"),
        ("announced", "w2", b"\x01"),
    ]
    assert router.landing(1) is router.landing(2) is member
    member.told.clear()
    router.announced(connections[1], 1, b"")
    router.asked(connections[1], 1, 3)
    assert member.told == []
    router.asked(connections[1], 2, 3)
    assert member.told == [("asked", "w2", 3)]
    router.remove(2)
    assert router.landing(1) is router.landing(2) is None
