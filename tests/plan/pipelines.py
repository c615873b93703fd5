"""What tests of pipelines share: holdings in short, and pipelines as text."""

import random

from jscale.core.ids import WorkerId
from jscale.plan.execution import ExecutionPipeline, Holdings


def pipeline(*workers):
    """`pipeline("w1", "w0", "w0")`: who runs each block."""
    return ExecutionPipeline.of_workers([WorkerId(name) for name in workers])


def holdings_of(num_sources, masks, num_blocks):
    """Sources s0, s1, …, and a target t0, t1, … for each mask."""
    ready = {WorkerId(f"s{i}"): range(num_blocks) for i in range(num_sources)}
    for index, mask in enumerate(masks):
        held = [block for block in range(num_blocks) if mask >> block & 1]
        ready[WorkerId(f"t{index}")] = held
    return Holdings(ready, num_blocks)


def random_holdings(seed, num_sources_max, num_targets_max, num_blocks_max):
    """Some of each, every target with some blocks, but not all."""
    rng = random.Random(seed)
    num_blocks = rng.randint(2, num_blocks_max)
    masks = [
        rng.randrange(1, 2**num_blocks - 1)
        for _ in range(rng.randint(1, num_targets_max))
    ]
    return holdings_of(rng.randint(0, num_sources_max), masks, num_blocks)
