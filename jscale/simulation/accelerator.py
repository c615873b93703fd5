"""How long a simulated accelerator takes for a step. Pure."""

import dataclasses
import math
from collections.abc import Iterable

from jscale.core.units import NS_PER_S
from jscale.simulation.batching import SimulatedBatch
from jscale.simulation.settings import ModelCosts


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """Steps in a row: the first takes `first_ns`, each `growth_ns` more than the last.

    Contexts grow by a token a step, and so does what a step reads of them.
    """

    first_ns: float
    growth_ns: float = 0.0

    def elapsed_ns(self, num_steps: int) -> int:
        """When so many steps are over."""
        growth_ns = self.growth_ns * num_steps * (num_steps - 1) / 2
        return round(self.first_ns * num_steps + growth_ns)

    def num_steps_in(self, passed_ns: int) -> int:
        """Steps that are over by then."""
        if self.growth_ns <= 0:
            num_steps = int(passed_ns / self.first_ns)
        else:
            half = self.first_ns / self.growth_ns - 0.5
            root = math.sqrt(half * half + 2 * passed_ns / self.growth_ns)
            num_steps = max(0, int(root - half))
        while self.elapsed_ns(num_steps + 1) <= passed_ns:
            num_steps += 1
        while num_steps and self.elapsed_ns(num_steps) > passed_ns:
            num_steps -= 1
        return num_steps


def step_times(
    model: ModelCosts, batches: Iterable[SimulatedBatch], num_blocks: int
) -> StepTimes:
    """What a stage of so many blocks takes for batches that it runs in one step.

    Weights are read once for all that decodes; prompts add what they compute. A step of
    prompts alone takes no less than reading the weights does.
    """
    num_decoding = context_tokens = prefill_tokens = 0
    for batch in batches:
        num_decoding += batch.num_decoding
        context_tokens += batch.context_tokens
        prefill_tokens += batch.prefill_tokens
    step_ns = prefill_tokens * NS_PER_S / model.prefill_tokens_per_s
    if num_decoding:
        step_ns += (
            model.decode_ns
            + num_decoding * model.decode_sequence_ns
            + context_tokens * model.decode_context_token_ns
        )
    elif prefill_tokens:
        step_ns = max(step_ns, model.decode_ns)
    share = num_blocks / model.num_blocks
    return StepTimes(
        first_ns=max(1.0, step_ns * share),
        growth_ns=num_decoding * model.decode_context_token_ns * share,
    )
