"""What transformers' LlamaForCausalLM makes of a config, weights and a prompt."""

import numpy as np
import torch
import transformers


class Reference:
    """A LlamaForCausalLM in float32 with the given weights."""

    def __init__(self, hf_config: dict, tensors: dict[str, np.ndarray]) -> None:
        config = transformers.LlamaConfig(**hf_config)
        self.model = transformers.LlamaForCausalLM(config).to(torch.float32).eval()
        weights = {name: torch.from_numpy(array) for name, array in tensors.items()}
        left = self.model.load_state_dict(weights, strict=False)
        allowed = ["lm_head.weight"] if config.tie_word_embeddings else []
        assert not left.unexpected_keys, left
        assert left.missing_keys in ([], allowed), left

    @property
    def hf_config(self) -> dict:
        """The config.json that transformers would write."""
        made = self.model.config.to_dict()
        return made | {"architectures": ["LlamaForCausalLM"]}

    @torch.no_grad()
    def logits(self, token_ids: list[int]) -> np.ndarray:
        """Logits after each token, [length, vocab]."""
        return self.model(torch.tensor([token_ids])).logits[0].numpy()

    @torch.no_grad()
    def greedy(self, token_ids: list[int], num_tokens: int) -> list[int]:
        """The likeliest continuation, token by token, whatever the token is."""
        token_ids = list(token_ids)
        for _ in range(num_tokens):
            token_ids.append(int(self.logits(token_ids)[-1].argmax()))
        return token_ids[-num_tokens:]
