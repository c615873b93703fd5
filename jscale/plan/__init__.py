"""Every decision as a pure function: cut, multicast, execution pipelines.

`multicast` plans who sends which chunk to whom at which step; `PLAN_KINDS` names the
ways to do it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jscale.plan.kinds import PLAN_KINDS, multicast

__all__ = ["PLAN_KINDS", "multicast"]


def __getattr__(name: str) -> Any:
    """The public name, imported on first use."""
    if name in __all__:
        return getattr(importlib.import_module("jscale.plan.kinds"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
