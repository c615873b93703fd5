"""A process that dies is started again, after pauses, but not for ever."""

from jscale.core.units import NS_PER_MS
from jscale.server.restarts import (
    PAUSE_NS_MAX,
    QUICK_DEATHS_MAX,
    QUICK_NS,
    Restarts,
)


def test_pauses_double_and_end():
    restarts = Restarts()
    pauses = [restarts.pause_ns(0) for _ in range(QUICK_DEATHS_MAX)]
    assert [pause // NS_PER_MS for pause in pauses[:-1]] == [
        *(100, 200, 400, 800, 1600, 3200, 6400)
    ]
    assert max(pauses[:-1]) <= PAUSE_NS_MAX
    assert pauses[-1] is None


def test_a_process_that_lived_long_begins_anew():
    restarts = Restarts()
    for _ in range(3 * QUICK_DEATHS_MAX):
        assert restarts.pause_ns(QUICK_NS) == 100 * NS_PER_MS
        assert restarts.pause_ns(QUICK_NS - 1) == 100 * NS_PER_MS
        assert restarts.pause_ns(0) == 200 * NS_PER_MS
