"""What every kind of multicast plan promises, by delivering chunk after chunk."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.plan.kinds import PLAN_KINDS, multicast
from tests.plan.delivery import deliver


def suits(kind, num_members):
    return kind != "hypercube" or num_members & (num_members - 1) == 0


@pytest.mark.parametrize("kind", PLAN_KINDS)
def test_every_target_receives_each_chunk_once_from_one_who_holds_it(kind):
    for num_members in range(2, 21):
        if suits(kind, num_members):
            for num_chunks in range(1, 65 if kind == "binomial" else 25):
                deliver(multicast(1, num_members - 1, num_chunks, kind=kind))


@pytest.mark.parametrize("kind", PLAN_KINDS)
def test_so_it_does_up_to_64_members(kind):
    for num_members in range(21, 65):
        if suits(kind, num_members):
            every = kind == "binomial"
            for num_chunks in range(1, 65) if every else (1, 11):
                deliver(multicast(1, num_members - 1, num_chunks, kind=kind))


@given(st.integers(2, 4096), st.integers(1, 30), st.sampled_from(sorted(PLAN_KINDS)))
@settings(deadline=None, max_examples=12)
def test_so_it_does_for_any_number_of_members(num_members, num_chunks, kind):
    if kind in ("chain", "flat", "scatter"):
        num_members = min(num_members, 200)  # as many steps as members
    if kind == "hypercube":
        num_members = 1 << num_members.bit_length() - 1
    deliver(multicast(1, num_members - 1, num_chunks, kind=kind))


@pytest.mark.parametrize("kind", sorted(set(PLAN_KINDS) - {"hypercube"}))
def test_a_member_of_many_asks_about_no_step_that_is_not_its_own(kind, monkeypatch):
    plan = multicast(3, 9000, 4, kind=kind)
    asked = []
    for part in {type(each) for each in plan.subgroups}:
        for name in ("incoming_at", "outgoing_at"):
            original = getattr(part, name)

            def counted(self, index, step, original=original):
                asked.append(step)
                return original(self, index, step)

            monkeypatch.setattr(part, name, counted)
    for index in (3, 4000, plan.num_members - 1):
        assert len(list(plan.receives_of(index))) == 4
        assert len(list(plan.sends_of(index))) <= 4 * 2 + 12
    assert len(asked) <= 3 * 4 * (4 + 12)


def test_steps_of_each_kind():
    steps = {
        kind: [multicast(1, n - 1, 64, kind=kind).num_steps for n in (2, 4, 8, 32)]
        for kind in PLAN_KINDS
    }
    assert steps == {
        "binomial": [64, 65, 66, 68],
        "hypercube": [64, 65, 66, 68],
        "chain": [64, 66, 70, 94],
        "flat": [64, 192, 448, 1984],
        "scatter": [64, 96, 112, 124],
        "tree": [64, 128, 130, 134],
    }


def test_paper_hypercube_members_send_the_newest_chunk_they_hold():
    """λScale, arXiv 2502.09922, section 4.2; RDMC, DSN 2018: told by simulation."""
    for num_dimensions in range(1, 6):
        num_members = 2**num_dimensions
        for num_chunks in range(1, 20):
            plan = multicast(1, num_members - 1, num_chunks, kind="hypercube")
            held = [{*range(num_chunks)}] + [set() for _ in plan.members[1:]]
            for step in range(plan.num_steps):
                sent = {}
                for index in range(num_members):
                    target = index ^ 1 << step % num_dimensions
                    newest = max(held[index], default=None)
                    if index == 0:
                        newest = min(step, num_chunks - 1)
                    if newest is not None and target != 0:
                        sent[index] = (target, newest)
                for index in range(num_members):
                    assert plan.outgoing_at(index, step) == sent.get(index)
                for target, chunk in sent.values():
                    held[target].add(chunk)


@pytest.mark.parametrize("kind", PLAN_KINDS)
def test_transfers_name_workers_and_come_in_order(kind):
    plan = multicast([WorkerId("a")], [WorkerId(x) for x in "bcd"], 5, kind=kind)
    sends = [t for member in plan.members for t in plan.sends(member)]
    receives = [t for member in plan.members for t in plan.receives(member)]
    assert sorted(sends) == sorted(receives)
    assert len(sends) == 3 * 5
    assert all(t.source != t.target for t in sends)
    assert not list(plan.receives(plan.source))
    for member in plan.members:
        steps = [t.step for t in plan.sends(member)]
        assert steps == sorted(set(steps))


def test_equal_arguments_give_equal_plans():
    assert multicast(1, 3, 8) == multicast([WorkerId("w0")], ["w1", "w2", "w3"], 8)
    assert multicast(1, 3, 8) != multicast(1, 3, 8, kind="chain")
    with pytest.raises(dataclasses.FrozenInstanceError):
        multicast(1, 3, 8).num_chunks = 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "star"}, "'star' is unknown: choose one of binomial, chain, flat"),
        ({"sources": 0}, r"from \[\] to \['w0'\]: name at least one source"),
        ({"targets": 0}, "at least one target"),
        ({"targets": -1}, "at least one target"),
        ({"targets": ["w0"]}, r"\['w0'\] named twice"),
        ({"num_chunks": 0}, "multicast of 0 chunks: give at least 1"),
        ({"targets": 5, "kind": "hypercube"}, "6 members: needs a power of two"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_a_reason(arguments, message):
    with pytest.raises(ConfigError, match=message):
        multicast(**arguments)


def test_a_stranger_is_told_so():
    with pytest.raises(ConfigError, match="w9 is no member"):
        multicast(1, 3, 8).outgoing(WorkerId("w9"), 0)


def test_a_short_plan_is_described_step_by_step():
    assert (
        multicast(1, 3, 3).describe()
        == """\
binomial multicast of 3 chunks to 3 targets
  members  4: w0 sends to w1 … w3
  chunks   3: 9 transfers
  steps    4: the least possible
  bound    1.333 × size / link rate until every target is complete

  step  w0    w1    w2    w3
     0  0→w1  ·     ·     ·
     1  1→w2  0→w3  ·     ·
     2  2→w1  0→w2  1→w3  ·
     3  2→w2  2→w3  ·     1→w1"""
    )


def test_a_long_wide_plan_is_described_by_its_corners():
    lines = multicast(1, 19, 64, kind="chain").describe().splitlines()
    assert lines[3] == "  steps    82: 14 over the least, 68"
    assert lines[6].endswith("w7  +12 more")
    assert lines[7].split() == ["0", "0→w1", *"·······", "0", "sends"]
    assert lines[13].strip() == "⋮"
    assert lines[-1].split() == ["81", *"········", "1", "sends"]
