"""Every number of λScale and BlitzScale whose setting is published: theirs and ours.

python bench/simulation/reproduce.py [--only=multicast,burst,ramp,trace,blitzscale]
"""

import argparse
import dataclasses
import math
from collections.abc import Callable, Iterator

from jscale.core.units import NS_PER_S
from jscale.plan.scaling_policy import Fixed, QueueProportional, UtilisationBound
from jscale.simulation.metrics import Summary, summarise
from jscale.simulation.presets import A800_100G, H800_400G, Testbed, model_costs
from jscale.simulation.results import SimulationResult, TraceRequest
from jscale.simulation.run import simulate_run
from jscale.simulation.settings import ScaleRequest, System
from jscale.simulation.systems import SYSTEMS, Setting
from jscale.simulation.traces import TraceOptions, load_trace

START_NS = NS_PER_S
"""When scale-outs are asked for and bursts come."""

PROMPT_TOKENS, OUTPUT_TOKENS = 32, 64
"""A request of λScale's artifact: short prompts, 64 tokens (`max_gen_len`)."""

BATCH = 8
"""Sequences of a worker at a time, where a burst comes: so that 8 workers have room for
its 50 requests, as the paper's must have had. (Its artifact's code has 6.)"""


@dataclasses.dataclass(frozen=True)
class Row:
    """A published number, what the simulation gives, and what jscale would take.

    Args:
      what: is measured, and where.
      theirs: published; a range is two numbers.
      ours: the same, simulated.
      unit: of both.
      jscale: the same of jscale, where that can be said.
      note: why they differ, or what was assumed.
    """

    what: str
    theirs: tuple[float, float]
    ours: float
    unit: str
    jscale: float | None = None
    note: str = ""

    @property
    def difference(self) -> float:
        """How far ours is outside the range, as a share; 0 inside."""
        low, high = self.theirs
        nearest = min(max(self.ours, low), high)
        return self.ours / nearest - 1 if nearest else math.inf


def multicast() -> Iterator[Row]:
    """How long until the last of the targets holds the model."""
    published = {
        "lambda-scale": {"llama-2-7b": 0.4715, "llama-2-13b": 0.80},
        "faasnet": {"llama-2-7b": 0.762, "llama-2-13b": 1.46},
        "nccl-grouped": {"llama-2-7b": 0.827, "llama-2-13b": 1.22},
    }
    for name, times_s in published.items():
        for model, time_s in times_s.items():
            yield Row(
                f"{name}: {model}, 1 → 8",
                (time_s, time_s),
                whole_s(name, model, 1, 8),
                "s",
                whole_s("jscale", model, 1, 8),
            )
    for num_workers in (2, 4, 12):
        yield Row(
            f"nccl: llama-2-13b, 1 → {num_workers}",
            (0.53, 0.53),
            whole_s("nccl", "llama-2-13b", 1, num_workers),
            "s",
            whole_s("jscale", "llama-2-13b", 1, num_workers),
            "the log says nodes, not sources: one of them is taken to be the source",
        )
    for name, time_s in (("host-memory", 2.55), ("serverlessllm-ssd", 30.0)):
        yield Row(
            f"{name}: llama-2-70b, one worker",
            (time_s, time_s),
            whole_s(name, "llama-2-70b", 1, 2),
            "s",
            None,
            "the preset's rates are from these two numbers",
        )
    yield Row(
        "lambda-scale: llama-2-70b, 1 → 4",
        (9.27, 9.27),
        whole_s("lambda-scale", "llama-2-70b", 1, 4),
        "s",
        whole_s("jscale", "llama-2-70b", 1, 4),
        "their four parts of the model share one NIC in a way that is not described; "
        "a NIC that carries the model once cannot take so long",
    )


def burst() -> Iterator[Row]:
    """Fifty requests at once: when the last has its first token."""
    assumed = "assumed: 13B, 1 → 8, prompts of 32 tokens, 8 at a time; not published"
    last_s = {
        name: _last_first_token_s(name)
        for name in ("lambda-scale", "faasnet", "nccl-grouped", "serverlessllm-ssd")
    }
    ours_s = _last_first_token_s("jscale")
    yield Row(
        "lambda-scale: 50 requests, all first tokens",
        (1.1, 1.1),
        last_s["lambda-scale"],
        "s",
        ours_s,
        assumed,
    )
    for name, times in (
        ("faasnet", 2.0),
        ("nccl-grouped", 1.4),
        ("serverlessllm-ssd", 8),
    ):
        ours = last_s[name] / last_s["lambda-scale"]
        yield Row(f"… against {name}", (times, times), ours, "×", last_s[name] / ours_s)


def ramp() -> Iterator[Row]:
    """From the request for workers to the first step of one that was not there."""
    for num_sources, time_s in ((1, 0.6), (4, 0.15)):
        yield Row(
            f"lambda-scale: llama-2-7b, {num_sources} → 8, first step",
            (time_s, time_s),
            _first_step_s("lambda-scale", num_sources),
            "s",
            _first_step_s("jscale", num_sources),
            "read from a curve of throughput, which rises after the first step",
        )


def trace() -> Iterator[Row]:
    """Half an hour of requests; a worker has one at a time, as in the artifact."""
    options = TraceOptions(
        rate_scale=3, lengths=f"fixed:prompt={PROMPT_TOKENS},output={OUTPUT_TOKENS}"
    )
    requests = load_trace("lambda-scale-0", options)
    names = ("lambda-scale", "faasnet", "nccl-grouped", "serverlessllm-ssd", "ideal")
    polled = QueueProportional(every_ns=NS_PER_S, keep_alive_ns=0)
    found = {
        name: _on_trace(name, requests, H800_400G, "llama-2-13b", 12, polled)
        for name in names
    }
    jscale = _on_trace("jscale", requests, H800_400G, "llama-2-13b", 12)
    theirs = found["lambda-scale"]
    setting = "trace_0 three times as fast, poll of 1 s, no keep-alive: its artifact's"
    for name in names[1:-1]:
        yield Row(
            f"lambda-scale: P90 TTFT, better than {name}",
            (2.4, 5.0),
            found[name].ttft_s.p90 / theirs.ttft_s.p90,
            "×",
            found[name].ttft_s.p90 / jscale.ttft_s.p90,
            setting,
        )
    for name, per_cent in zip(names[1:-1], (-17.8, -18.1, -31.3), strict=True):
        yield Row(
            f"lambda-scale: GPU time against {name}",
            (per_cent, per_cent),
            _more(theirs, found[name]),
            "%",
            _more(jscale, found[name]),
        )
    yield Row(
        "lambda-scale: GPU time above the ideal",
        (4.3, 18.6),
        _more(theirs, found["ideal"]),
        "%",
        _more(jscale, found["ideal"]),
        "an ideal of the same poll",
    )


def blitzscale() -> Iterator[Row]:
    """Mistral-24B on A800 in pairs."""
    model = "mistral-24b"
    for name, time_s in (("blitzscale", 1.2), ("host-memory", 2.0)):
        yield Row(
            f"{name}: {model}, 1 → 6",
            (time_s, time_s),
            whole_s(name, model, 1, 6, A800_100G),
            "s",
            whole_s("jscale", model, 1, 6, A800_100G),
            "NICs of a host carry one copy together here; theirs is sharded by GPU",
        )
    yield Row(
        f"blitzscale: {model}, 1 → 6, first step",
        (0.5, 0.5),
        _first_step_s("blitzscale", 1, 6, model, A800_100G),
        "s",
        _first_step_s("jscale", 1, 6, model, A800_100G),
    )
    requests = load_trace("azure-code", TraceOptions(end_s=300))
    theirs = _on_trace("blitzscale", requests, A800_100G, model, 7)
    jscale = _on_trace("jscale", requests, A800_100G, model, 7)
    sllm = _on_trace(
        "serverlessllm-host",
        requests,
        A800_100G,
        model,
        7,
        UtilisationBound(0.7, 0.5, keep_alive_ns=3 * NS_PER_S // 2),
    )
    fleet = _on_trace("host-memory", requests, A800_100G, model, 7, Fixed(7))
    note = "Azure code, 300 s, 1 to 7 workers; prefill and decode together, not apart"
    yield Row(
        "blitzscale: mean TTFT against serverlessllm-host",
        (-75, -47),
        100 * (theirs.ttft_s.mean / sllm.ttft_s.mean - 1),
        "%",
        100 * (jscale.ttft_s.mean / sllm.ttft_s.mean - 1),
        note,
    )
    for name, other, per_cent in (
        ("serverlessllm-host", sllm, -19.5),
        ("a full fleet", fleet, -50.0),
    ):
        yield Row(
            f"blitzscale: GPU time against {name}",
            (per_cent, per_cent),
            _more(theirs, other),
            "%",
            _more(jscale, other),
        )


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "multicast": multicast,
    "burst": burst,
    "ramp": ramp,
    "trace": trace,
    "blitzscale": blitzscale,
}


def whole_s(
    name: str,
    model: str,
    num_sources: int,
    num_workers: int,
    testbed: Testbed = H800_400G,
) -> float:
    """Seconds until the last of those that are added holds the model."""
    result = _scale_out(name, model, num_sources, num_workers, testbed)
    last_ns = max(w.complete_ns or 0 for w in result.workers if w.started_ns > 0)
    return (last_ns - START_NS) / NS_PER_S


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    print("| what | published | simulated | difference | jscale | |")
    print("|---|---:|---:|---:|---:|---|")
    for part in options.parse_args().only.split(","):
        for row in PARTS[part]():
            print(_line(row), flush=True)


def _line(row: Row) -> str:
    low, high = row.theirs
    theirs = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    ours = "" if row.jscale is None else f"{row.jscale:.3g} {row.unit}"
    # Per cents differ by points: shares of small numbers say little.
    if row.unit == "%":
        difference = f"{row.ours - min(max(row.ours, low), high):+.1f} points"
    else:
        difference = f"{row.difference:+.1%}"
    cells = (row.what, f"{theirs} {row.unit}", f"{row.ours:.3g} {row.unit}")
    return f"| {' | '.join((*cells, difference, ours, row.note))} |"


def _scale_out(
    name: str,
    model: str,
    num_sources: int,
    num_workers: int,
    testbed: Testbed,
    requests: tuple[TraceRequest, ...] = (),
    max_sequences: int = BATCH,
) -> SimulationResult:
    """So many workers become so many, because somebody asks for them."""
    costs = model_costs(model, testbed, max_sequences)
    cluster = testbed.cluster_for(costs, num_workers)
    if testbed is H800_400G:  # A NIC for each worker, as there.
        cluster = dataclasses.replace(cluster, devices_per_host=1)
    system = SYSTEMS[name](Setting(cluster, costs, num_sources, num_workers))
    by_hand = dataclasses.replace(system.policy, scaling=None)
    return simulate_run(
        cluster,
        costs,
        dataclasses.replace(system, policy=by_hand),
        requests,
        num_workers=num_sources,
        scale_requests=[ScaleRequest(START_NS, num_workers)],
    )


def _requests(count: int, at_ns: int = START_NS) -> tuple[TraceRequest, ...]:
    return (TraceRequest(at_ns, PROMPT_TOKENS, OUTPUT_TOKENS),) * count


def _last_first_token_s(name: str) -> float:
    result = _scale_out(name, "llama-2-13b", 1, 8, H800_400G, _requests(50))
    return summarise(result).ttft_s.largest


def _first_step_s(
    name: str,
    num_sources: int,
    num_workers: int = 8,
    model: str = "llama-2-7b",
    testbed: Testbed = H800_400G,
) -> float:
    """More requests than the sources take, so that whoever can help does."""
    requests = _requests(40 * num_sources)
    result = _scale_out(name, model, num_sources, num_workers, testbed, requests)
    steps_ns = [w.serving_ns for w in result.workers if w.started_ns > 0]
    return (min(at for at in steps_ns if at is not None) - START_NS) / NS_PER_S


def _on_trace(
    name: str,
    requests: tuple[TraceRequest, ...],
    testbed: Testbed,
    model: str,
    num_workers: int,
    scaling: QueueProportional | UtilisationBound | Fixed | None = None,
) -> Summary:
    """A run on a trace; with another scaling than the system's own, if given."""
    max_sequences = 1 if testbed is H800_400G else 4
    costs = model_costs(model, testbed, max_sequences)
    cluster = testbed.cluster_for(costs, num_workers)
    system: System = SYSTEMS[name](Setting(cluster, costs, 1, num_workers))
    if scaling is not None:
        policy = dataclasses.replace(system.policy, scaling=scaling)
        system = dataclasses.replace(system, policy=policy)
    return summarise(simulate_run(cluster, costs, system, requests, num_workers=1))


def _more(one: Summary, other: Summary) -> float:
    """How many per cent more time of accelerators one takes."""
    return 100 * (one.accelerator_s / other.accelerator_s - 1)


if __name__ == "__main__":
    main()
