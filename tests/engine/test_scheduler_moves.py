"""Sequences whose KV is moved in place of a first batch, in scripts."""

from jscale.engine.scheduler import Scheduler
from tests.engine.scheduler_script import check, config, result, sequence


def test_a_sequence_whose_kv_is_moved_goes_on_without_computing_it():
    check(
        Scheduler(config(), num_pages=16, max_in_flight=2),
        """
        bring a 7 6
        next
            nothing
        move
            a to [1, 2]
        add b 2
        next
            b0: 0-1* in [3]
        moved a 6
        next
            b1: 6-6* in [1, 2]
        complete b1
            a[0] = 130
        complete b0
            b[0] = 130
        """,
    )


def test_what_could_not_be_moved_is_computed_from_the_start():
    check(
        Scheduler(config(), num_pages=16),
        """
        bring a 7 6
        move
            a to [1, 2]
        move
            nothing
        moved a 0
        next
            b0: 0-6* in [1, 2]
        """,
    )


def test_moves_wait_for_their_turn_for_pages_and_for_room():
    check(
        Scheduler(config(max_sequences=2, num_pages=16), num_pages=4),
        """
        add a 12 1
        bring b 7 6
        bring c 3 2
        bring d 3 2
        move
            nothing
        next
            b0: 0-11* in [1, 2, 3]
        move
            nothing
        complete b0
            a[0] = 130
            a length
        move
            b to [1, 2]
        move
            c to [3]
        move
            nothing
        moved c 2
        next
            b1: 2-2* in [3]
        moved b 6
        next
            nothing
        """,
    )


def test_pages_that_are_written_to_are_nobody_elses():
    """Not even if nobody wants the sequence any more, until all of it has ended."""
    scheduler = Scheduler(config(max_context=16, num_pages=4), num_pages=4)
    check(
        scheduler,
        """
        bring a 7 6
        bring b 4 3
        move
            a to [1, 2]
        move
            b to [3]
        cancel a
            a cancelled
        cancel b
            b cancelled
        add c 8 1
        next
            nothing
        moved a 6
        next
            b0: 0-7* in [1, 2]
        moved b 0
        complete b0
            c[0] = 140
            c length
        """,
    )
    assert scheduler.num_free_pages == 4
    assert scheduler.num_moving == 0


def test_an_evacuation_says_where_kv_was_and_forgets_what_was_moving():
    scheduler = Scheduler(config(), num_pages=16)
    computed, moving = sequence("a", 5), sequence("b", 5)
    moving.num_movable = 4
    scheduler.add(computed)
    scheduled = scheduler.next_batch()
    scheduler.complete(scheduled.id, *result(scheduled.batch))
    scheduler.next_batch()
    scheduler.add(moving)
    scheduler.start_move(moving)
    assert scheduler.evacuate() == [computed, moving]
    assert (computed.num_kept, computed.pages) == (5, [1, 2])
    assert moving.num_kept == 0
    assert scheduler.num_free_pages == 16
    scheduler.end_move(moving, 4)
    assert (scheduler.num_moving, scheduler.num_sequences) == (0, 0)
