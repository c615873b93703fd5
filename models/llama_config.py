"""What a Llama checkpoint says about its model, checked once."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jscale.core.errors import CheckpointError


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How Llama 3.1 stretches its rotary frequencies to a longer context.

    Frequencies that turn more than `high_freq_factor` times within the original
    context stay, those under `low_freq_factor` turns are slowed by `factor`, between
    the two the change is gradual.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int

    def __post_init__(self) -> None:
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise CheckpointError(
                f"rope scaling: low_freq_factor {self.low_freq_factor} and "
                f"high_freq_factor {self.high_freq_factor} must be ascending"
            )
        if self.factor < 1 or self.original_max_position < 1:
            raise CheckpointError(f"rope scaling: cannot stretch by {self}")


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Sizes and constants of one Llama model."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_context: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in _SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise CheckpointError(f"config: {name} is {value!r}, must be over 0")
        if self.num_heads % self.num_kv_heads:
            raise CheckpointError(
                f"config: {self.num_heads} heads cannot share {self.num_kv_heads} "
                "key-value heads evenly"
            )
        if self.head_dim % 2:
            raise CheckpointError(f"config: head_dim {self.head_dim} must be even")
        if self.rms_norm_eps <= 0 or self.rope_theta <= 0:
            raise CheckpointError(
                f"config: rms_norm_eps {self.rms_norm_eps} and rope_theta "
                f"{self.rope_theta} must be over 0"
            )

    @staticmethod
    def from_hf(hf: Mapping[str, Any]) -> "LlamaConfig":
        """The config that a Hugging Face config.json describes.

        Understands both `rope_scaling` (transformers 4) and `rope_parameters` (5).

        Raises:
          CheckpointError: a setting that changes the mathematics is not supported, or a
            size is missing or impossible.
        """
        _check_supported(hf)
        rope = _rope_of(hf)
        heads = _int(hf, "num_attention_heads")
        hidden = _int(hf, "hidden_size")
        return LlamaConfig(
            vocab_size=_int(hf, "vocab_size"),
            hidden_size=hidden,
            intermediate_size=_int(hf, "intermediate_size"),
            num_layers=_int(hf, "num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=_int(hf, "num_key_value_heads", heads),
            head_dim=_int(hf, "head_dim", hidden // max(heads, 1)),
            max_context=_int(hf, "max_position_embeddings", 2048),
            rms_norm_eps=_float(hf, "rms_norm_eps", 1e-6),
            rope_theta=_float(rope, "rope_theta", 10000.0),
            rope_scaling=_rope_scaling_of(rope),
            tie_embeddings=bool(hf.get("tie_word_embeddings", False)),
            bos_token_id=next(iter(_token_ids(hf, "bos_token_id")), None),
            eos_token_ids=_token_ids(hf, "eos_token_id"),
        )

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "LlamaConfig":
        """The config that `to_dict` wrote.

        Raises:
          CheckpointError: a name is missing or unknown, or a value impossible.
        """
        values = dict(values)
        try:
            scaling = values.pop("rope_scaling", None)
            eos_token_ids = values.pop("eos_token_ids", ())
            return LlamaConfig(
                **values,
                rope_scaling=None if scaling is None else RopeScaling(**scaling),
                eos_token_ids=tuple(eos_token_ids),
            )
        except TypeError as error:
            raise CheckpointError(
                f"model config of a block store: {error}; convert the model again"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON takes it; `from_dict` reads it back."""
        return {**dataclasses.asdict(self), "eos_token_ids": list(self.eos_token_ids)}


_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "max_context",
)

_ONLY: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "partial_rotary_factor": (1, None),
    "quantization_config": (None,),
}
"""Settings that change the mathematics, and the values that are implemented."""


def _check_supported(hf: Mapping[str, Any]) -> None:
    for name, supported in _ONLY.items():
        if (value := hf.get(name, supported[0])) not in supported:
            raise CheckpointError(
                f"config.json: {name} is {value!r}, supported is {supported[0]!r}"
            )


def _rope_of(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings in one form, whichever transformers wrote them."""
    new_form = hf.get("rope_parameters")
    old_form = hf.get("rope_scaling")
    rope = {"rope_theta": hf.get("rope_theta", 10000.0)}
    rope |= new_form or old_form or {}
    return rope | {"rope_type": rope.get("rope_type", rope.get("type", "default"))}


def _rope_scaling_of(rope: Mapping[str, Any]) -> RopeScaling | None:
    rope_type = rope["rope_type"]
    if rope_type == "default":
        return None
    if rope_type != "llama3":
        raise CheckpointError(
            f"config.json: rope type {rope_type!r}, supported are 'default', 'llama3'"
        )
    return RopeScaling(
        factor=_float(rope, "factor"),
        low_freq_factor=_float(rope, "low_freq_factor"),
        high_freq_factor=_float(rope, "high_freq_factor"),
        original_max_position=_int(rope, "original_max_position_embeddings"),
    )


def _int(hf: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = _value(hf, name, default)
    if not isinstance(value, int):
        raise CheckpointError(f"config.json: {name} is {value!r}, must be an integer")
    return value


def _float(hf: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = _value(hf, name, default)
    if not isinstance(value, int | float):
        raise CheckpointError(f"config.json: {name} is {value!r}, must be a number")
    return float(value)


def _value(hf: Mapping[str, Any], name: str, default: float | None) -> Any:
    value = hf.get(name)
    if value is None:
        value = default
    if value is None:
        raise CheckpointError(f"config.json: {name} is missing")
    return value


def _token_ids(hf: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Token ids of an entry that is none, one or several."""
    value = hf.get(name)
    if value is None:
        return ()
    token_ids = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not all(isinstance(token_id, int) for token_id in token_ids):
        raise CheckpointError(f"config.json: {name} is {value!r}, must be token ids")
    return token_ids
