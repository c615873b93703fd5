"""Models by name: bytes, layers, and what a token leaves in the KV cache."""

import dataclasses

BF16_BYTES = 2


@dataclasses.dataclass(frozen=True)
class ModelShape:
    """A decoder of 16-bit weights.

    Args:
      name: what people call it.
      size_bytes: all weights.
      num_layers: decoder layers.
      hidden_size: numbers that stand for a token between layers.
      kv_heads: heads of keys and values.
      head_size: numbers of a head.
      num_blocks: that it is cut into.
    """

    name: str
    size_bytes: int
    num_layers: int
    hidden_size: int
    kv_heads: int
    head_size: int = 128
    num_blocks: int = 8

    @property
    def num_parameters(self) -> float:
        """Weights."""
        return self.size_bytes / BF16_BYTES

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of a token in all layers."""
        return 2 * self.num_layers * self.kv_heads * self.head_size * BF16_BYTES

    @property
    def activation_bytes_per_token(self) -> int:
        """What goes from stage to stage for a token."""
        return self.hidden_size * BF16_BYTES


MODELS = {
    shape.name: shape
    for shape in (
        ModelShape("llama-2-7b", 13_477_000_000, 32, 4096, 32),
        ModelShape("llama-2-13b", 26_032_000_000, 40, 5120, 40),
        ModelShape("llama-2-70b", 137_950_000_000, 80, 8192, 8),
        ModelShape("llama-3-8b", 16_060_000_000, 32, 4096, 8),
        ModelShape("mistral-24b", 47_140_000_000, 40, 5120, 8),
        ModelShape("qwen-2.5-72b", 145_410_000_000, 80, 8192, 8),
        ModelShape("llama-3.1-405b", 811_700_000_000, 126, 16_384, 8, num_blocks=14),
    )
}
"""Eight blocks as in λScale's artifact, whose sizes those of Llama 2 are; the other
sizes and all shapes are those of the models' published `config.json` and safetensors
index."""
