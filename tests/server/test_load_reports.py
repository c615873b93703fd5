"""Loads are told when they changed, not too often, and at once where somebody waits."""

import pytest

from jscale.cluster.gateway_messages import LoadReported
from jscale.core.units import NS_PER_MS
from jscale.server.load_reports import LoadReports


def load(waiting, running=0):
    return LoadReported(waiting, running, waiting + running, 0, 0, 0)


def told(*steps):
    """Milliseconds at which one of (milliseconds, load) is told."""
    reports = LoadReports()
    return [ms for ms, each in steps if reports.is_due(each, ms * NS_PER_MS)]


def test_the_first_is_told_at_once_and_the_same_never_again():
    assert told((5, load(0)), (6, load(0)), (999, load(0))) == [5]


@pytest.mark.parametrize("changed", [load(2, 9), load(1, 9), load(2, 0)])
def test_a_change_waits_for_a_tenth_of_a_second(changed):
    steps = [(ms, changed) for ms in range(1, 300)]
    assert told((0, load(2, 1)), *steps) == [0, 100]


def test_one_more_who_waits_is_told_of_within_ten_milliseconds():
    more = [(ms, load(ms, 4)) for ms in range(1, 50)]
    assert told((0, load(0, 4)), *more) == [0, 10, 20, 30, 40]


def test_what_was_told_longer_ago_is_told_at_once_when_somebody_waits():
    assert told((0, load(0, 4)), (57, load(1, 4))) == [0, 57]


def test_another_manager_is_told_the_same_again():
    reports = LoadReports()
    assert reports.is_due(load(3), 0)
    reports.forget()
    assert reports.is_due(load(3), 1)
