"""When a pair of workers ends which prompt, by a policy: on a virtual clock."""

import dataclasses
from collections.abc import Sequence

from jscale.core.errors import ConfigError
from jscale.plan.zigzag import PrefillPolicy, Turn


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt: when it comes, and how long a block takes to compute it.

    Raises:
      ConfigError: a time is not positive.
    """

    arrival_ns: int
    block_ns: int

    def __post_init__(self) -> None:
        if self.arrival_ns < 0 or self.block_ns <= 0:
            raise ConfigError(
                f"prompt that comes at {self.arrival_ns} ns and takes {self.block_ns} "
                "ns a block: give 0 or more, and more than 0"
            )


@dataclasses.dataclass(frozen=True)
class Run:
    """What one worker ran without a pause: blocks of one prompt, by its number."""

    is_target: bool
    prompt: int
    first_block: int
    num_blocks: int
    start_ns: int
    end_ns: int


@dataclasses.dataclass(frozen=True)
class PrefillTimeline:
    """All runs in order of their start, and when each prompt ended."""

    runs: tuple[Run, ...]
    ended_ns: tuple[int, ...]

    @property
    def makespan_ns(self) -> int:
        """When the last prompt ended."""
        return max(self.ended_ns, default=0)


def prefill_timeline(
    policy: PrefillPolicy,
    prompts: Sequence[Prompt],
    loaded_ns: Sequence[int],
    *,
    hop_ns: int = 0,
) -> PrefillTimeline:
    """What a source and a loading target do, turn by turn.

    Both are asked whenever they are free and something has changed, the source first.
    A turn that is begun is finished.

    Args:
      policy: who runs what.
      prompts: in order of arrival.
      loaded_ns: when the target holds each block; not falling, and as many as the model
        has blocks.
      hop_ns: what a turn of the source takes longer if the target began the prompt.

    Raises:
      ConfigError: arrivals or loading times fall, or there is no block.
    """
    arrivals = [prompt.arrival_ns for prompt in prompts]
    if not loaded_ns or sorted(loaded_ns) != list(loaded_ns):
        raise ConfigError(f"blocks loaded at {list(loaded_ns)} ns: give rising times")
    if sorted(arrivals) != arrivals:
        raise ConfigError(f"prompts that come at {arrivals} ns: give rising times")
    pair = _Pair(policy, prompts, loaded_ns, hop_ns)
    now_ns = 0
    while not pair.is_done:
        pair.start_turns(now_ns)
        now_ns = pair.next_change_ns(now_ns)
        pair.end_turns(now_ns)
    return PrefillTimeline(tuple(pair.runs), tuple(pair.ended_ns))


class _Pair:
    """The state of source and target while a timeline is made."""

    def __init__(
        self,
        policy: PrefillPolicy,
        prompts: Sequence[Prompt],
        loaded_ns: Sequence[int],
        hop_ns: int,
    ) -> None:
        self._policy = policy
        self._prompts = prompts
        self._loaded_ns = loaded_ns
        self._hop_ns = hop_ns
        self._num_done = [0] * len(prompts)
        self._running: dict[bool, Run] = {}
        self.runs: list[Run] = []
        self.ended_ns = [0] * len(prompts)

    @property
    def is_done(self) -> bool:
        return all(num == len(self._loaded_ns) for num in self._num_done)

    def start_turns(self, now_ns: int) -> None:
        """Asks whoever is free, the source first."""
        num_blocks = len(self._loaded_ns)
        num_loaded = sum(loaded <= now_ns for loaded in self._loaded_ns)
        for is_target in (False, True):
            if is_target in self._running:
                continue
            taken = {run.prompt for run in self._running.values()}
            waiting = [
                number
                for number, prompt in enumerate(self._prompts)
                if prompt.arrival_ns <= now_ns
                and self._num_done[number] < num_blocks
                and number not in taken
            ]
            policy = self._policy
            ask = policy.target_turn if is_target else policy.source_turn
            turn = ask(
                [self._num_done[number] for number in waiting],
                num_loaded=num_loaded,
                num_blocks=num_blocks,
            )
            if turn is not None:
                limit = num_loaded if is_target else num_blocks
                self._start(is_target, waiting[turn.index], turn, limit, now_ns)

    def next_change_ns(self, now_ns: int) -> int:
        """When a turn ends, a block is loaded or a prompt comes next."""
        changes = [run.end_ns for run in self._running.values()]
        changes += [each for each in self._loaded_ns if each > now_ns]
        changes += [p.arrival_ns for p in self._prompts if p.arrival_ns > now_ns]
        assert changes, "the policy leaves prompts waiting for nothing"
        return min(changes)

    def end_turns(self, now_ns: int) -> None:
        """Takes note of what has ended by now."""
        for is_target, run in list(self._running.items()):
            if run.end_ns <= now_ns:
                del self._running[is_target]
                self._num_done[run.prompt] += run.num_blocks
                self.ended_ns[run.prompt] = run.end_ns

    def _start(
        self, is_target: bool, number: int, turn: Turn, limit: int, now_ns: int
    ) -> None:
        first = self._num_done[number]
        assert first + turn.num_blocks <= limit, "blocks that are not there"
        hop_ns = self._hop_ns if first and not is_target else 0
        end_ns = now_ns + hop_ns + turn.num_blocks * self._prompts[number].block_ns
        run = Run(is_target, number, first, turn.num_blocks, now_ns, end_ns)
        self._running[is_target] = run
        self.runs.append(run)
