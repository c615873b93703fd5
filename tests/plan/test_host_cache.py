"""The cache in host memory: a copy of each for good, evenly spread; others for free."""

import dataclasses
import itertools
import random
from collections import Counter

import pytest

from jscale.core.errors import ConfigError
from jscale.plan.host_cache import (
    Room,
    choose_homes,
    free_bytes_of,
    keep_after_serving,
    make_room,
    missing_homes,
)
from jscale.plan.placement import Device, HostCopies, choose_starts, count_copies

SEEDS = range(100)


def hosts_of(*memory_bytes):
    return [
        HostCopies(f"h{i}", memory_bytes=size) for i, size in enumerate(memory_bytes)
    ]


def models_of(*sizes):
    return {f"m{i}": size for i, size in enumerate(sizes)}


def spread(homes, hosts):
    counts = Counter(homes.values())
    numbers = [counts[host.host] for host in hosts]
    return max(numbers) - min(numbers)


@pytest.mark.parametrize("num_hosts", range(1, 8))
def test_equal_models_are_spread_to_within_one(num_hosts):
    for num_models in range(30):
        hosts, sizes = hosts_of(*[300] * num_hosts), models_of(*[10] * num_models)
        homes = choose_homes(hosts, sizes, {})
        assert set(homes) == set(sizes)
        assert spread(homes, hosts) <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_from_any_choice_before_they_are_levelled_with_few_moves(seed):
    rng = random.Random(seed)
    hosts = hosts_of(*[300] * rng.randint(1, 6))
    sizes = models_of(*[10] * rng.randint(1, 25))
    # Some hosts are gone; some models are new.
    names = [f"h{i}" for i in range(len(hosts) + 2)]
    before = {m: rng.choice(names) for m in sizes if rng.random() < 0.8}
    homes = choose_homes(hosts, sizes, before)
    assert set(homes) == set(sizes)
    assert spread(homes, hosts) <= 1
    moved = [m for m, h in before.items() if h != homes[m] and int(h[1:]) < len(hosts)]
    counts = Counter(h for h in before.values() if int(h[1:]) < len(hosts))
    # A host that kept more than its share lets go of what is over, and no more.
    share = len(sizes) // len(hosts)
    assert len(moved) <= sum(max(0, number - share) for number in counts.values())
    assert choose_homes(hosts, sizes, homes) == homes


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_unequal_is_level_to_within_a_model(seed):
    rng = random.Random(seed)
    hosts = hosts_of(*(rng.randint(400, 600) for _ in range(rng.randint(1, 6))))
    sizes = models_of(*(rng.randint(1, 40) for _ in range(rng.randint(1, 20))))
    before = {m: rng.choice(hosts).host for m in sizes if rng.random() < 0.5}
    homes = choose_homes(hosts, sizes, before)
    free = {h.host: h.memory_bytes for h in hosts}
    for model, home in homes.items():
        free[home] -= sizes[model]
    assert min(free.values()) >= 0
    for model, home in homes.items():  # No single move would level them further.
        assert max(free.values()) - free[home] <= sizes[model]


def test_of_hosts_that_are_as_good_it_goes_where_a_copy_is_already():
    hosts = hosts_of(100, 100, 100)
    hosts[2] = dataclasses.replace(hosts[2], in_memory=("m0",))
    assert choose_homes(hosts, models_of(10), {}) == {"m0": "h2"}
    assert choose_homes(hosts, models_of(10, 10, 10), {})["m0"] == "h2"


def test_a_host_lost_moves_its_models_and_no_others():
    hosts, sizes = hosts_of(*[100] * 4), models_of(*[10] * 12)
    before = choose_homes(hosts, sizes, {})
    after = choose_homes(hosts[:3], sizes, before)
    assert {m for m in sizes if before[m] != after[m]} == {
        m for m in sizes if before[m] == "h3"
    }
    assert spread(after, hosts[:3]) == 0


def test_where_one_model_fits_nowhere_that_is_said():
    with pytest.raises(ConfigError, match=r"m1 \(60 B\) fits in no host's memory"):
        choose_homes(hosts_of(100), models_of(70, 60), {"m0": "h0"})
    with pytest.raises(ConfigError, match="fits in no host"):
        choose_homes([], models_of(1), {})
    assert choose_homes([], {}, {}) == {}


def test_homes_that_have_yet_to_fetch_are_named():
    hosts = hosts_of(100, 100)
    hosts[0] = dataclasses.replace(hosts[0], in_memory=("m0",))
    homes = {"m0": "h0", "m1": "h1", "m2": "h0"}
    assert missing_homes(hosts, homes) == (("m1", "h1"), ("m2", "h0"))


def test_ten_thousand_models_on_as_many_hosts_are_levelled_at_once():
    """From the worst: all of them on one host."""
    hosts = hosts_of(*[20_000] * 10_000)
    sizes = models_of(*[1] * 10_000)
    homes = choose_homes(hosts, sizes, dict.fromkeys(sizes, "h0"))
    assert spread(homes, hosts) == 0


SIZES = {"a": 10, "b": 20, "c": 30, "d": 40}
MANY = dict.fromkeys(SIZES, 2)


def room(memory_bytes, in_memory, size_bytes, homes=None, num_copies=MANY):
    host = HostCopies("h", memory_bytes=memory_bytes, in_memory=tuple(in_memory))
    return make_room(
        host, size_bytes, sizes_bytes=SIZES, homes=homes or {}, num_copies=num_copies
    )


def test_while_something_is_free_nothing_is_evicted():
    for free in range(50):
        for size in range(free + 1):
            assert room(30 + free, "ab", size) == Room(is_enough=True)


def test_the_longest_unused_go_and_no_more_than_must():
    assert room(60, "abc", 5) == Room(True, ("a",))
    assert room(60, "abc", 11) == Room(True, ("b",))  # 10 of a alone is too little.
    assert room(60, "abc", 30) == Room(True, ("a", "b"))
    assert room(60, "abc", 31) == Room(True, ("a", "c"))


@pytest.mark.parametrize("in_memory", list(itertools.permutations("abcd")), ids="".join)
def test_of_all_cases_enough_goes_never_too_much_and_never_what_must_stay(in_memory):
    for size in range(0, 110, 5):
        for kept in ("", "a", "bd", "abcd"):
            for single in ("", "c"):
                homes = dict.fromkeys(kept, "h")
                copies = {m: 1 if m in single else 2 for m in SIZES}
                found = room(105, in_memory, size, homes, copies)
                may_go = sum(SIZES[m] for m in SIZES if m not in kept + single)
                assert found.is_enough == (size <= 5 + may_go)
                assert not set(found.evicted) & set(kept + single)
                if found.is_enough:
                    gained = 5 + sum(SIZES[m] for m in found.evicted)
                    assert gained >= size
                    assert all(gained - SIZES[m] < size for m in found.evicted)
                else:
                    assert not found.evicted


def after_serving(in_memory, memory_bytes, homes=None, num_copies=MANY):
    host = HostCopies("h", memory_bytes=memory_bytes, in_memory=tuple(in_memory))
    return keep_after_serving(
        host, "c", sizes_bytes=SIZES, homes=homes or {}, num_copies=num_copies
    )


def test_after_serving_a_copy_stays_if_that_is_free_or_if_it_must():
    assert after_serving("a", 40) == Room(True)
    assert after_serving("a", 39) == Room(False)
    assert after_serving("a", 39, homes={"c": "h"}) == Room(True, ("a",))
    assert after_serving("a", 39, num_copies={**MANY, "c": 1}) == Room(True, ("a",))
    assert after_serving("c", 99) == Room(False)  # It is there already.


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_starts_and_ends_a_copy_of_every_model_is_always_there(seed):
    """Hosts with two devices each; their memory has room for homes and some more."""
    rng = random.Random(seed)
    sizes = models_of(*(rng.randint(1, 20) for _ in range(rng.randint(1, 8))))
    num_hosts = rng.randint(1, 5)
    memory_bytes = 2 * sum(sizes.values()) // num_hosts + 25
    empty = (Device(), Device())
    hosts = {h: HostCopies(h, empty, memory_bytes) for h in map(str, range(num_hosts))}
    homes = choose_homes(list(hosts.values()), sizes, {})
    for model, home in homes.items():
        copies = (*hosts[home].in_memory, model)
        hosts[home] = dataclasses.replace(hosts[home], in_memory=copies)
    for now_ns in range(60):
        everyone = list(hosts.values())
        if rng.random() < 0.6:
            model = rng.choice(list(sizes))
            for start in choose_starts(everyone, model, rng.randint(1, 3)):
                _start(hosts, start, model, sizes, homes, now_ns)
        else:
            _end_some(hosts, rng)
        copies = count_copies(hosts.values())
        for model, home in homes.items():
            assert model in hosts[home].in_memory
            assert copies[model] >= 1
        for host in hosts.values():
            assert free_bytes_of(host, sizes) >= 0


def _start(hosts, start, model, sizes, homes, now_ns):
    host = hosts[start.host]
    if start.displaces is not None:
        kept = keep_after_serving(
            host,
            start.displaces,
            sizes_bytes=sizes,
            homes=homes,
            num_copies=count_copies(hosts.values()),
        )
        if kept.is_enough:
            stays = tuple(m for m in host.in_memory if m not in kept.evicted)
            host = dataclasses.replace(host, in_memory=(*stays, start.displaces))
    devices = list(host.devices)
    assert not devices[start.device].is_serving
    devices[start.device] = Device(model, is_serving=True, used_ns=now_ns)
    hosts[start.host] = dataclasses.replace(host, devices=tuple(devices))


def _end_some(hosts, rng):
    for name, host in hosts.items():
        devices = tuple(
            dataclasses.replace(d, is_serving=d.is_serving and rng.random() < 0.5)
            for d in host.devices
        )
        hosts[name] = dataclasses.replace(host, devices=devices)
