import itertools
import mmap
import random
import threading

import numpy as np
import pytest

from jscale.store.device_memory import Copy, DeviceMemoryError
from jscale.store.staging import StagingRing


class ScriptedCopy(Copy):
    """Done when the test says so; waiting for it ends it, as a device would."""

    def __init__(self):
        self.done = False
        self.waited = False

    @property
    def is_done(self):
        return self.done

    def wait(self):
        self.done = self.waited = True


def new_ring(num_slots):
    return StagingRing([memoryview(bytearray(64)) for _ in range(num_slots)])


EVENTS = ("take", "land first", "land last", "fail first", "fail last", "end a copy")


def play(num_slots, events):
    """Plays events; fails if a slot is lent while it is held or being copied."""
    ring = new_ring(num_slots)
    held, copying = [], []
    for event in events:
        match event:
            case "take":
                slot = ring.take()
                used = [*held, *(s for s, copy in copying if not copy.done)]
                assert all(slot.memory is not other.memory for other in used)
                own_held = sum(not other.is_spare for other in held)
                assert slot.is_spare == (own_held == num_slots)
                held.append(slot)
            case "end a copy":
                for _, copy in copying:
                    if not copy.done:
                        copy.done = True
                        break
            case _ if held:
                slot = held.pop(0 if event.endswith("first") else -1)
                if event.startswith("land"):
                    copying.append((slot, ScriptedCopy()))
                    ring.copied(*copying[-1])
                else:
                    ring.give_back(slot)
    return ring, held, copying


@pytest.mark.parametrize("num_slots", [1, 2, 3])
def test_no_slot_is_lent_before_its_copy_is_done_whatever_happens(num_slots):
    for events in itertools.product(EVENTS, repeat=6):
        play(num_slots, events)


@pytest.mark.parametrize("seed", range(20))
def test_no_slot_is_lent_twice_in_long_random_plays(seed):
    rng = random.Random(seed)
    play(rng.randint(1, 8), rng.choices(EVENTS, [4, 2, 2, 1, 1, 2], k=2000))


def test_a_full_ring_waits_for_its_oldest_copy_only():
    ring, _, copying = play(2, ["take", "land first"] * 2)
    first, second = (copy for _, copy in copying)
    assert ring.take().memory is copying[0][0].memory
    assert (first.waited, second.waited) == (True, False)
    assert ring.counts.num_waits == 1


def test_who_holds_all_slots_is_given_ordinary_memory_at_a_page():
    ring, held, _ = play(2, ["take"] * 5)
    assert [slot.is_spare for slot in held] == [False, False, True, True, True]
    assert ring.counts.num_spares == 3
    for slot in held[2:]:
        assert slot.memory.nbytes == 64
        assert _address(slot.memory) % mmap.PAGESIZE == 0


def test_spare_slots_are_used_once():
    ring, held, _ = play(1, ["take", "take"])
    for slot in reversed(held):
        ring.give_back(slot)
    assert not ring.take().is_spare
    assert ring.take().is_spare


def test_slots_that_nobody_needs_are_lent_before_a_copy_is_waited_for():
    ring, _, copying = play(2, ["take", "take", "land first", "fail first", "take"])
    assert ring.counts.num_waits == 0
    assert not copying[0][1].waited


def test_a_copy_that_failed_is_told_to_who_needs_its_slot():
    class Broken(ScriptedCopy):
        def wait(self):
            raise DeviceMemoryError("the device is gone")

    ring = new_ring(1)
    ring.copied(ring.take(), Broken())
    with pytest.raises(DeviceMemoryError, match="the device is gone"):
        ring.take()


def test_many_threads_share_a_ring_without_sharing_a_slot():
    ring = new_ring(3)
    lent, clashes, lock = set(), [], threading.Lock()

    def work():
        for number in range(300):
            slot = ring.take()
            with lock:
                clashes.extend({id(slot.memory)} & lent)
                lent.add(id(slot.memory))
            with lock:
                lent.remove(id(slot.memory))
            if number % 3:
                ring.copied(slot, ScriptedCopy())
            else:
                ring.give_back(slot)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []


def _address(memory):
    return np.frombuffer(memory, np.uint8).ctypes.data
