"""Arrivals that are drawn: Poisson, gamma, steps, a burst, BurstGPT's hours.

poisson:rate=5,seconds=600          as many as come by chance, 5 a second on average
gamma:rate=5,cv=4,seconds=600       burstier: gaps with this coefficient of variation
steps:rates=1/10/1,each_s=60        a minute at 1 a second, one at 10, one at 1
burst:requests=50,at=1              all at once
burstgpt:first_hour=1000,hours=1    ChatGPT's users, hour by hour
"""

import csv
import functools
import pathlib
import random
from collections.abc import Callable, Iterator

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_S
from jscale.simulation.spec import Spec

Generator = Callable[[Spec, random.Random], Iterator[float]]

HOUR_S = 3600
_BURSTGPT = (
    pathlib.Path(__file__).parents[1]
    / "bundled/traces/burstgpt/BurstGPT_1_hourly_requests.csv"
)


def generated_ns(spec: Spec, rng: random.Random) -> tuple[int, ...]:
    """Arrival times, in order, of the generator that a spec names.

    Raises:
      ConfigError: there is no such generator, a number of it cannot be used, or nothing
        would arrive.
    """
    generate = GENERATORS.get(spec.name)
    if generate is None:
        raise ConfigError(
            f"generator {spec.name!r}: choose one of {', '.join(GENERATORS)}"
        )
    times_ns = tuple(round(at_s * NS_PER_S) for at_s in generate(spec, rng))
    if not times_ns:
        raise ConfigError(
            f"{spec.name}: nobody comes in that time: give a higher rate or more time"
        )
    return times_ns


def poisson(spec: Spec, rng: random.Random) -> Iterator[float]:
    """Seconds of arrivals with exponential gaps."""
    given = spec.with_defaults({"rate": None, "seconds": None})
    return _at_rate(given["rate"], 0.0, given["seconds"], rng)


def gamma(spec: Spec, rng: random.Random) -> Iterator[float]:
    """Seconds of arrivals with gamma gaps: `cv` 1 is Poisson, above it is burstier.

    Source: a gap of mean 1/rate and coefficient of variation cv has shape 1/cv² and
    scale cv²/rate, the workloads of AlpaServe (OSDI'23).
    """
    given = spec.with_defaults({"rate": None, "cv": 4.0, "seconds": None})
    if not given["rate"] or not given["cv"]:
        raise ConfigError("gamma: give a rate and a cv over 0")
    shape = 1 / given["cv"] ** 2
    at_s = 0.0
    while (at_s := at_s + rng.gammavariate(shape, 1 / shape / given["rate"])) < given[
        "seconds"
    ]:
        yield at_s


def steps(spec: Spec, rng: random.Random) -> Iterator[float]:
    """Seconds of Poisson arrivals whose rate changes every `each_s`."""
    rates = spec.numbers.get("rates", ())
    others = Spec(spec.name, {k: v for k, v in spec.numbers.items() if k != "rates"})
    each_s = others.with_defaults({"each_s": 60.0})["each_s"]
    if not rates:
        raise ConfigError("steps: rates is missing: give steps:rates=1/10/1")
    for index, rate in enumerate(rates):
        yield from _at_rate(rate, index * each_s, (index + 1) * each_s, rng)


def burst(spec: Spec, rng: random.Random) -> Iterator[float]:
    """The same second, so many times."""
    del rng
    given = spec.with_defaults({"requests": None, "at": 0.0})
    return iter([given["at"]] * int(given["requests"]))


def burstgpt(spec: Spec, rng: random.Random) -> Iterator[float]:
    """Seconds of Poisson arrivals at the rate of each hour of BurstGPT."""
    given = spec.with_defaults({"first_hour": 1000.0, "hours": 1.0})
    first, count = int(given["first_hour"]), int(given["hours"])
    hours = _burstgpt_hours()
    if not 0 < count <= len(hours) - first:
        raise ConfigError(
            f"burstgpt: hours {first} to {first + count}: there are {len(hours)}"
        )
    for index, requests in enumerate(hours[first : first + count]):
        start_s = index * HOUR_S
        yield from _at_rate(requests / HOUR_S, start_s, start_s + HOUR_S, rng)


GENERATORS: dict[str, Generator] = {
    "poisson": poisson,
    "gamma": gamma,
    "steps": steps,
    "burst": burst,
    "burstgpt": burstgpt,
}


def _at_rate(
    rate: float, start_s: float, end_s: float, rng: random.Random
) -> Iterator[float]:
    """Poisson arrivals between two moments."""
    at_s = start_s
    while rate > 0 and (at_s := at_s + rng.expovariate(rate)) < end_s:
        yield at_s


@functools.cache
def _burstgpt_hours() -> tuple[int, ...]:
    with _BURSTGPT.open(encoding="utf-8", newline="") as lines:
        return tuple(int(row["requests"]) for row in csv.DictReader(lines))
