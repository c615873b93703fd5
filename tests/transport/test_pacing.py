from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.transport.pacing import BURST_NS, Lane, LinkPacer

RATE_BYTES_PER_S = 1e6
MS = NS_PER_MS


def test_bytes_take_their_time_and_queue_behind_others():
    lane = Lane(RATE_BYTES_PER_S, burst_ns=0)
    assert lane.delay_ns(1000, now_ns=0) == 1 * MS
    assert lane.delay_ns(2000, now_ns=0) == 3 * MS
    assert lane.delay_ns(1000, now_ns=3 * MS) == 1 * MS
    assert lane.delay_ns(1000, now_ns=50 * MS) == 1 * MS


def test_a_late_user_catches_up_at_most_a_burst():
    lane = Lane(RATE_BYTES_PER_S, burst_ns=2 * MS)
    assert lane.delay_ns(10_000, now_ns=100 * MS) == 8 * MS
    # Woken 1 ms late: the next bytes set out when they should have.
    assert lane.delay_ns(10_000, now_ns=109 * MS) == 9 * MS
    # 20 ms late: 2 of them are made up for.
    assert lane.delay_ns(10_000, now_ns=138 * MS) == 8 * MS


def test_a_link_that_becomes_slower_is_so_in_both_directions():
    link = LinkPacer(RATE_BYTES_PER_S)
    link.change_rate(RATE_BYTES_PER_S / 4)
    assert link.outgoing.duration_ns(1000) == link.incoming.duration_ns(1000) == 4 * MS


def test_the_rate_holds_over_time_however_late_the_user_wakes():
    lane = Lane(RATE_BYTES_PER_S)
    now_ns = 0
    for turn in range(1000):
        now_ns += lane.delay_ns(10_000, now_ns) + turn % 3 * MS // 2
    sent_ns = 1000 * 10_000 / RATE_BYTES_PER_S * NS_PER_S
    assert sent_ns - BURST_NS <= now_ns <= sent_ns + BURST_NS


def test_what_the_sender_paced_is_not_delayed_again():
    lane = Lane(RATE_BYTES_PER_S, burst_ns=0)
    for end_ms in (1, 2, 3, 10):
        assert lane.arrival_delay_ns(1000, now_ns=end_ms * MS) == 0


def test_two_senders_share_the_lane_of_their_target():
    lane = Lane(RATE_BYTES_PER_S, burst_ns=0)
    assert lane.arrival_delay_ns(1000, now_ns=1 * MS) == 0
    assert lane.arrival_delay_ns(1000, now_ns=1 * MS) == 1 * MS
    assert lane.arrival_delay_ns(1000, now_ns=2 * MS) == 1 * MS
