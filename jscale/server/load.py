"""Clients that ask for stories, one after the other, and check every token."""

import dataclasses
import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jscale.core.errors import JscaleError
from jscale.core.units import NS_PER_S
from jscale.server.client import Client

Prompt = str | tuple[int, ...]

RETRY_S = 0.2


@dataclasses.dataclass(frozen=True)
class Finished:
    """A request that a client had an end of; times count from an arbitrary start."""

    prompt: Prompt
    sent_ns: int
    first_token_ns: int
    finished_ns: int
    num_tokens: int
    fault: str
    """Empty if every token was the expected one."""

    is_lost: bool = False
    """It ended with an error, before its last token."""

    is_wrong: bool = False
    """A token that came was not the expected one, or there were fewer."""

    longest_gap_ns: int = 0
    """The longest time between two of its tokens."""


class Load:
    """`num_clients` threads, each with one request in flight until `stop`.

    The expected tokens of a prompt are those that a single worker gave for it. Locks
    guard what the threads write; any thread may read.
    """

    def __init__(
        self,
        client: Client,
        expected: Mapping[Prompt, Sequence[int]],
        *,
        num_clients: int,
        sampling: Mapping[str, float] | None = None,
    ) -> None:
        """Prepares clients that ask for the prompts of `expected` in turn.

        Args:
          client: asks for them.
          expected: the right tokens of each prompt.
          num_clients: how many ask at a time.
          sampling: further arguments of `Client.generate`; none: greedy.
        """
        self._client = client
        self._sampling: Mapping[str, Any] = sampling or {}
        self._expected = {prompt: list(ids) for prompt, ids in expected.items()}
        self._lock = threading.Lock()
        self._finished: list[Finished] = []
        self._token_times_ns: list[int] = []
        self._stories = [""] * num_clients
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(index,), name=f"client-{index}")
            for index in range(num_clients)
        ]

    def start(self) -> None:
        """Every client sends its first request."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when what runs is finished; no new request is sent."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def finished(self) -> tuple[Finished, ...]:
        """All that ended, in that order."""
        with self._lock:
            return tuple(self._finished)

    @property
    def token_times_ns(self) -> tuple[int, ...]:
        """When each token came, in order but for microseconds."""
        with self._lock:
            return tuple(self._token_times_ns)

    def stories(self, count: int) -> tuple[str, ...]:
        """The texts of some clients up to now."""
        return tuple(self._stories[:count])

    def _ask_on(self, index: int) -> None:
        prompts = list(self._expected)
        for turn in itertools.count(index):
            if self._stopping.is_set():
                return
            ended = self._ask(index, prompts[turn % len(prompts)])
            with self._lock:
                self._finished.append(ended)
            if ended.fault:
                self._stopping.wait(RETRY_S)

    def _ask(self, index: int, prompt: Prompt) -> Finished:
        expected = self._expected[prompt]
        self._stories[index] = prompt if isinstance(prompt, str) else ""
        sent_ns = time.monotonic_ns()
        times_ns: list[int] = []
        token_ids: list[int] = []
        fault = ""
        try:
            for token in self._client.generate(
                prompt, max_tokens=len(expected), ignore_eos=True, **self._sampling
            ):
                times_ns.append(time.monotonic_ns())
                token_ids.append(token.id)
                self._stories[index] += token.text
                with self._lock:
                    self._token_times_ns.append(times_ns[-1])
        except JscaleError as error:
            fault = str(error)
        wrong = difference(token_ids, expected[: len(token_ids)] if fault else expected)
        gaps_ns = (later - sooner for sooner, later in itertools.pairwise(times_ns))
        return Finished(
            prompt=prompt,
            sent_ns=sent_ns,
            first_token_ns=times_ns[0] if times_ns else 0,
            finished_ns=time.monotonic_ns(),
            num_tokens=len(token_ids),
            fault=wrong or fault,
            is_lost=bool(fault),
            is_wrong=bool(wrong),
            longest_gap_ns=max(gaps_ns, default=0),
        )


def difference(token_ids: Sequence[int], expected: Sequence[int]) -> str:
    """Where two token sequences part; empty if they are equal."""
    for index, (token, wanted) in enumerate(zip(token_ids, expected, strict=False)):
        if token != wanted:
            return f"token {index} is {token}, a single worker gave {wanted}"
    if len(token_ids) != len(expected):
        return f"{len(token_ids)} tokens, a single worker gave {len(expected)}"
    return ""


def rate_per_s(times_ns: Sequence[int], start_ns: int, end_ns: int) -> float:
    """How many of the times lie in the interval, per second of it."""
    inside = sum(start_ns <= time_ns < end_ns for time_ns in times_ns)
    return inside * NS_PER_S / max(end_ns - start_ns, 1)
