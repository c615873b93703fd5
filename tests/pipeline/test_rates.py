import pytest

from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.pipeline.rates import (
    LINK_BYTES_PER_S_ASSUMED,
    MOVE_BYTES_MIN,
    SEEN_FOR_NS,
    LinkRate,
    PrefillRate,
)


def test_nothing_is_known_of_prompts_before_a_step_was_seen() -> None:
    assert PrefillRate().tokens_per_s == 0


def test_a_decoded_row_takes_as_long_as_a_tile_would() -> None:
    rate = PrefillRate()
    rate.seen(1, 10 * NS_PER_MS)
    assert rate.tokens_per_s == 1600


def test_what_a_prompt_tells_counts_more_than_what_decoding_tells() -> None:
    rate = PrefillRate()
    rate.seen(3, 10 * NS_PER_MS)
    rate.seen(128, 20 * NS_PER_MS)
    assert rate.tokens_per_s == 6400
    rate.seen(4, 10 * NS_PER_MS)
    assert rate.tokens_per_s == 6400
    assert rate.step_ns == 10 * NS_PER_MS
    rate.seen(70, 40 * NS_PER_MS)
    assert rate.tokens_per_s == 2000


def test_a_step_that_took_no_time_tells_nothing() -> None:
    rate = PrefillRate()
    rate.seen(16, 0)
    assert rate.tokens_per_s == 0


@pytest.mark.parametrize(
    ("built_for", "first"), [(None, LINK_BYTES_PER_S_ASSUMED), (5e6, 5e6)]
)
def test_a_link_is_as_fast_as_it_was_seen_to_be_a_while_ago(
    built_for: float | None, first: float
) -> None:
    link = LinkRate(built_for)
    assert link.bytes_per_s(0) == first
    link.seen(MOVE_BYTES_MIN - 1, 1, now_ns=0)
    assert link.bytes_per_s(0) == first, "too small to tell"
    link.seen(2 * 10**6, NS_PER_S, now_ns=7)
    assert link.bytes_per_s(8) == 2e6
    assert link.bytes_per_s(7 + SEEN_FOR_NS) == first
