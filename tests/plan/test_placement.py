"""Placement: hot before warm before cold, and nothing goes that need not."""

import itertools
import random

import pytest

from jscale.plan.placement import (
    Device,
    HostCopies,
    Start,
    StartKind,
    Tier,
    choose_holders,
    choose_starts,
    count_copies,
)

HOT, WARM, COLD = StartKind.HOT, StartKind.WARM, StartKind.COLD


def host(name, *devices, memory=(), disk=()):
    """A host with devices given as `None`, `"model"`, `"model!"` (serving)."""
    made = tuple(
        Device(d and d.rstrip("!"), is_serving=bool(d) and d.endswith("!"), used_ns=i)
        for i, d in enumerate(devices)
    )
    return HostCopies(name, made, 100, tuple(memory), frozenset(disk))


def test_hot_comes_before_warm_before_cold():
    hosts = [
        host("cold", None),
        host("warm", None, memory=["m"]),
        host("hot", "m"),
        host("serves", "m!"),
    ]
    assert choose_starts(hosts, "m", 9) == (
        Start("hot", 0, HOT),
        Start("warm", 0, WARM),
        Start("cold", 0, COLD),
    )
    assert choose_starts(hosts, "m", 1) == (Start("hot", 0, HOT),)
    assert choose_starts(hosts, "m", 0) == ()


def test_an_empty_device_is_taken_before_one_that_holds_another_model():
    hosts = [host("a", "x", None), host("b", None, memory=["x"])]
    starts = choose_starts(hosts, "m", 3)
    assert starts == (
        Start("a", 1, COLD),
        Start("b", 0, COLD),
        Start("a", 0, COLD, displaces="x"),
    )


def test_the_last_copy_of_a_model_is_never_displaced():
    hosts = [host("a", "x", "x"), host("b", "x!", "y")]
    starts = choose_starts(hosts, "m", 9)
    assert [s.displaces for s in starts] == ["x", "x"]
    hosts = [host("a", "x", "x"), host("b", "y", memory=["y"])]
    starts = choose_starts(hosts, "m", 9)
    assert sorted(s.displaces for s in starts) == ["x", "y"]


def test_every_host_starts_one_before_any_starts_a_second():
    hosts = [host(name, None, None, None) for name in "abc"]
    starts = choose_starts(hosts, "m", 7)
    assert [(s.host, s.device) for s in starts] == [
        *(("a", 0), ("b", 0), ("c", 0)),
        *(("a", 1), ("b", 1), ("c", 1)),
        ("a", 2),
    ]


def test_the_longest_unused_model_goes_first():
    devices = [Device("x", used_ns=7), Device("x", used_ns=3), Device("x", used_ns=5)]
    keeps = host("z", memory=["x"])
    starts = choose_starts([HostCopies("a", tuple(devices)), keeps], "m", 2)
    assert [s.device for s in starts] == [1, 2]


SLOTS = (None, "m", "x", "x!", "y")


@pytest.mark.parametrize("first", list(itertools.product(SLOTS, repeat=2)), ids=str)
def test_of_all_small_clusters_no_free_device_is_left_nor_a_model_lost(first):
    for second in itertools.product(SLOTS, repeat=2):
        for memory in ([], ["m"], ["x", "y"]):
            hosts = [host("a", *first), host("b", *second, memory=memory)]
            starts = choose_starts(hosts, "m", 9)
            before = count_copies(hosts)
            gone = [s.displaces for s in starts if s.displaces is not None]
            for model in set(before) - {"m"}:
                assert before[model] - gone.count(model) >= 1
            num_free = sum(s in (None, "m") for s in first + second)
            assert len(starts) == num_free + len(gone)
            # One more could only go if it were the last.
            idle = [s for s in first + second if s in ("x", "y")]
            for model in {"x", "y"}:
                kept = idle.count(model) - gone.count(model)
                assert kept == 0 or before[model] - gone.count(model) == 1
            kinds = [s.kind for s in starts]
            assert kinds == sorted(kinds)


def test_ten_thousand_workers_are_placed_at_once():
    rng = random.Random(0)
    hosts = [
        host(f"h{i}", *(rng.choice([None, "m", "x"]) for _ in range(8)), memory=["x"])
        for i in range(1250)
    ]
    starts = choose_starts(hosts, "m", 10_000)
    assert len({(s.host, s.device) for s in starts}) == 10_000


def test_whoever_holds_it_in_a_device_sends_before_those_in_memory():
    hosts = [
        host("memory", None, memory=["m"]),
        host("disk", "x", disk=["m"]),
        host("device", "m!", "m", memory=["m"]),
        host("nothing", "x"),
    ]
    assert choose_holders(hosts, "m") == (
        ("device", Tier.DEVICE),
        ("memory", Tier.HOST),
    )
    assert choose_holders(hosts, "m", leaving_out=["device", "memory"]) == (
        ("disk", Tier.DISK),
    )
    assert choose_holders(hosts, "z") == ()
