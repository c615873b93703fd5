"""The binomial plan: optimal for any number of members, each working alone."""

import random

import pytest

from jscale.plan.binomial import BinomialPlan, receive_schedule, skips_of
from jscale.plan.kinds import multicast
from tests.plan.optimum import fewest_steps


@pytest.mark.parametrize(
    ("num_members", "num_chunks"),
    [(2, 1), (2, 3), (3, 1), (3, 2), (3, 3), (4, 1), (4, 2), (5, 1)],
)
def test_no_plan_whatever_needs_fewer_steps(num_members, num_chunks):
    plan = multicast(1, num_members - 1, num_chunks)
    nothing = [()] * (num_members - 1)
    assert plan.num_steps == fewest_steps(1, nothing, num_chunks)


@pytest.mark.parametrize("num_members", [*range(2, 65)])
def test_paper_steps_are_b_plus_log_n_minus_1_for_any_n(num_members):
    """Träff, arXiv 2312.11236, section 1: n − 1 + ⌈log2 p⌉ rounds."""
    rounds = next(q for q in range(64) if 2**q >= num_members)
    for num_chunks in range(1, 65):
        plan = multicast(1, num_members - 1, num_chunks)
        assert plan.num_steps == num_chunks + rounds - 1


def check_schedules(num_members):
    """The conditions under which a schedule delivers any number of chunks.

    Träff, arXiv 2312.11236, section 2, correctness conditions. Sends are read off the
    receives, hence agree with them; every member has one sender a round, hence one
    receiver. What is left: entries differ modulo q, so that each chunk comes once;
    only the base chunk is of this phase, so that the last phase ends with it; and a
    sender received the chunk in an earlier round or in the phase before.
    """
    skips = skips_of(num_members)
    num_rounds = len(skips) - 1
    assert skips[0] == 1
    assert skips[-1] == num_members
    for index in range(1, num_members):
        schedule = receive_schedule(num_members, index)
        assert sorted(entry % num_rounds for entry in schedule) == [*range(num_rounds)]
        assert sum(entry >= 0 for entry in schedule) == 1
        assert min(schedule) >= -num_rounds
        for k, entry in enumerate(schedule):
            sender = (index - skips[k]) % num_members
            if sender != 0:
                earlier = receive_schedule(num_members, sender)
                ready = {*earlier[:k], *(e - num_rounds for e in earlier)}
                assert entry in ready, (num_members, index, k)


def test_paper_schedules_meet_the_correctness_conditions_up_to_500_members():
    for num_members in range(2, 501):
        check_schedules(num_members)


@pytest.mark.parametrize(
    "num_members",
    [511, 512, 513, 1023, 1025, *random.Random(7).sample(range(2, 4097), 6)],
)
def test_paper_schedules_meet_the_correctness_conditions_for_many(num_members):
    check_schedules(num_members)


def test_a_member_of_4096_asks_only_for_its_own_schedule_and_its_targets():
    plan = multicast(1, 4095, 1000)
    receive_schedule.cache_clear()
    sends = list(plan.sends(plan.members[1234]))
    receives = list(plan.receives(plan.members[1234]))
    assert len(receives) == 1000
    assert len({transfer.target for transfer in sends}) <= 12
    assert receive_schedule.cache_info().misses <= 1 + 12


def test_docstring_examples_hold():
    assert skips_of(7) == (1, 2, 4, 7)
    assert receive_schedule(4, 3) == (-1, 0)
    plan = multicast(1, 7, 64)
    assert isinstance(plan, BinomialPlan)
    assert plan.num_steps == 66
    assert multicast(1, 3, 8).num_steps == 9
