"""What pipelines bring while a model is loaded, by policy, and against the optimum.

python bench/pipelines.py
"""

import argparse
import dataclasses
import itertools
import random
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from jscale.core.ids import WorkerId
from jscale.core.topology import Topology
from jscale.core.units import NS_PER_S
from jscale.plan.execution import ExecutionPipeline, Holdings, PipelinePolicy
from jscale.plan.execution_policy import ExecutionPolicy
from jscale.plan.exhaustive_pipelines import best_pipelines
from jscale.plan.kinds import multicast
from jscale.plan.loading_history import Moment, loading_history, moments_of
from jscale.plan.pipeline_cost import ServingCosts, throughput
from jscale.plan.pipeline_policies import (
    BlitzScalePolicy,
    LambdaScalePolicy,
    LocalOnlyPolicy,
)
from jscale.plan.prefill_timeline import Prompt, prefill_timeline
from jscale.plan.zigzag import SourceAlonePolicy, StaticHalvesPolicy, ZigZagPolicy

NUM_BLOCKS = 8
SIZE_BYTES = 26_032_000_000
COSTS = ServingCosts(block_ns=26e6 / NUM_BLOCKS)
"""Llama-2 13B: 26 ms a token (λScale's artifact), 16 sequences to a step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_cases", type=int, default=60, help="for each size")
    parser.add_argument("--num_workers", type=int, default=10_000)
    options = parser.parse_args()
    _print_optimum(options.num_cases)
    for rate_bytes_per_s in (5e9, 50e9):
        _print_policies(rate_bytes_per_s)
    _print_turns()
    _print_zigzag()
    _print_scale(options.num_workers)


def _print_optimum(num_cases: int) -> None:
    """Tokens/s of the policy over those of the best pipelines that are allowed."""
    print("policy / optimum, any holdings: mean, worst, cases of 0.95 and more")
    print(f"{'':>10}{'':>24}" + "".join(f"{f'm = {m}':>22}" for m in (0, 0.25, 1)))
    sizes = ((1, 1, 4), (1, 2, 4), (2, 2, 3), (1, 3, 3), (1, 3, 4), (2, 3, 3))
    for num_sources, num_targets, num_blocks in (*sizes, (1, 4, 3), (0, 4, 3)):
        cells = []
        for merged_share in (0, 0.25, 1):
            costs = ServingCosts(merged_share=merged_share)
            policy = ExecutionPolicy(merged_share=merged_share)
            shares = [
                _share_of_best(holdings, policy, costs)
                for holdings in _cases(num_sources, num_targets, num_blocks, num_cases)
            ]
            good = sum(share >= 0.95 for share in shares) / len(shares)
            mean, worst = statistics.mean(shares), min(shares)
            cells.append(f"{mean:.3f} {worst:.3f} {good:.0%}")
        name = f"{num_sources} → {num_targets}, {num_blocks} blocks"
        print(f"{name:>34}" + "".join(f"{cell:>22}" for cell in cells))


def _share_of_best(
    holdings: Holdings, policy: ExecutionPolicy, costs: ServingCosts
) -> float:
    proposed = throughput(policy.propose(holdings), costs).tokens_per_s
    limit = policy.max_pipelines_per_worker
    _, best = best_pipelines(holdings, costs, max_pipelines_per_worker=limit)
    return proposed / best if best else 1.0


def _cases(
    num_sources: int, num_targets: int, num_blocks: int, num_cases: int
) -> Iterator[Holdings]:
    """Every kind of holdings but for the targets' order, or so many at random."""
    masks = range(1, 2**num_blocks - 1)
    every = list(itertools.combinations_with_replacement(masks, num_targets))
    rng = random.Random(0)
    for held in rng.sample(every, min(len(every), num_cases)):
        ready: dict[WorkerId, list[int]] = {
            WorkerId(f"s{index}"): list(range(num_blocks))
            for index in range(num_sources)
        }
        for index, mask in enumerate(held):
            blocks = [block for block in range(num_blocks) if mask >> block & 1]
            ready[WorkerId(f"t{index}")] = blocks
        yield Holdings(ready, num_blocks)


def _moments(
    num_sources: int,
    num_targets: int,
    rate_bytes_per_s: float,
    *,
    is_shifted: bool = True,
) -> list[Moment]:
    """Holdings over a multicast; not shifted: all sub-groups in the same order."""
    plan = multicast(num_sources, num_targets, 256, num_leading=0)
    if not is_shifted:
        plan = multicast(num_sources, num_targets, 256, num_leading=256)
    topology = Topology.uniform(plan.members, rate_bytes_per_s)
    sources = plan.members[:num_sources]
    return list(
        moments_of(
            plan, sources, topology, num_blocks=NUM_BLOCKS, size_bytes=SIZE_BYTES
        )
    )


def _print_policies(rate_bytes_per_s: float) -> None:
    """A whole scale-out of 13B, binomial plans of 256 chunks, full demand."""
    load_ms = SIZE_BYTES / rate_bytes_per_s * 1e3
    print(
        f"\ntokens while loading × load, then serve: before (after) what hand-overs "
        f"cost; line {load_ms:.0f} ms\n(* all sub-groups in the same order)"
    )
    scale_outs = ((1, 1), (1, 3), (1, 7), (2, 6), (4, 12))
    print(f"{'':>26}" + "".join(f"{f'{k} → {n}':>16}" for k, n in scale_outs))
    policies: dict[str, dict[int, PipelinePolicy]] = {
        "jscale, g = 1.5": {k: ExecutionPolicy() for k in (1, 2, 4)},
        "jscale, g = 1": {k: ExecutionPolicy(recut_growth=1) for k in (1, 2, 4)},
        "jscale, told the cost": {k: _told(rate_bytes_per_s) for k in (1, 2, 4)},
        "jscale, no sources": {k: ExecutionPolicy(0) for k in (1, 2, 4)},
        "λScale, Algorithm 2": {k: LambdaScalePolicy(k) for k in (1, 2, 4)},
        "BlitzScale, pairs": {k: BlitzScalePolicy() for k in (1, 2, 4)},
    }
    waves = dataclasses.replace(COSTS, is_lock_step=True)
    for is_shifted in (True, False):
        moments = {
            (k, n): _moments(k, n, rate_bytes_per_s, is_shifted=is_shifted)
            for k, n in scale_outs
            if is_shifted or k > 1
        }
        for name, by_sources in policies.items():
            label = name if is_shifted else f"{name}*"
            _print_row(label, by_sources, moments, scale_outs, COSTS)
            if name.startswith("λ") and is_shifted:
                label = "λScale, artifact's waves"
                _print_row(label, by_sources, moments, scale_outs, waves)


def _told(rate_bytes_per_s: float) -> ExecutionPolicy:
    """Ours, if it knows what moving the KV of full batches costs of the load time."""
    load_ns = SIZE_BYTES / rate_bytes_per_s * NS_PER_S
    kv_bytes = 2 * COSTS.sequences_per_step * 512 * NUM_BLOCKS * COSTS.kv_bytes
    handover_share = kv_bytes / COSTS.link_bytes_per_s * NS_PER_S / load_ns
    return ExecutionPolicy(handover_share=handover_share)


def _print_row(
    label: str,
    by_sources: dict[int, PipelinePolicy],
    moments: dict[tuple[int, int], list[Moment]],
    scale_outs: Sequence[tuple[int, int]],
    costs: ServingCosts,
) -> None:
    cells = []
    for scale_out in scale_outs:
        if scale_out not in moments:
            cells.append("")
            continue
        found = loading_history(by_sources[scale_out[0]], moments[scale_out], costs)
        base = loading_history(LocalOnlyPolicy(), moments[scale_out], costs).tokens
        net = found.tokens - found.handed_over_tokens
        cells.append(f"{found.tokens / base:.2f} ({net / base:.2f})")
    print(f"{label:>26}" + "".join(f"{cell:>16}" for cell in cells))


def _print_turns() -> None:
    """What the source's own share of its steps costs all together."""
    print("\nsteps of a source's own for each for others: tokens × load, then serve")
    scale_outs = ((1, 1), (1, 3), (1, 7), (2, 6))
    print(f"{'':>26}" + "".join(f"{f'{k} → {n}':>16}" for k, n in scale_outs))
    for turns in (1, 0.5, 0.25, 0):
        costs = dataclasses.replace(COSTS, local_turns=turns)
        moments = {(k, n): _moments(k, n, 5e9) for k, n in scale_outs}
        policies: dict[int, PipelinePolicy] = {k: ExecutionPolicy() for k in (1, 2)}
        _print_row(f"{turns}", policies, moments, scale_outs, costs)


def _print_zigzag() -> None:
    """A burst of prompts on a source and a target that loads a block every so often."""
    print(
        "\nprompts of 8 blocks: last one ended, as a share of the source's time alone"
    )
    print(f"{'block times per load':>26}{'prompts':>10}{'zigzag':>10}{'halves':>10}")
    for pace, num_prompts in itertools.product((0, 2, 8, 32), (4, 16, 64)):
        loaded_ns = [pace * (block + 1) for block in range(NUM_BLOCKS)]
        prompts = [Prompt(0, 1)] * num_prompts
        alone, zigzag, halves = (
            prefill_timeline(policy, prompts, loaded_ns).makespan_ns
            for policy in (SourceAlonePolicy(), ZigZagPolicy(), StaticHalvesPolicy())
        )
        cells = f"{zigzag / alone:>10.2f}{halves / alone:>10.2f}"
        print(f"{pace:>26}{num_prompts:>10}{cells}")


def _print_scale(num_workers: int) -> None:
    """Processor time of one proposal, the first and with everything open."""
    print(f"\n{num_workers} workers, 8 blocks: first proposal, again, ms of one core")
    rng = random.Random(0)
    cases: dict[str, Callable[[int], Collection[int]]] = {
        "one source, same blocks": lambda i: range(8) if i == 0 else range(3),
        "half are complete": lambda i: range(8) if i % 2 else range(3),
        "first blocks, 1 in 10": lambda i: range(8) if i % 10 == 0 else range(i % 8),
        "any blocks, 1 in 10": lambda i: (
            range(8) if i % 10 == 0 else [b for b in range(8) if rng.random() < 0.3]
        ),
        "all are complete": lambda _: range(8),
    }
    policy = ExecutionPolicy()
    for name, blocks_of in cases.items():
        ready = {WorkerId(f"w{i}"): blocks_of(i) for i in range(num_workers)}
        times_ms = []
        pipelines: tuple[ExecutionPipeline, ...] = ()
        for _ in range(2):
            started_ns = time.process_time_ns()
            pipelines = policy.propose(Holdings(ready, 8), pipelines)
            times_ms.append((time.process_time_ns() - started_ns) / NS_PER_S * 1e3)
        print(f"{name:>26}{times_ms[0]:>10.0f}{times_ms[1]:>10.0f}")


if __name__ == "__main__":
    main()
