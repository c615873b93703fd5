"""Links that flows share fairly: each direction, disks and device buses for themselves.

A flow goes over several links at once. Each of them divides its rate evenly among the
flows on it, and a flow gets the smallest of its shares. So a flow that comes or goes
changes only those that it shares a link with: in a multicast, those of two members.
What a flow leaves of its share on one link because another is narrower is not given to
others (max-min fairness would: between members that are alike, it came to the same
times within 0.001 %, at a cost that grows with all flows that are connected).
"""

import math
from collections.abc import Callable, Iterable

from jscale.core.units import NS_PER_S
from jscale.simulation.clock import Timer, VirtualClock


class Link:
    """One direction of a cable, a disk, or a bus."""

    __slots__ = ("bytes_per_s", "flows", "name")

    def __init__(self, name: str, bytes_per_s: float) -> None:
        self.name = name
        self.bytes_per_s = bytes_per_s
        self.flows: dict[Flow, None] = {}


class Flow:
    """Bytes on their way."""

    __slots__ = ("bytes_per_s", "done", "left_bytes", "links", "timer", "updated_ns")

    def __init__(
        self, links: tuple[Link, ...], size_bytes: float, done: Callable[[], None]
    ) -> None:
        self.links = links
        self.left_bytes = size_bytes
        self.bytes_per_s = 0.0
        self.updated_ns = 0
        self.done = done
        self.timer: Timer | None = None


class Network:
    """Owns the flows that are on their way."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    def start(
        self, links: tuple[Link, ...], size_bytes: float, done: Callable[[], None]
    ) -> Flow:
        """Sends so many bytes over all the links; `done` is called at their end.

        O(flows on the links).
        """
        flow = Flow(links, size_bytes, done)
        flow.updated_ns = self._clock.now_ns
        for link in links:
            link.flows[flow] = None
        if links:
            self._share(links)
        else:
            self._set_rate(flow, math.inf)
        return flow

    def stop(self, flow: Flow) -> None:
        """Takes a flow off before its end; `done` is not called."""
        if flow.timer is not None:
            flow.timer.cancel()
        self._leave(flow)

    def set_rate(self, link: Link, bytes_per_s: float) -> None:
        """The link is faster or slower from now on; 0: nothing goes through."""
        link.bytes_per_s = bytes_per_s
        self._share((link,))

    def _finish(self, flow: Flow) -> None:
        self._leave(flow)
        flow.done()

    def _leave(self, flow: Flow) -> None:
        for link in flow.links:
            link.flows.pop(flow, None)
        self._share(flow.links)

    def _share(self, changed: Iterable[Link]) -> None:
        """Gives every flow on the links what its narrowest link has for it."""
        concerned = {flow: None for link in changed for flow in link.flows}
        for flow in concerned:
            shares = [link.bytes_per_s / len(link.flows) for link in flow.links]
            self._set_rate(flow, min(shares))

    def _set_rate(self, flow: Flow, bytes_per_s: float) -> None:
        now_ns = self._clock.now_ns
        if flow.timer is not None:
            if bytes_per_s == flow.bytes_per_s:
                return
            flow.timer.cancel()
        passed_s = (now_ns - flow.updated_ns) / NS_PER_S
        if passed_s:
            flow.left_bytes = max(0.0, flow.left_bytes - flow.bytes_per_s * passed_s)
        flow.updated_ns = now_ns
        flow.bytes_per_s = bytes_per_s
        if bytes_per_s <= 0:
            flow.timer = None
            return
        left_ns = math.ceil(flow.left_bytes / bytes_per_s * NS_PER_S)
        flow.timer = self._clock.after(left_ns, self._finish, flow)
