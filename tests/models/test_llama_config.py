"""Llama configs: read from Hugging Face, refused with a reason, written and read."""

import dataclasses
import json

import pytest

from jscale.core.errors import CheckpointError
from jscale.models.llama_config import LlamaConfig, RopeScaling
from jscale.models.registry import config_from_hf, family

HF_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "torch_dtype": "bfloat16",
}


def test_llama_31_is_read_as_meta_published_it():
    found, config = config_from_hf(HF_CONFIG)
    assert found is family("llama")
    assert config == LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        max_context=131072,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        rope_scaling=RopeScaling(8.0, 1.0, 4.0, 8192),
        bos_token_id=128000,
        eos_token_ids=(128001, 128008, 128009),
    )


def test_transformers_5_writes_the_same_rotation_in_another_form():
    new_form = {**HF_CONFIG, "rope_parameters": dict(HF_CONFIG["rope_scaling"])}
    new_form["rope_parameters"]["rope_theta"] = new_form.pop("rope_theta")
    del new_form["rope_scaling"]
    assert config_from_hf(new_form)[1] == config_from_hf(HF_CONFIG)[1]


def test_what_llama_2_leaves_out_has_the_defaults_of_hugging_face():
    required = {
        key: HF_CONFIG[key]
        for key in (
            "architectures",
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
        )
    }
    config = config_from_hf({**required, "rope_scaling": None, "eos_token_id": 2})[1]
    assert config.num_kv_heads == 32
    assert (config.head_dim, config.max_context) == (128, 2048)
    assert (config.rope_theta, config.rope_scaling) == (10000.0, None)
    assert (config.bos_token_id, config.eos_token_ids) == (None, (2,))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "architecture MambaForCausalLM.*are"),
        ({"architectures": None}, "none named.*LlamaForCausalLM"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', supported is 'silu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope type 'linear'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "factor is missing"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "4096"}, "hidden_size is '4096', must be an integer"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small', must be a number"),
        ({"num_attention_heads": 0}, "num_heads is 0"),
        ({"num_hidden_layers": -1}, "num_layers is -1"),
        ({"num_key_value_heads": 5}, "32 heads cannot share 5"),
        ({"head_dim": 7}, "head_dim 7 must be even"),
        ({"rms_norm_eps": 0}, "rms_norm_eps 0.0"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>'"),
    ],
)
def test_what_cannot_be_served_right_is_refused_by_name(change, reason):
    with pytest.raises(CheckpointError, match=reason):
        config_from_hf({**HF_CONFIG, **change})


def test_a_config_survives_the_manifest():
    llama = family("llama")
    config = config_from_hf(HF_CONFIG)[1]
    for each in (config, dataclasses.replace(config, rope_scaling=None)):
        assert llama.config_from_dict(json.loads(json.dumps(each.to_dict()))) == each


@pytest.mark.parametrize("change", [{"surprise": 1}, {"rope_scaling": {"by": 2}}])
def test_a_manifest_of_another_version_is_refused(change):
    values = {**config_from_hf(HF_CONFIG)[1].to_dict(), **change}
    with pytest.raises(CheckpointError, match="convert the model again"):
        family("llama").config_from_dict(values)


def test_an_unknown_family_is_refused():
    with pytest.raises(CheckpointError, match=r"'mamba'.*llama"):
        family("mamba")
