"""Times of steps: many at once come to what each comes to by itself."""

import dataclasses

import pytest

from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.simulation import device
from jscale.simulation.accelerator import StepTimes, step_times
from jscale.simulation.batching import SimulatedBatch
from jscale.simulation.results import TraceRequest
from jscale.simulation.run import simulate_run
from tests.simulation.scenarios import draw
from tests.simulation.test_run import MODEL


@pytest.mark.parametrize("first_ns", [1.0, 7.3, 20e6])
@pytest.mark.parametrize("growth_ns", [0.0, 0.4, 1000.0])
def test_steps_are_over_when_their_times_are(first_ns, growth_ns):
    times = StepTimes(first_ns, growth_ns)
    passed_ns = 0.0
    for num_steps in range(200):
        assert times.elapsed_ns(num_steps) == pytest.approx(passed_ns, abs=1)
        end_ns = times.elapsed_ns(num_steps)
        assert times.num_steps_in(end_ns) >= num_steps
        if num_steps and times.elapsed_ns(num_steps - 1) < end_ns - 2:
            assert times.num_steps_in(end_ns - 2) == num_steps - 1
        passed_ns += first_ns + growth_ns * num_steps


def test_weights_are_read_once_for_all_that_share_a_step():
    batch = SimulatedBatch([], num_decoding=2, context_tokens=0, prefill_tokens=0)
    alone = step_times(MODEL, [batch], MODEL.num_blocks).first_ns
    together = step_times(MODEL, [batch, batch], MODEL.num_blocks).first_ns
    assert alone == together == MODEL.decode_ns


def test_stage_takes_its_share_of_the_blocks():
    batch = SimulatedBatch([], num_decoding=1, context_tokens=0, prefill_tokens=100)
    whole = step_times(MODEL, [batch], MODEL.num_blocks).first_ns
    assert whole == MODEL.decode_ns + 100 * NS_PER_S / MODEL.prefill_tokens_per_s
    assert step_times(MODEL, [batch], 2).first_ns == whole * 2 / MODEL.num_blocks


@pytest.mark.parametrize("seed", range(6))
def test_many_steps_as_one_event_serve_as_single_steps_do(seed, monkeypatch):
    """First and last tokens come when they come if every step is an event."""
    scenario = draw(seed)
    cluster = dataclasses.replace(scenario.cluster, message_jitter_ns=0)
    trace = [
        TraceRequest(at_ms * 37 * NS_PER_MS, 20 + at_ms % 90, 5 + at_ms * 7 % 40)
        for at_ms in range(40)
    ]

    def records() -> list[tuple[int | None, int | None]]:
        result = simulate_run(cluster, scenario.model, scenario.system, trace)
        return [(r.first_token_ns, r.finished_ns) for r in result.records]

    many = records()
    monkeypatch.setattr(device, "RUN_NS_MAX", 0)
    single = records()
    for (first, finished), (first_single, finished_single) in zip(
        many, single, strict=True
    ):
        assert first is not None
        assert finished is not None
        assert first == pytest.approx(first_single, abs=2_000)
        assert finished == pytest.approx(finished_single, abs=2_000)
