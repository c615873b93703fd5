"""Flows that share links, against what can be worked out by hand."""

import pytest

from jscale.core.units import NS_PER_S
from jscale.simulation.clock import VirtualClock
from jscale.simulation.draws import Draws
from jscale.simulation.network import Flow, Link, Network


class Wires:
    """A network, and when each named flow ended."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.network = Network(self.clock)
        self.ended_s: dict[str, float] = {}

    def start(self, name: str, links: tuple[Link, ...], size_bytes: float) -> Flow:
        def done() -> None:
            self.ended_s[name] = self.clock.now_ns / NS_PER_S

        return self.network.start(links, size_bytes, done)

    def run(self) -> None:
        while self.clock.run_next():
            pass


def test_lone_flow_has_its_narrowest_link_to_itself():
    wires = Wires()
    wires.start("a", (Link("wide", 100.0), Link("narrow", 10.0)), 50)
    wires.run()
    assert wires.ended_s == {"a": 5.0}


def test_flows_of_a_link_share_it_and_the_rest_has_it_all_when_one_ends():
    wires, link = Wires(), Link("link", 10.0)
    wires.start("short", (link,), 10)
    wires.start("long", (link,), 40)
    wires.run()
    assert wires.ended_s == {"short": 2.0, "long": 5.0}


def test_directions_of_a_link_do_not_compete():
    wires = Wires()
    wires.start("there", (Link("out", 10.0),), 10)
    wires.start("back", (Link("in", 10.0),), 10)
    wires.run()
    assert wires.ended_s == {"there": 1.0, "back": 1.0}


def test_flow_that_is_stopped_leaves_its_share_and_says_nothing():
    wires, link = Wires(), Link("link", 10.0)
    stopped = wires.start("stopped", (link,), 1000)
    wires.start("other", (link,), 10)
    wires.clock.at(NS_PER_S, wires.network.stop, stopped)
    wires.run()
    assert wires.ended_s == {"other": 1.5}
    assert not link.flows


def test_nothing_goes_through_a_link_that_is_cut_until_it_is_healed():
    wires, link = Wires(), Link("link", 10.0)
    wires.start("a", (link,), 20)
    wires.clock.at(NS_PER_S, wires.network.set_rate, link, 0.0)
    wires.clock.at(9 * NS_PER_S, wires.network.set_rate, link, 5.0)
    wires.run()
    assert wires.ended_s == {"a": 11.0}


def test_flow_without_links_ends_at_once():
    wires = Wires()
    wires.start("a", (), 1e12)
    wires.run()
    assert wires.ended_s == {"a": 0.0}


@pytest.mark.parametrize("seed", range(10))
def test_times_are_those_of_a_network_that_is_advanced_in_small_steps(seed):
    draws = Draws(seed)
    links = [Link(str(i), float(5 + draws.below(20))) for i in range(4)]
    starts = []
    for number in range(8):
        path = [links[draws.below(4)]]
        path += [link for link in (links[draws.below(4)],) if link is not path[0]]
        starts.append(
            (10 * draws.below(300), str(number), tuple(path), 1 + draws.below(30))
        )
    wires = Wires()
    for at_ms, name, path, size in starts:
        wires.clock.at(at_ms * 1_000_000, wires.start, name, path, size)
    wires.run()
    dumb = advance_in_steps(starts)
    assert wires.ended_s.keys() == dumb.keys()
    for name, ended_s in dumb.items():
        assert wires.ended_s[name] == pytest.approx(ended_s, abs=0.2)


def advance_in_steps(
    starts: list[tuple[int, str, tuple[Link, ...], int]],
) -> dict[str, float]:
    """When each flow ends, by moving what is due in each 10 ms."""
    left: dict[str, float] = {}
    ended_s: dict[str, float] = {}
    paths = {name: path for _, name, path, _ in starts}
    now_ms = 0
    while len(ended_s) < len(starts):
        left.update({n: size for at_ms, n, _, size in starts if at_ms == now_ms})
        num_on = {
            link: sum(link in paths[name] for name in left)
            for path in paths.values()
            for link in path
        }
        now_ms += 10
        for name in list(left):
            rate = min(link.bytes_per_s / num_on[link] for link in paths[name])
            left[name] -= rate / 100
            if left[name] <= 1e-9:
                del left[name]
                ended_s[name] = now_ms / 1000
    return ended_s
