"""Which families there are, and which one a checkpoint belongs to."""

from collections.abc import Mapping
from typing import Any

from jscale.core.errors import CheckpointError
from jscale.models.block import ModelFamily
from jscale.models.llama_family import LLAMA

FAMILIES: Mapping[str, ModelFamily[Any]] = {LLAMA.name: LLAMA}
"""Every family by the name that a block store's manifest gives it."""


def family(name: str) -> ModelFamily[Any]:
    """The family of that name.

    Raises:
      CheckpointError: there is none.
    """
    if name not in FAMILIES:
        raise CheckpointError(
            f"unknown model family {name!r}: supported are {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def config_from_hf(hf: Mapping[str, Any]) -> tuple[ModelFamily[Any], Any]:
    """The family and the config that a Hugging Face config.json describes.

    Raises:
      CheckpointError: the architecture, or a setting of it, is not supported.
    """
    architectures = hf.get("architectures") or ["(none named)"]
    for candidate in FAMILIES.values():
        if set(candidate.architectures) & set(architectures):
            return candidate, candidate.config_from_hf(hf)
    supported = [name for each in FAMILIES.values() for name in each.architectures]
    raise CheckpointError(
        f"unknown architecture {', '.join(architectures)}: "
        f"supported are {', '.join(supported)}"
    )
