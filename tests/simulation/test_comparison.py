"""All systems run the same trace, on the same machines, and are compared fairly."""

import json
import math

import pytest

import jscale
from jscale.core.errors import ConfigError
from jscale.simulation.comparison import finite
from jscale.simulation.presets import H800_400G, model_costs
from jscale.simulation.results import TraceRequest
from jscale.simulation.systems import SYSTEMS, Setting, find_systems

BURST = [TraceRequest(1_000_000_000, 64, 32) for _ in range(40)]


@pytest.fixture(scope="module")
def compared():
    shares = []
    comparison = jscale.simulate(
        BURST,
        ["all"],
        num_workers=4,
        model="llama-2-7b",
        progress=lambda name, share: shares.append((name, share)),
    )
    return comparison, shares


def test_every_system_serves_every_request(compared):
    comparison, _ = compared
    assert [run.system.name for run in comparison.runs] == list(SYSTEMS)
    for run in comparison.runs:
        assert run.summary.num_failed == 0, run.system.name
        assert sum(run.result.tokens) == pytest.approx(40 * 32), run.system.name


def test_nobody_gets_more_workers_than_there_may_be(compared):
    comparison, _ = compared
    for run in comparison.runs:
        assert max(number for _, number in run.result.wanted) <= 4, run.system.name


def test_nobody_takes_less_time_of_accelerators_than_the_ideal(compared):
    comparison, _ = compared
    took = {run.system.name: run.summary.accelerator_s for run in comparison.runs}
    assert min(took, key=lambda name: took[name]) == "ideal"


def test_reading_a_disk_takes_longer_than_any_multicast(compared):
    comparison, _ = compared
    whole = {run.system.name: run.summary.complete_s.largest for run in comparison.runs}
    assert whole["serverlessllm-ssd"] == pytest.approx(13.477 / 4.6, rel=0.01)
    assert all(
        whole["serverlessllm-ssd"] > whole[name]
        for name in SYSTEMS
        if not name.startswith("serverlessllm")
    )


def test_progress_grows_from_nothing_to_all(compared):
    _, shares = compared
    assert shares[0] == ("jscale", 0.0)
    assert [share for _, share in shares] == sorted(share for _, share in shares)
    assert shares[-1] == ("ideal", 1.0)


def test_a_comparison_is_json_without_infinity(compared):
    comparison, _ = compared
    text = json.dumps(comparison.as_json(), allow_nan=False)
    systems = json.loads(text)["systems"]
    assert [system["name"] for system in systems] == list(SYSTEMS)
    assert systems[0]["ttft_s"]["p90"] == comparison["jscale"].summary.ttft_s.p90
    assert finite({"a": math.inf, "b": [1, 2], "c": 3.0}) == {
        "a": None,
        "b": [1, 2],
        "c": 3.0,
    }


def test_a_comparison_describes_itself(compared):
    comparison, _ = compared
    text = comparison.describe()
    assert "given requests: 40 requests of llama-2-7b on h800-400g" in text
    assert all(f" {name} " in text for name in SYSTEMS)


def test_equal_runs_are_equal():
    first, second = (
        jscale.simulate(BURST, "jscale", num_workers=4, model="llama-2-7b")
        for _ in range(2)
    )
    assert first["jscale"].result == second["jscale"].result


def setting():
    model = model_costs("llama-2-13b", H800_400G)
    return Setting(H800_400G.cluster_for(model, 12), model, num_min=1, num_max=12)


def test_a_worker_is_kept_for_as_long_as_loading_one_takes():
    (ssd,) = find_systems("serverlessllm-ssd", setting())
    assert ssd.policy.scaling.keep_alive_ns == pytest.approx(26.032 / 4.6 * 1e9)
    (nccl,) = find_systems("nccl", setting())
    assert nccl.policy.scaling.keep_alive_ns == pytest.approx(26.032 / 50 * 1e9)


def test_a_system_may_be_given_itself():
    (ours,) = find_systems("jscale", setting())
    assert find_systems([ours, "ideal"], setting())[0] is ours


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"policy": "sllm"}, "system 'sllm': choose some of jscale, lambda-scale"),
        ({"policy": ["jscale", "jscale"]}, "system jscale: it is named twice"),
        ({"policy": []}, "no system: choose some of"),
        ({"num_workers": 0}, "0 workers: give at least 1"),
        ({"num_workers": 2, "min_workers": 3}, "3 workers at least, 2 at most"),
        ({"min_workers": -1}, "-1 workers at least"),
        ({"model": "llama-3.1-405b"}, "the 2 H800 of a host of h800-400g hold 144 GB"),
        ({"preset": "dgx"}, "preset 'dgx': choose one of"),
        ({"max_sequences": 0}, "max_sequences 0: give at least 1"),
        ({"trace": "azure"}, "trace 'azure': choose one of"),
    ],
)
def test_what_cannot_be_gets_one_clear_error(given, message):
    with pytest.raises(ConfigError) as raised:
        jscale.simulate(**{"trace": BURST, **given})
    assert message in str(raised.value)
