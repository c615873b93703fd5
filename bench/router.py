"""What an event costs a router, whatever the number of replicas.

    python bench/router.py

So many replicas open one by one; requests arrive until all wait or run; each gets some
tokens and ends, in random order, one in five only after it was handed over. One thread,
nothing is sent.
"""

import argparse
import random
import time

from jscale.cluster.gateway_messages import Replica, ReplicasChanged
from jscale.core.ids import PipelineId, SequenceId, WorkerId
from jscale.core.units import NS_PER_S
from jscale.engine.request import Request, SamplingParams
from jscale.pipeline.messages import Emitted, Finished, Returned, Submit
from jscale.server.decisions import Decision, Send
from jscale.server.router import Router, RouterConfig

CAPACITY = 4
TOKENS = 3
HANDED_OVER = 0.2


class Play:
    """Plays heads that answer what a router sends them; counts the events."""

    def __init__(self, num_replicas: int, num_requests: int) -> None:
        self.num_events = 0
        self._rng = random.Random(0)
        self._router = Router(RouterConfig(max_queued=num_requests), 0)
        self._running: list[tuple[WorkerId, Submit]] = []
        for index in range(num_replicas):
            head = WorkerId(f"w{index}")
            is_local = index % 2 == 0
            opened = Replica(
                PipelineId(index), head, "", is_local, CAPACITY, workers=(head,)
            )
            self._do(self._router.replicas_changed(ReplicasChanged((opened,)), 0))
            self._do(self._router.head_attached(head, 0))
        for index in range(num_requests):
            name = SequenceId(f"s{index}")
            request = Request(name, (1, 2, 3), SamplingParams(max_tokens=100))
            self._do(self._router.submit(name, request, 0))

    def run(self) -> None:
        """Ends every request."""
        router, now_ns = self._router, 0
        while router.num_live:
            now_ns += NS_PER_S  # Nobody rests any more.
            self._do(router.tick(now_ns))
            index = self._rng.randrange(len(self._running))
            last = self._running.pop()
            if index < len(self._running):
                last, self._running[index] = self._running[index], last
            head, submit = last
            who = (submit.sequence, submit.attempt)
            if self._rng.random() < HANDED_OVER:
                self._do(router.served(head, Returned(*who, "it closes"), now_ns))
                continue
            for index in range(TOKENS):
                token = Emitted(*who, len(submit.generated) + index, 7, 0.0)
                self._do(router.served(head, token, now_ns))
            self._do(router.served(head, Finished(*who, "stop"), now_ns))

    def _do(self, decisions: list[Decision]) -> None:
        self.num_events += 1
        for decision in decisions:
            match decision:
                case Send(head, Submit() as submit):
                    self._running.append((head, submit))


def main() -> None:
    """Prints a line for each number of replicas."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[10, 1000, 10_000])
    parser.add_argument("--requests", type=int, default=20_000)
    options = parser.parse_args()
    for num_replicas in options.replicas:
        start_s = time.process_time()
        play = Play(num_replicas, options.requests)
        play.run()
        took_s = time.process_time() - start_s
        print(
            f"{num_replicas:6} replicas, {options.requests} requests: "
            f"{play.num_events} events, {took_s / play.num_events * 1e6:.1f} us each "
            f"of processor time"
        )


if __name__ == "__main__":
    main()
