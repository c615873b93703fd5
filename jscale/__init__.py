"""jscale: an inference engine on JAX that scales a model while it serves.

    with jscale.LocalCluster(jscale.BUNDLED_MODEL, num_workers=1) as cluster:
        for token in cluster.generate("Once upon a time", max_tokens=64):
            print(token.text, end="", flush=True)
        cluster.scale_to(4).wait()
    print(jscale.plan.multicast(sources=1, targets=7, num_chunks=64).describe())
    jscale.simulate(trace="azure-code", policy="all", num_workers=12).print()

Names are imported when first used: `import jscale` brings neither jax nor grpc.
"""

import importlib
import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jscale import plan
    from jscale.core.errors import JscaleError
    from jscale.server.client import Client, Token
    from jscale.server.local_cluster import LocalCluster
    from jscale.server.scale_out import ScaleOut
    from jscale.simulation.comparison import simulate

__all__ = [
    "BUNDLED_MODEL",
    "Client",
    "JscaleError",
    "LocalCluster",
    "ScaleOut",
    "Token",
    "plan",
    "simulate",
]

BUNDLED_MODEL = str(pathlib.Path(__file__).parent / "bundled" / "stories260K")
"""Path of a tiny Llama that tells stories: enough to try everything on a laptop."""

_HOMES = {
    "Client": "jscale.server.client",
    "JscaleError": "jscale.core.errors",
    "LocalCluster": "jscale.server.local_cluster",
    "ScaleOut": "jscale.server.scale_out",
    "Token": "jscale.server.client",
    "simulate": "jscale.simulation.comparison",
}


def __getattr__(name: str) -> Any:
    """The public name, imported on first use."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "plan":
        return importlib.import_module("jscale.plan")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
