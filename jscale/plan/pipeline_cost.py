"""What a set of pipelines brings: tokens per second while a model is being loaded.

The model, in the words of `ServingCosts`. A micro-batch takes `block_ns` for each
block, whatever the number of its rows up to `sequences_per_step`, and `hop_ns` from a
stage to the next (and from the last to the head). A pipeline has as many micro-batches
in flight as it has stages, a local replica one. So a pipeline of s stages makes at most

    s / (num_blocks · block_ns + s · hop_ns)

steps in a nanosecond, and less where a worker is busy:

- A worker takes turns. Of all that the pipelines make it run, what they have waiting
  for the same blocks runs as one step, in which every micro-batch but the first takes
  `merged_share` of its time alone.
- A worker with a local replica makes `local_turns` steps of it before each step for
  others, if there is that much to do; what others leave is the local replica's too.
- All pipelines get faster together until a worker is fully used; its pipelines stay as
  fast as they are, the others go on (max-min fairness, which is what turns come to).
  Hence the busiest worker bounds a pipeline.

Sequences go to local replicas first, as the router sends them, and what does not fit
there goes to pipelines in proportion to their room; what nobody has room for waits, and
adds nothing. A local replica that helps others loses what `source_loss` says.
"""

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.core.units import NS_PER_S
from jscale.plan.execution import ExecutionPipeline, Holdings


@dataclasses.dataclass(frozen=True)
class ServingCosts:
    """What computing and moving costs on workers that are alike.

    Args:
      block_ns: a micro-batch through one block.
      hop_ns: activations from a worker to the next.
      sequences_per_step: rows of a full micro-batch that decodes.
      merged_share: what each further micro-batch adds to a step, as a share of a step
        alone: 0 where reading the weights takes all the time, 1 where rows do.
      local_turns: steps of a local replica for each step for others.
      is_lock_step: all stages of a pipeline start together when the slowest is done and
        a controller knows it, one hop away (λScale's artifact).
      prefill_ns: computing the KV of one token in one block anew.
      kv_bytes: the KV of one token in one block.
      link_bytes_per_s: at which KV is moved between workers.

    Raises:
      ConfigError: a value is out of its range.
    """

    block_ns: float = 1_750_000
    hop_ns: float = 50_000
    sequences_per_step: int = 16
    merged_share: float = 0.25
    local_turns: float = 1.0
    is_lock_step: bool = False
    prefill_ns: float = 12_500
    kv_bytes: int = 65_536
    link_bytes_per_s: float = 50e9

    def __post_init__(self) -> None:
        if self.block_ns <= 0 or self.sequences_per_step < 1:
            raise ConfigError(
                f"block_ns {self.block_ns}, sequences_per_step "
                f"{self.sequences_per_step}: give more than 0"
            )
        if not 0 <= self.merged_share <= 1:
            raise ConfigError(f"merged_share {self.merged_share}: give 0 to 1")
        for name in ("hop_ns", "local_turns", "prefill_ns", "kv_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} {getattr(self, name)}: give 0 or more")
        if self.link_bytes_per_s <= 0:
            raise ConfigError(
                f"link_bytes_per_s {self.link_bytes_per_s}: give more than 0"
            )


DEFAULT_COSTS = ServingCosts()


@dataclasses.dataclass(frozen=True)
class Throughput:
    """What each of a set of pipelines brings, in the order in which they were given."""

    pipelines: tuple[ExecutionPipeline, ...]
    steps_per_s: tuple[float, ...]
    tokens_per_s_of: tuple[float, ...]
    alone_tokens_per_s: float
    """What the local replicas would bring if their workers helped nobody."""

    @functools.cached_property
    def tokens_per_s(self) -> float:
        """Of all together."""
        return sum(self.tokens_per_s_of)

    @property
    def source_loss(self) -> float:
        """Tokens a second that the local replicas lose as their workers help others."""
        own = sum(
            rate
            for pipeline, rate in zip(self.pipelines, self.tokens_per_s_of, strict=True)
            if pipeline.is_local
        )
        return self.alone_tokens_per_s - own


def throughput(
    pipelines: Sequence[ExecutionPipeline],
    costs: ServingCosts = DEFAULT_COSTS,
    *,
    num_sequences: float | None = None,
) -> Throughput:
    """Tokens per second of pipelines that are open together.

    With 4 blocks of 1 ms, one sequence to a step and hops for nothing, `w0[0-3]` brings
    250 tokens/s. Together with `w1[0-1] → w0[2-3]` it is 333: a round of w0 is a local
    step of 4 blocks and one of 2, which end 2 tokens in 6 ms.

    Args:
      pipelines: local ones too; each at most once.
      costs: of the workers.
      num_sequences: that are being served or wait; None: more than there is room for.
    """
    sizes = _sizes(pipelines, costs, num_sequences)
    staged = [p for p in pipelines if not p.is_local and sizes[p].num_in_flight]
    rates = _staged_rates(pipelines, staged, sizes, costs)
    busy = _busy(staged, rates, costs)
    steps, tokens = [], []
    alone = 0.0
    for pipeline in pipelines:
        rate = rates.get(pipeline, 0.0)
        if pipeline.is_local:
            local_ns = pipeline.num_blocks * costs.block_ns
            rate = max(0.0, 1 - busy.get(pipeline.head, 0.0)) / local_ns
            alone += sizes[pipeline].num_rows * NS_PER_S / local_ns
        steps.append(rate * NS_PER_S)
        tokens.append(rate * NS_PER_S * sizes[pipeline].num_rows)
    return Throughput(tuple(pipelines), tuple(steps), tuple(tokens), alone)


def token_ns(pipeline: ExecutionPipeline, costs: ServingCosts = DEFAULT_COSTS) -> float:
    """From one token of a sequence to its next, if workers have nothing else to do."""
    compute_ns = pipeline.num_blocks * costs.block_ns
    if pipeline.is_local:
        return compute_ns
    if costs.is_lock_step:
        return len(pipeline.stages) * _wave_ns(pipeline, costs)
    return compute_ns + len(pipeline.stages) * costs.hop_ns


def handover_ns(
    older: ExecutionPipeline,
    newer: ExecutionPipeline,
    num_tokens: int,
    costs: ServingCosts = DEFAULT_COSTS,
) -> float:
    """How long sequences stand still that go from one pipeline to another.

    Their KV is computed again, for every block, or for the first stage's alone where
    the newer pipeline continues the older; or the KV of blocks that another worker runs
    is moved: whichever is sooner.

    Args:
      older: where they are.
      newer: where they go.
      num_tokens: of all of them together, prompts included.
      costs: of the workers.
    """
    num_computed = newer.num_blocks
    if newer.continues(older):
        num_computed = newer.stages[0].num_blocks
    num_moved = sum(
        before != after
        for before, after in zip(_runners(older), _runners(newer), strict=True)
    )
    moved_ns = num_moved * costs.kv_bytes * NS_PER_S / costs.link_bytes_per_s
    return num_tokens * min(num_computed * costs.prefill_ns, moved_ns)


def bound_tokens_per_s(
    holdings: Holdings, costs: ServingCosts = DEFAULT_COSTS
) -> float:
    """More than any pipelines can bring without merged steps, hops being free.

    Whatever the pipelines, every token passes every block. Of the workers that hold any
    of a set S of blocks, each can run block_ns⁻¹ blocks in a nanosecond, and must run
    |S| blocks for a token: the least of these rates over all S. It is reached by work
    that may go anywhere for each block (max-flow min-cut), with local replicas closed
    where that is better. Takes time in proportion to 2^num_blocks.
    """
    masks = [mask for mask in holdings.masks.values() if mask]
    blocks = range(holdings.num_blocks)
    least = min(
        sum(bool(mask & sum(1 << b for b in chosen)) for mask in masks) / size
        for size in range(1, holdings.num_blocks + 1)
        for chosen in itertools.combinations(blocks, size)
    )
    return least * costs.sequences_per_step * NS_PER_S / costs.block_ns


@dataclasses.dataclass(frozen=True)
class _Size:
    """Micro-batches that a pipeline has in flight, and the rows of each."""

    num_in_flight: int
    num_rows: float


def _sizes(
    pipelines: Sequence[ExecutionPipeline],
    costs: ServingCosts,
    num_sequences: float | None,
) -> dict[ExecutionPipeline, _Size]:
    full = costs.sequences_per_step
    num_local = sum(p.is_local for p in pipelines)
    num_stages = sum(len(p.stages) for p in pipelines if not p.is_local)
    local_share = staged_share = 1.0
    if num_sequences is not None:
        local_share = min(1.0, num_sequences / max(1, num_local * full))
        rest = max(0.0, num_sequences - num_local * full)
        staged_share = min(1.0, rest / max(1, num_stages * full))
    sizes = {}
    for pipeline in pipelines:
        if pipeline.is_local:
            sizes[pipeline] = _Size(1, local_share * full)
            continue
        rows = staged_share * len(pipeline.stages) * full
        num_in_flight = min(len(pipeline.stages), math.ceil(rows / full))
        sizes[pipeline] = _Size(num_in_flight, rows / max(1, num_in_flight))
    return sizes


def _wave_ns(pipeline: ExecutionPipeline, costs: ServingCosts) -> float:
    longest = max(stage.num_blocks for stage in pipeline.stages)
    return longest * costs.block_ns + 2 * costs.hop_ns


def _staged_rates(
    pipelines: Sequence[ExecutionPipeline],
    staged: Sequence[ExecutionPipeline],
    sizes: Mapping[ExecutionPipeline, _Size],
    costs: ServingCosts,
) -> dict[ExecutionPipeline, float]:
    """Steps per ns of pipelines with several stages, by progressive filling.

    All that are not held back yet have the same rate, the level. A worker's load is
    linear in the level until somebody is held back, so the next level at which that
    happens can be computed. Takes time in proportion to the workers for each level.
    """
    has_local = {p.head for p in pipelines if p.is_local}
    lanes = _lanes(staged)
    caps = {p: sizes[p].num_in_flight / token_ns(p, costs) for p in staged}
    rates: dict[ExecutionPipeline, float] = {}
    growing = set(staged)
    while growing:
        levels = {p: caps[p] for p in growing}
        for worker, of_worker in lanes.items():
            level = _full_level(
                of_worker, growing, rates, costs, has_local=worker in has_local
            )
            for lane in of_worker:
                for pipeline in lane.pipelines:
                    if pipeline in growing:
                        levels[pipeline] = min(levels[pipeline], level)
        lowest = min(levels.values())
        held = {p for p in growing if levels[p] <= lowest * (1 + 1e-9)}
        rates.update(dict.fromkeys(held, lowest))
        growing -= held
    return rates


@dataclasses.dataclass(frozen=True)
class _Lane:
    """What a worker runs in one step for all of these pipelines."""

    num_blocks: int
    pipelines: tuple[ExecutionPipeline, ...]


def _lanes(
    staged: Iterable[ExecutionPipeline],
) -> dict[WorkerId, list[_Lane]]:
    """What each worker runs for others, by the blocks that it runs."""
    found: dict[WorkerId, dict[tuple[int, int], list[ExecutionPipeline]]] = (
        collections.defaultdict(lambda: collections.defaultdict(list))
    )
    for pipeline in staged:
        for stage in pipeline.stages:
            found[stage.worker][stage.first_block, stage.num_blocks].append(pipeline)
    return {
        worker: [_Lane(key[1], tuple(pipelines)) for key, pipelines in lanes.items()]
        for worker, lanes in found.items()
    }


def _full_level(
    lanes: Sequence[_Lane],
    growing: set[ExecutionPipeline],
    rates: Mapping[ExecutionPipeline, float],
    costs: ServingCosts,
    *,
    has_local: bool,
) -> float:
    """The level at which a worker has no time left; infinite if nothing there grows."""
    held_load, slope = 0.0, 0.0
    num_turns = 0
    merged = costs.merged_share
    for lane in lanes:
        held = [rates[p] for p in lane.pipelines if p not in growing]
        num_growing = len(lane.pipelines) - len(held)
        lane_ns = lane.num_blocks * costs.block_ns
        held_load += lane_ns * merged * sum(held)
        if num_growing:
            num_turns += 1
            slope += lane_ns * (1 - merged + merged * num_growing)
        else:
            held_load += lane_ns * (1 - merged) * max(held)
    if not slope:
        return math.inf
    if has_local:
        num_blocks = lanes[0].pipelines[0].num_blocks
        slope += costs.local_turns * num_turns * num_blocks * costs.block_ns
    return max(0.0, 1 - held_load) / slope


def _busy(
    staged: Sequence[ExecutionPipeline],
    rates: Mapping[ExecutionPipeline, float],
    costs: ServingCosts,
) -> dict[WorkerId, float]:
    """Which share of its time each worker runs for pipelines of several stages."""
    merged = costs.merged_share
    busy: dict[WorkerId, float] = {}
    for worker, lanes in _lanes(staged).items():
        busy[worker] = sum(
            lane.num_blocks
            * costs.block_ns
            * (
                (1 - merged) * max(rates[p] for p in lane.pipelines)
                + merged * sum(rates[p] for p in lane.pipelines)
            )
            for lane in lanes
        )
    return busy


def _runners(pipeline: ExecutionPipeline) -> list[WorkerId]:
    """Who runs each block."""
    return [stage.worker for stage in pipeline.stages for _ in stage.blocks]
