"""How long requests are, where a trace does not say: drawn from a distribution."""

import functools
import math
import pathlib
import random
from collections.abc import Callable

from jscale.core.errors import ConfigError
from jscale.simulation.spec import Spec, spec_from_text
from jscale.simulation.trace_file import Arrival, read_arrivals

Lengths = tuple[int, int]
"""Tokens of a prompt and of an output."""

AZURE_CODE = (
    pathlib.Path(__file__).parents[1]
    / "bundled/traces/azure-code/AzureLLMInferenceTrace_code.csv.gz"
)


def drawer(text: str) -> Callable[[random.Random], Lengths]:
    """What draws lengths, for a spec like `chat` or `fixed:prompt=512,output=64`.

    Raises:
      ConfigError: there is no such distribution, or a number of it cannot be used.
    """
    spec = spec_from_text(text)
    make = DISTRIBUTIONS.get(spec.name)
    if make is None:
        raise ConfigError(
            f"lengths {spec.name!r}: choose one of {', '.join(DISTRIBUTIONS)}"
        )
    return make(spec)


def fixed(spec: Spec) -> Callable[[random.Random], Lengths]:
    """Every request alike."""
    given = spec.with_defaults({"prompt": None, "output": None})
    lengths = (_count(spec, given, "prompt"), _count(spec, given, "output"))
    return lambda _: lengths


def lognormal(spec: Spec) -> Callable[[random.Random], Lengths]:
    """Prompt and output each log-normal, given their medians and sigmas of the log."""
    given = spec.with_defaults(
        {
            "prompt": None,
            "output": None,
            "prompt_sigma": 1.0,
            "output_sigma": 1.0,
            "longest": 8192.0,
        }
    )
    for key in ("prompt", "output", "longest"):
        _count(spec, given, key)

    def draw(rng: random.Random) -> Lengths:
        prompt = rng.lognormvariate(math.log(given["prompt"]), given["prompt_sigma"])
        output = rng.lognormvariate(math.log(given["output"]), given["output_sigma"])
        longest = given["longest"]
        return round(min(max(prompt, 1), longest)), round(min(max(output, 1), longest))

    return draw


def chat(spec: Spec) -> Callable[[random.Random], Lengths]:
    """A conversation service: medians of 1,020 and 129 tokens.

    Source: the medians are those of Azure's conversation trace (Splitwise, ISCA 2024,
    figure 3). That the lengths are log-normal, with sigmas of 0.8 and 0.9 and at most
    4,096 tokens, is our assumption: prompt and output are drawn independently.
    """
    spec.with_defaults({})
    return lognormal(
        spec_from_text(
            "lognormal:prompt=1020,output=129,prompt_sigma=0.8,output_sigma=0.9,"
            "longest=4096"
        )
    )


def azure_code(spec: Spec) -> Callable[[random.Random], Lengths]:
    """Those of a request of Azure's code trace, drawn with replacement."""
    spec.with_defaults({})
    arrivals = _azure_code()

    def draw(rng: random.Random) -> Lengths:
        arrival = rng.choice(arrivals)
        return arrival.prompt_tokens or 1, arrival.output_tokens or 1

    return draw


DISTRIBUTIONS: dict[str, Callable[[Spec], Callable[[random.Random], Lengths]]] = {
    "chat": chat,
    "azure-code": azure_code,
    "fixed": fixed,
    "lognormal": lognormal,
}


@functools.cache
def _azure_code() -> tuple[Arrival, ...]:
    return read_arrivals(AZURE_CODE)


def _count(spec: Spec, given: dict[str, float], key: str) -> int:
    if given[key] < 1 or given[key] != int(given[key]):
        raise ConfigError(
            f"lengths {spec.name}: {key} {given[key]:g}: give a whole number from 1 on"
        )
    return int(given[key])
