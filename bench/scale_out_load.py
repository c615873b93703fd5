"""A steady load: so many clients, each with a new request as soon as one is done."""

import dataclasses
import random
import threading
import time

import jscale


@dataclasses.dataclass(frozen=True)
class Served:
    """One request: when it was sent, when its tokens came, in seconds of one clock."""

    sent_s: float
    token_times_s: tuple[float, ...]

    @property
    def ttft_s(self) -> float:
        """Seconds from sending to the first token."""
        return self.token_times_s[0] - self.sent_s


class SteadyLoad:
    """Runs clients on threads from `start` to `stop`; seeded."""

    def __init__(
        self,
        client: jscale.Client,
        *,
        num_clients: int,
        prompt_tokens: int,
        max_tokens: int,
        seed: int,
    ) -> None:
        self._client = client
        self._prompt_tokens = prompt_tokens
        self._max_tokens = max_tokens
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._served: list[Served] = []
        self.failed: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._run, args=(seed * 1000 + index,))
            for index in range(num_clients)
        ]

    def start(self) -> None:
        """All clients begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[Served]:
        """Ends the clients and gives what they saw, cut-off requests too.

        What they could not get is in `failed`.
        """
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        return self._served

    def _run(self, seed: int) -> None:
        rng = random.Random(seed)
        while not self._stopping.is_set():
            try:
                self._request(rng)
            except jscale.JscaleError as error:
                self.failed.append(error)
                self._stopping.wait(1.0)

    def _request(self, rng: random.Random) -> None:
        prompt = [1, *(rng.randrange(3, 500) for _ in range(self._prompt_tokens - 1))]
        # Lengths are spread so that requests do not move in lock-step.
        max_tokens = rng.randrange(self._max_tokens // 2, self._max_tokens * 3 // 2)
        sent_s = time.monotonic()
        times = []
        stream = self._client.generate(
            prompt, max_tokens=max_tokens, ignore_eos=True, seed=rng.randrange(1 << 30)
        )
        for _ in stream:
            times.append(time.monotonic())
            if self._stopping.is_set():
                stream.cancel()
                break
        if times:
            with self._lock:
                self._served.append(Served(sent_s, tuple(times)))


def tokens_per_s(
    served: list[Served], start_s: float, end_s: float, *, bin_s: float = 1.0
) -> list[float]:
    """Tokens per second that all clients got, in bins from start to end."""
    counts = [0] * max(1, int((end_s - start_s) / bin_s))
    for request in served:
        for moment_s in request.token_times_s:
            index = int((moment_s - start_s) // bin_s)
            if 0 <= index < len(counts):
                counts[index] += 1
    return [count / bin_s for count in counts]
