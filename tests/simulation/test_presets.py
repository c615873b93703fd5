"""Presets give back what was published, and refuse what cannot be."""

import pytest

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_S
from jscale.simulation.model_shapes import MODELS
from jscale.simulation.presets import (
    A800_100G,
    H800_400G,
    TESTBEDS,
    find_testbed,
    model_costs,
)


@pytest.mark.parametrize(
    ("name", "size_gb", "decode_ms"),
    [
        ("llama-2-7b", 13.477, 14),
        ("llama-2-13b", 26.032, 26),
        ("llama-2-70b", 137.95, 140),
    ],
)
def test_paper_lambda_scale_sizes_and_decode_times(name, size_gb, decode_ms):
    costs = model_costs(name, H800_400G)
    assert costs.size_bytes == pytest.approx(size_gb * 1e9)
    assert costs.decode_ns == decode_ms * NS_PER_S // 1000
    assert costs.num_blocks == 8


def test_paper_lambda_scale_70b_from_host_memory_and_from_ssd():
    cluster = H800_400G.cluster
    size_bytes = MODELS["llama-2-70b"].size_bytes
    assert size_bytes / cluster.host_to_device_bytes_per_s == pytest.approx(
        2.55, rel=0.01
    )
    assert size_bytes / cluster.disk_bytes_per_s == pytest.approx(30, rel=0.01)


def test_paper_lambda_scale_13b_line_bound():
    cluster = H800_400G.cluster
    assert MODELS["llama-2-13b"].size_bytes / cluster.nic_bytes_per_s == pytest.approx(
        0.521, rel=0.001
    )


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [("llama-2-13b", 819_200), ("llama-3-8b", 131_072), ("llama-2-70b", 327_680)],
)
def test_kv_of_a_token_is_keys_and_values_of_all_layers(name, kv_bytes):
    assert MODELS[name].kv_bytes_per_token == kv_bytes


def test_a_model_takes_as_few_accelerators_as_hold_it():
    assert model_costs("llama-2-13b", H800_400G).num_accelerators == 1
    assert model_costs("llama-2-70b", H800_400G).num_accelerators == 2


def test_what_is_not_published_follows_from_the_data_sheet():
    costs = model_costs("llama-3-8b", H800_400G)
    assert costs.decode_ns == pytest.approx(16.06e9 / (0.6 * 3.35e12) * NS_PER_S)
    assert costs.prefill_tokens_per_s == pytest.approx(0.5 * 989e12 / 16.06e9)
    assert costs.max_tokens == pytest.approx((72e9 - 16.06e9) / 131_072, rel=1e-4)


def test_two_accelerators_are_one_device_whose_buses_are_used_as_it_was_published():
    costs = model_costs("llama-2-70b", H800_400G)
    cluster = H800_400G.cluster_for(costs, num_workers=4)
    assert cluster.devices_per_host == 1
    assert cluster.host_to_device_bytes_per_s == 54.1e9
    costs = model_costs("mistral-24b", A800_100G)
    cluster = A800_100G.cluster_for(costs, num_workers=4)
    assert cluster.devices_per_host == 4
    assert cluster.host_to_device_bytes_per_s == 2 * 16e9


def test_more_workers_than_the_testbed_has_take_more_hosts_of_its_kind():
    costs = model_costs("llama-2-13b", H800_400G)
    assert H800_400G.cluster_for(costs, 24).num_hosts == 12
    assert H800_400G.cluster_for(costs, 1000).num_hosts == 500


REFUSED = {
    ("h800-400g", "qwen-2.5-72b"),
    ("h800-400g", "llama-3.1-405b"),
    ("h800-400g-cold", "qwen-2.5-72b"),
    ("h800-400g-cold", "llama-3.1-405b"),
    ("a800-100g", "llama-3.1-405b"),
}


@pytest.mark.parametrize("preset", TESTBEDS)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_fits_a_preset_or_is_refused(preset, name):
    testbed = TESTBEDS[preset]
    if (preset, name) in REFUSED:
        with pytest.raises(
            ConfigError, match="choose a smaller model or another preset"
        ):
            model_costs(name, testbed)
    else:
        costs = model_costs(name, testbed)
        held = costs.num_accelerators * testbed.memory_bytes
        assert costs.size_bytes + costs.max_tokens * costs.kv_bytes_per_token <= held


def test_what_there_is_not_gets_one_clear_error():
    with pytest.raises(ConfigError, match="preset 'dgx': choose one of h800-400g"):
        find_testbed("dgx")
    with pytest.raises(ConfigError, match="model 'gpt-5': choose one of llama-2-7b"):
        model_costs("gpt-5", H800_400G)
    costs = model_costs("llama-2-7b", H800_400G)
    with pytest.raises(ConfigError, match="0 workers: give at least 1"):
        H800_400G.cluster_for(costs, 0)
    with pytest.raises(ConfigError, match="max_sequences 0: give at least 1"):
        model_costs("llama-2-7b", H800_400G, max_sequences=0)
