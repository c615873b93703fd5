"""What `simulate_run` comes to, against what can be worked out by hand."""

import dataclasses

import pytest

from jscale.cluster.manager_policy import ManagerPolicy
from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.simulation.results import SimulationResult, TraceRequest
from jscale.simulation.run import simulate_run
from jscale.simulation.settings import ClusterSpec, ModelCosts, ScaleRequest, System

MODEL = ModelCosts(
    name="toy",
    size_bytes=8_000_000_000,
    num_layers=8,
    num_blocks=8,
    prefill_tokens_per_s=10_000,
    decode_ns=20 * NS_PER_MS,
    activation_bytes_per_token=8_192,
)
SYSTEM = System("jscale", ManagerPolicy())


def cluster(num_hosts: int) -> ClusterSpec:
    return ClusterSpec(
        name="toy",
        num_hosts=num_hosts,
        devices_per_host=1,
        nic_bytes_per_s=10e9,
        local_bytes_per_s=100e9,
        host_to_device_bytes_per_s=20e9,
        disk_bytes_per_s=2e9,
        executables_load_ns=20 * NS_PER_MS,
    )


def scale_out(num_hosts: int, num_requests: int = 0) -> SimulationResult:
    trace = [TraceRequest(NS_PER_S, 300, 50) for _ in range(num_requests)]
    asked = ScaleRequest(NS_PER_S, num_hosts)
    return simulate_run(
        cluster(num_hosts), MODEL, SYSTEM, trace, scale_requests=[asked]
    )


def test_first_token_of_a_lone_request_comes_after_its_prompt_is_computed():
    result = simulate_run(cluster(1), MODEL, SYSTEM, [TraceRequest(NS_PER_S, 400, 11)])
    (record,) = result.records
    computed_ns = 400 * NS_PER_S // 10_000
    latency_ns = 2 * cluster(1).message_latency_ns
    assert record.first_token_ns == NS_PER_S + computed_ns + latency_ns
    assert record.finished_ns == record.first_token_ns + 10 * MODEL.decode_ns
    assert sum(result.tokens) == pytest.approx(11)
    assert sum(result.prefilled) == pytest.approx(400)


def test_long_prompts_come_in_chunks_that_hold_up_those_who_decode():
    trace = [TraceRequest(0, 10, 100), TraceRequest(NS_PER_S, 5_000, 2)]
    result = simulate_run(cluster(1), MODEL, SYSTEM, trace)
    chunk_ns = (MODEL.step_tokens_max - 1) * NS_PER_S // 10_000
    assert result.records[0].gap_ns_max == pytest.approx(
        MODEL.decode_ns + chunk_ns, abs=2
    )


@pytest.mark.parametrize("num_members", [2, 3, 4, 7, 8, 12])
def test_multicast_takes_little_more_than_the_line_allows(num_members):
    result = scale_out(num_members)
    line_ns = MODEL.size_bytes * NS_PER_S / 10e9
    took_ns = [w.complete_ns - NS_PER_S for w in result.workers[1:]]
    assert len(took_ns) == num_members - 1
    assert line_ns <= max(took_ns) <= 1.1 * line_ns


def test_what_one_reads_from_disk_the_others_have_hardly_later():
    asked = ScaleRequest(0, 4)
    result = simulate_run(
        cluster(4), MODEL, SYSTEM, [], num_workers=0, scale_requests=[asked]
    )
    read_ns = MODEL.size_bytes * NS_PER_S / 2e9
    took_ns = sorted(w.complete_ns - w.started_ns for w in result.workers)
    assert len(took_ns) == 4
    assert all(read_ns <= each <= 1.05 * read_ns for each in took_ns), took_ns


def test_targets_serve_before_they_hold_the_whole_model():
    result = scale_out(4, num_requests=200)
    assert all(record.finished_ns for record in result.records)
    targets = [w for w in result.workers if w.started_ns > 0]
    assert len(targets) == 3
    for worker in targets:
        assert worker.serving_ns < worker.complete_ns


def test_equal_runs_come_to_equal_results():
    assert scale_out(4, num_requests=50) == scale_out(4, num_requests=50)


def test_trace_that_is_out_of_order_is_refused():
    trace = [TraceRequest(5, 1, 1), TraceRequest(4, 1, 1)]
    with pytest.raises(ConfigError, match="sort the trace"):
        simulate_run(cluster(1), MODEL, SYSTEM, trace)


def test_more_workers_than_devices_are_refused():
    with pytest.raises(ConfigError, match="give 0 to 1"):
        simulate_run(cluster(1), MODEL, SYSTEM, [], num_workers=2)


def test_messages_that_are_late_at_random_change_the_times_but_not_the_outcome():
    shaky = dataclasses.replace(cluster(3), message_jitter_ns=5 * NS_PER_MS)
    trace = [TraceRequest(NS_PER_S + i * 10 * NS_PER_MS, 100, 20) for i in range(60)]
    asked = [ScaleRequest(NS_PER_S, 3)]

    def run(seed: int) -> SimulationResult:
        return simulate_run(shaky, MODEL, SYSTEM, trace, seed, scale_requests=asked)

    assert run(1) == run(1) != run(2)
    for seed in range(5):
        assert all(record.finished_ns for record in run(seed).records)
