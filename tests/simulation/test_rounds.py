"""With a barrier, each step of a multicast ends before the next begins."""

import dataclasses

import pytest

from jscale.cluster.manager_policy import ManagerPolicy
from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.simulation.presets import H800_400G, model_costs
from jscale.simulation.run import simulate_run
from jscale.simulation.settings import Fault, ScaleRequest, System

MODEL = model_costs("llama-2-13b", H800_400G)
LINE_S = 26.032 / 50
CLUSTER = dataclasses.replace(H800_400G.cluster, devices_per_host=1)
"""A NIC for each worker."""


def whole_s(num_workers, *, kind="binomial", barrier_ms=10, faults=()):
    policy = ManagerPolicy(multicast_kind=kind, executes_while_loading=False)
    system = System(
        "rounds",
        policy,
        num_chunks=16,
        has_barrier=True,
        barrier_ns=round(barrier_ms * NS_PER_MS),
    )
    result = simulate_run(
        CLUSTER,
        MODEL,
        system,
        (),
        scale_requests=[ScaleRequest(NS_PER_S, num_workers)],
        faults=faults,
    )
    added = [worker for worker in result.workers if worker.started_ns > 0]
    return [
        None if w.complete_ns is None else w.complete_ns / NS_PER_S - 1 for w in added
    ]


@pytest.mark.parametrize("barrier_ms", [0, 10, 50])
@pytest.mark.parametrize("num_workers", [2, 4, 8])
def test_a_multicast_takes_its_steps_and_its_barriers(num_workers, barrier_ms):
    num_steps = 16 + {2: 1, 4: 2, 8: 3}[num_workers] - 1
    expected = num_steps * (LINE_S / 16 + barrier_ms / 1e3)
    last = max(whole_s(num_workers, barrier_ms=barrier_ms))
    # Executables come first, a step of their own; messages take 50 us each.
    assert expected <= last <= expected + barrier_ms / 1e3 + 0.02


@pytest.mark.parametrize(("kind", "published_s"), [("binomial", 0.80), ("tree", 1.46)])
def test_paper_lambda_scale_13b_one_to_eight(kind, published_s):
    """Its own binomial pipeline, and FaaSNet's tree in the same system."""
    last = max(whole_s(8, kind=kind, barrier_ms=8.5))
    assert last == pytest.approx(published_s, rel=0.15)


def test_a_member_that_is_lost_holds_nobody_up():
    killed = Fault(NS_PER_S + 300 * NS_PER_MS, "kill-worker", worker=2)
    times = whole_s(8, faults=[killed])
    assert times.count(None) == 1
    assert len(times) == 8  # It is replaced.
    assert max(each for each in times if each is not None) < 4 * LINE_S
