"""The scheduler against scripts with full transcripts, and against its invariants."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jscale.core.errors import OverloadedError, RequestError, TransportError
from jscale.core.ids import BatchId, SequenceId
from jscale.engine.scheduler import Scheduler, TokenSampled
from jscale.engine.sequence import Sequence
from tests.engine.scheduler_script import (
    check,
    config,
    expected,
    result,
    sequence,
    tell,
)

EOS = 2


def test_sequences_join_and_leave_between_steps():
    check(
        Scheduler(config(), num_pages=16),
        """
        add a 3 2
        next
            b0: 0-2* in [1]
        add b 2 2
        next
            nothing
        complete b0
            a[0] = 140
        next
            b1: 3-3* in [1], 0-1* in [2]
        complete b1
            a[1] = 139
            a length
            b[0] = 130
        next
            b2: 2-2* in [2]
        complete b2
            b[1] = 116
            b length
        next
            nothing
        """,
    )


def test_a_long_prompt_is_computed_in_chunks_beside_decodes():
    check(
        Scheduler(config(), num_pages=16),
        """
        add a 1 3
        next
            b0: 0-0* in [1]
        complete b0
            a[0] = 120
        add b 31 1
        next
            b1: 1-1* in [1], 0-14 in [2, 3, 4, 5, 6, 7, 8, 9]
        complete b1
            a[1] = 143
        next
            b2: 2-2* in [1], 15-29 in [2, 3, 4, 5, 6, 7, 8, 9]
        complete b2
            a[2] = 107
            a length
        next
            b3: 30-30* in [2, 3, 4, 5, 6, 7, 8, 9]
        complete b3
            b[0] = 120
            b length
        """,
    )


def test_several_batches_are_in_flight_and_a_sequence_is_in_one_of_them():
    check(
        Scheduler(config(max_sequences=1), num_pages=16, max_in_flight=2),
        """
        add a 2 3
        next
            b0: 0-1* in [1]
        add b 2 3
        next
            b1: 0-1* in [2]
        next
            nothing
        complete b0
            a[0] = 130
        next
            b2: 2-2* in [1]
        complete b1
            b[0] = 130
        next
            b3: 2-2* in [2]
        """,
    )


def test_the_youngest_gives_its_pages_up_and_is_computed_again():
    check(
        Scheduler(config(max_context=16, num_pages=4), num_pages=4),
        """
        add a 4 6
        add b 8 2
        next
            b0: 0-3* in [1], 0-7* in [2, 3]
        complete b0
            a[0] = 100
            b[0] = 140
        add c 1 1
        next
            b1: 4-4* in [1, 4]
        complete b1
            a[1] = 112
        next
            b2: 5-5* in [1, 4]
        cancel c
            c cancelled
        complete b2
            a[2] = 149
        next
            b3: 6-6* in [1, 4]
        complete b3
            a[3] = 111
        next
            b4: 7-7* in [1, 4]
        complete b4
            a[4] = 148
        next
            b5: 8-8* in [1, 4, 2]
        complete b5
            a[5] = 110
            a length
        next
            b6: 0-8* in [1, 4, 2]
        complete b6
            b[1] = 104
            b length
        """,
    )


def test_cancel_takes_a_sequence_out_wherever_it_is():
    scheduler = Scheduler(config(max_sequences=1), num_pages=16)
    check(
        scheduler,
        """
        add a 2
        add b 2
        next
            b0: 0-1* in [1]
        cancel b
            b cancelled
        cancel a
            a cancelled
        cancel a
        complete b0
        next
            nothing
        """,
    )
    assert scheduler.num_free_pages == 16
    assert scheduler.num_sequences == 0


def test_an_evacuation_returns_live_sequences_and_forgets_what_is_in_flight():
    scheduler = Scheduler(config(max_sequences=1), num_pages=16, max_in_flight=2)
    check(
        scheduler,
        """
        add a 2
        add b 2
        next
            b0: 0-1* in [1], 0-1* in [2]
        add c 2
        cancel b
            b cancelled
        evacuate
            ['a', 'c']
        complete b0
        next
            nothing
        """,
    )
    assert scheduler.num_free_pages == 16


def test_a_sequence_handed_over_goes_on_after_its_tokens():
    first, second = sequence("a", 3, 5), Scheduler(config(), num_pages=16)
    tokens = expected(first.request.prompt_ids, 5)
    assert second.add(Sequence(first.request, tokens[:2])) is None
    scheduled = second.next_batch()
    assert scheduled.batch.positions.tolist() == [0, 1, 2, 3, 4]
    assert scheduled.batch.sampled.tolist() == [False] * 4 + [True]
    events = second.complete(scheduled.id, *result(scheduled.batch))
    assert events == [TokenSampled(SequenceId("a"), 2, tokens[2], -1.0)]


@pytest.mark.parametrize(
    ("sampling", "last", "reason"),
    [
        ({}, EOS, "stop"),
        ({"ignore_eos": True}, EOS, None),
        ({"stop_token_ids": (7,)}, 7, "stop"),
        ({"max_tokens": 2}, 9, "length"),
        ({}, 9, None),
    ],
)
def test_a_sequence_that_its_tokens_end_is_not_run(sampling, last, reason):
    scheduler = Scheduler(config(), num_pages=16, eos_token_ids=(EOS,))
    begun = Sequence(sequence("a", 2, **sampling).request, (5, last))
    finished = scheduler.add(begun)
    assert (finished and finished.reason) == reason
    assert scheduler.num_sequences == (reason is None)


def test_the_end_of_the_context_ends_a_sequence():
    scheduler = Scheduler(config(max_context=8), num_pages=2)
    scheduler.add(sequence("a", 7, 100))
    scheduled = scheduler.next_batch()
    events = scheduler.complete(scheduled.id, *result(scheduled.batch))
    assert [tell(event) for event in events][1:] == ["a length"]


def test_the_queue_is_bounded():
    scheduler = Scheduler(config(max_waiting=2), num_pages=16)
    scheduler.add(sequence("a", 2))
    scheduler.add(sequence("b", 2))
    with pytest.raises(OverloadedError, match="2 sequences wait"):
        scheduler.add(sequence("c", 2))


def test_what_can_never_fit_is_refused():
    scheduler = Scheduler(config(), num_pages=2)
    with pytest.raises(RequestError, match="may grow to 9 tokens"):
        scheduler.add(sequence("a", 4, 5))


def test_a_result_of_another_size_is_refused():
    scheduler = Scheduler(config(), num_pages=16)
    scheduler.add(sequence("a", 3))
    scheduled = scheduler.next_batch()
    with pytest.raises(TransportError, match="3 rows, its result 1 tokens"):
        scheduler.complete(scheduled.id, [1], [0.0])


def test_a_result_nobody_waits_for_brings_nothing():
    assert Scheduler(config(), num_pages=16).complete(BatchId(7), [1], [0.0]) == []


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_every_sequence_gets_its_tokens_whatever_runs_beside_it(data):
    """Random joins, cancels, completions out of turn and scarce pages."""
    num_pages, max_in_flight = (
        data.draw(st.integers(6, 20)),
        data.draw(st.integers(1, 3)),
    )
    small = config(max_context=24, num_pages=64, max_sequences=2)
    scheduler = Scheduler(small, num_pages=num_pages, max_in_flight=max_in_flight)
    wanted, got, cancelled, finished = {}, {}, set(), set()
    flying, moving = [], []
    for index in range(data.draw(st.integers(1, 8))):
        name = f"s{index}"
        added = sequence(
            name, data.draw(st.integers(1, 20)), data.draw(st.integers(1, 8))
        )
        prompt = added.request.prompt_ids
        added.num_movable = data.draw(st.integers(0, len(prompt) - 1))
        count = min(added.request.sampling.max_tokens, 24 - len(prompt))
        wanted[name], got[name] = expected(prompt, count), []
        scheduler.add(added)
        if data.draw(st.booleans()):
            turn(scheduler, data, flying, moving, got, finished)
        if data.draw(st.integers(0, 5)) == 0 and scheduler.cancel(SequenceId(name)):
            cancelled.add(name)
    for _ in range(2000):
        if not scheduler.num_sequences:
            break
        turn(scheduler, data, flying, moving, got, finished)
    assert finished == wanted.keys() - cancelled
    assert all(got[name] == wanted[name] for name in finished)
    assert scheduler.num_free_pages == num_pages


def turn(scheduler, data, flying, moving, got, finished) -> None:
    """Starts a batch if one can start, else completes the first in flight.

    KV that is to be moved arrives, or is lost, when nothing else can be done.
    """
    while (movable := scheduler.movable()) is not None:
        if data.draw(st.booleans()):
            scheduler.start_move(movable)
            moving.append(movable)
        else:
            movable.num_movable = 0
    scheduled = scheduler.next_batch()
    if scheduled is not None:
        owned = [set(table[table > 0]) for table in scheduled.batch.page_tables]
        assert len(set().union(*owned)) == sum(map(len, owned)), "a page has one owner"
        assert scheduled.batch.num_rows <= 16
        written = {page for each in moving for page in each.pages}
        assert not written & set().union(*owned), "a page that is written to is taken"
        flying.append(scheduled)
    elif moving and data.draw(st.booleans()):
        ended = moving.pop(0)
        scheduler.end_move(ended, data.draw(st.sampled_from([0, ended.num_movable])))
    elif flying:
        done = flying.pop(0)
        for event in scheduler.complete(done.id, *result(done.batch)):
            if isinstance(event, TokenSampled):
                assert event.index == len(got[event.sequence])
                got[event.sequence].append(event.token)
            else:
                finished.add(event.sequence)
