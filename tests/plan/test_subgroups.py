"""Several sources: fewest steps, and together the whole model as soon as can be."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jscale.core.errors import ConfigError
from jscale.plan.chain import ChainPlan
from jscale.plan.kinds import multicast
from jscale.plan.subgroups import SubgroupPlan, deal
from tests.plan.delivery import deliver


def check(num_sources, num_targets, num_chunks, num_leading=0):
    plan = multicast(num_sources, num_targets, num_chunks, num_leading=num_leading)
    assert plan.num_steps == plan.num_steps_min
    num_subgroups = min(num_sources, num_targets)
    targets = range(num_sources, plan.num_members)
    together = deliver(plan, targets)
    shares = -(-(num_chunks - num_leading) // num_subgroups)
    assert together == num_leading + shares
    return plan


def test_paper_targets_together_hold_the_model_after_b_over_k_steps():
    """λScale, arXiv 2502.09922, section 4.2: for any number of sources and targets."""
    for num_sources in range(1, 7):
        for num_targets in range(1, 17 - num_sources):
            for num_chunks in range(1, 25):
                check(num_sources, num_targets, num_chunks)


@given(st.integers(1, 40), st.integers(1, 150), st.integers(1, 60), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_so_they_do_for_many(num_sources, num_targets, num_chunks, num_leading):
    check(num_sources, num_targets, num_chunks, min(num_leading, num_chunks))


@pytest.mark.parametrize(("num_sources", "num_targets"), [(2, 6), (3, 21), (5, 40)])
def test_paper_one_target_of_each_subgroup_holds_it_a_pipelines_fill_later(
    num_sources, num_targets
):
    """λScale, arXiv 2502.09922, section 4.3: pipeline t has the t-th of each."""
    plan = multicast(num_sources, num_targets, 60)
    fill = 2 * (-(-num_targets // num_sources)).bit_length() - 1
    for first in range(num_sources, plan.num_members - num_sources + 1, num_sources):
        together = deliver(plan, range(first, first + num_sources))
        assert together <= 60 // num_sources + fill


def test_no_plan_whatever_needs_fewer_steps():
    """The bound counts who can send; it is met for every k, N and b."""
    for num_sources in range(1, 7):
        for num_targets in range(1, 17):
            for num_chunks in (1, 2, 24):
                plan = multicast(num_sources, num_targets, num_chunks)
                left, step = num_targets * num_chunks, 0
                while left > 0:
                    left -= min(num_targets, num_sources << step)
                    step += 1
                assert plan.num_steps == plan.num_steps_min == step


def test_leading_chunks_come_first_to_everyone():
    plan = multicast(3, 9, 20, num_leading=4)
    for target in plan.targets:
        chunks = [t.chunk for t in plan.receives(target)]
        assert max(chunks.index(chunk) for chunk in range(4)) < 4 + 2


@pytest.mark.parametrize("kind", ["chain", "tree", "flat", "scatter"])
def test_every_kind_serves_in_subgroups(kind):
    for num_sources, num_targets in ((2, 5), (3, 3), (4, 2)):
        plan = multicast(num_sources, num_targets, 7, kind=kind)
        assert plan.label == f"{min(num_sources, num_targets)} × {kind}"
        deliver(plan)


def test_targets_are_dealt_out_evenly_and_neighbours_apart():
    assert deal("ab", "vwx") == (("a", "v", "x"), ("b", "w"))
    assert deal("abc", "vw") == (("a", "v"), ("b", "w"))


def test_sources_without_a_subgroup_stand_by():
    plan = multicast(3, 2, 8)
    assert plan.sources == ("w0", "w1", "w2")
    assert not list(plan.sends("w2"))
    assert not list(plan.receives("w2"))


@pytest.mark.parametrize(
    ("groups", "num_leading", "message"),
    [
        (("ac", "bd"), 9, "9 leading of 8 chunks: give 0 to 8"),
        (("ac", "ad"), 0, "each source at most once"),
        (("ac", "dc"), 0, "each source at most once"),
        (("ac", "bc"), 0, r"from \['a', 'b'\] to \['c', 'c'\]: name each of"),
    ],
)
def test_subgroups_that_do_not_fit_are_refused(groups, num_leading, message):
    plans = tuple(ChainPlan(tuple(group), 8) for group in groups)
    with pytest.raises(ConfigError, match=message):
        SubgroupPlan(tuple("abcd"), 8, plans, num_leading)


def test_several_sources_are_described():
    assert (
        multicast(2, 4, 3).describe()
        == """\
2 × binomial multicast of 3 chunks to 4 targets
  members  6: w0 … w1 send to w2 … w5
  chunks   3: 12 transfers
  steps    4: the least possible
  bound    1.333 × size / link rate until every target is complete

  step  w0    w1    w2    w3    w4    w5
     0  0→w2  1→w3  ·     ·     ·     ·
     1  1→w4  2→w5  ·     ·     ·     ·
     2  2→w2  0→w3  0→w4  1→w5  ·     ·
     3  2→w4  0→w5  ·     ·     1→w2  2→w3"""
    )


def test_a_source_that_lacks_what_leads_asks_the_first_that_does_not():
    plan = multicast(4, 6, 12, num_leading=3)
    sources = plan.sources
    lacking = (sources[0], sources[2])
    plan = dataclasses.replace(plan, lacking=lacking)
    for index, member in enumerate(plan.members):
        is_lacking = member in lacking
        assert list(plan.fetches_of(index)) == (list(range(3)) if is_lacking else [])
        if is_lacking:
            assert plan.helpers_of(index) == (sources[1],)
        elif member in sources:
            assert plan.helpers_of(index) == ()


def test_somebody_has_to_have_what_leads():
    plan = multicast(2, 2, 8, num_leading=1)
    with pytest.raises(AssertionError):
        dataclasses.replace(plan, lacking=plan.sources)
