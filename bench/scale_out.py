"""What three more workers bring, and when: execute while load against load first.

One worker serves a steady load, more than it can take; three join over links of an
emulated rate, with emulated accelerators (each layer takes at least so long, by
waiting, so that four workers on two cores behave as four accelerators would). The same
run does it twice: with targets serving as soon as they hold a block, and with targets
serving once they hold the whole model.

    python bench/scale_out.py
    python bench/scale_out.py --json=scale_out.json --plot=scale_out.png
    python bench/scale_out.py --sources=2 --num_targets=6 --modes=while
    python bench/scale_out.py --sources=2 --num_targets=6 --modes=while --kill=w4@0.5
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import tempfile
import time

from scale_out_load import SteadyLoad, tokens_per_s

import jscale
from jscale.checkpoint.random_model import config_of_size, write_random_model
from jscale.core.units import MIB
from jscale.server.snapshot import status_line

MODES = {"execute while load": True, "load, then serve": False}
POLL_MS = 25


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one scale-out brought. Times are seconds since the first byte moved.

    Attributes:
      contributes_s: a target first computed for a request.
      targets_alone_s: a pipeline of nothing but targets first was open.
      loaded_s: the targets that were there from the start, but for one that was
        killed, hold the model.
      all_local_s: everyone, one that replaces a killed one too, serves by itself.
    """

    mode: str
    alone_tokens_per_s: float
    lowest_tokens_per_s: float
    loaded_s: float
    contributes_s: float
    targets_alone_s: float
    all_local_s: float
    ttft_p50_s: float
    ttft_p90_s: float
    tokens_while_loading: int
    num_served: int
    num_lost: int
    bins_tokens_per_s: list[float]
    bins_start_s: float

    @property
    def contributes_at(self) -> float:
        """When a target first computed for a request, as a share of the load time."""
        return self.contributes_s / self.loaded_s

    @property
    def targets_alone_at(self) -> float:
        """When targets first served without a source, as a share of the load time."""
        return self.targets_alone_s / self.loaded_s


def main() -> None:
    """Runs both ways and prints how they compare."""
    options = _parse_options()
    with tempfile.TemporaryDirectory() as directory:
        config = config_of_size(
            options.size_mib * MIB, num_layers=options.num_layers, vocab_size=512
        )
        tokenizer = pathlib.Path(jscale.BUNDLED_MODEL) / "tokenizer.json"
        write_random_model(
            directory + "/model",
            config,
            num_blocks=options.num_blocks,
            tokenizer_file=tokenizer,
        )
        outcomes = []
        for repeat in range(options.repeats):
            for mode, executes in MODES.items():
                if options.modes != "both" and options.modes not in mode:
                    continue
                outcome = _run(options, directory, mode, executes, seed=repeat)
                _print_outcome(outcome)
                outcomes.append(outcome)
    if options.modes == "both":
        _print_ratios(outcomes)
    if options.json:
        rows = [dataclasses.asdict(each) for each in outcomes]
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    if options.plot:
        _plot(outcomes[-2:], options.plot)


def _run(
    options: argparse.Namespace, directory: str, mode: str, executes: bool, seed: int
) -> Outcome:
    with jscale.LocalCluster(
        directory + "/model",
        num_workers=options.sources,
        link_mbit_s=options.link_mbit_s,
        emulate_layer_us=options.emulate_layer_us,
        step_rows=options.step_rows,
        executes_while_loading=executes,
        cache_dir=directory + "/cache",
        drain_timeout_s=1.0,
    ) as cluster:
        load = SteadyLoad(
            cluster.client,
            num_clients=options.num_clients,
            prompt_tokens=options.prompt_tokens,
            max_tokens=options.max_tokens,
            seed=seed,
        )
        jscale.ScaleOut(cluster.client, options.sources).wait(timeout_s=300)
        load.start()
        time.sleep(options.alone_s)
        marks = _watch(cluster, options)
        time.sleep(options.after_s)
        return _outcome(mode, marks, load, options)


def _watch(
    cluster: jscale.LocalCluster, options: argparse.Namespace
) -> dict[str, float]:
    """When each thing first was so, by one clock; kills whom it is told to."""
    names = [f"w{n}" for n in range(options.sources + options.num_targets)]
    sources, targets = set(names[: options.sources]), set(names[options.sources :])
    victim, _, fraction = options.kill.partition("@")
    marks: dict[str, float] = {"asked": time.monotonic()}
    scale_out = cluster.scale_to(len(names))
    for status in scale_out.progress(interval_ms=POLL_MS, timeout_s=600):
        now_s = time.monotonic()
        held = {worker.worker: len(worker.blocks) for worker in status.workers}
        num_blocks = len(status.block_sizes_bytes)
        of_targets = [held.get(name, 0) for name in targets]
        joining = [w for w in status.workers if w.worker not in sources]
        if any(worker.received_bytes or worker.blocks for worker in joining):
            marks.setdefault("first_byte", now_s)
        if any(worker.num_tokens for worker in joining):
            marks.setdefault("contributes", now_s)
        if any(
            sources.isdisjoint(stage.worker for stage in pipeline.stages)
            for pipeline in status.pipelines
        ):
            marks.setdefault("targets_alone", now_s)
        if min(of_targets) == num_blocks:
            marks.setdefault("loaded", now_s)
        if victim and sum(of_targets) >= float(fraction) * num_blocks * len(targets):
            print(f"{'':20} kill -9 {victim}: {status_line(status)}")
            cluster.workers[victim].kill()
            targets.discard(victim)
            victim = ""
    marks["all_local"] = time.monotonic()
    for mark in ("contributes", "targets_alone", "loaded"):
        marks.setdefault(mark, marks["all_local"])
    return marks


def _outcome(
    mode: str,
    marks: dict[str, float],
    load: SteadyLoad,
    options: argparse.Namespace,
) -> Outcome:
    served = load.stop()
    start_s = marks["first_byte"]
    # Before the new processes are started: they take processor time from the source.
    alone = tokens_per_s(
        served, marks["asked"] - options.alone_s / 2, marks["asked"], bin_s=1.0
    )
    bins_start_s = start_s - 2.0
    bins = tokens_per_s(served, bins_start_s, marks["all_local"] + options.after_s)
    loading = tokens_per_s(served, start_s, marks["loaded"])
    ttfts = [r.ttft_s for r in served if start_s <= r.sent_s <= marks["all_local"]]
    quantiles = statistics.quantiles(ttfts, n=10)
    return Outcome(
        mode=mode,
        alone_tokens_per_s=statistics.mean(alone),
        lowest_tokens_per_s=min(loading),
        loaded_s=marks["loaded"] - start_s,
        contributes_s=marks["contributes"] - start_s,
        targets_alone_s=marks["targets_alone"] - start_s,
        all_local_s=marks["all_local"] - start_s,
        ttft_p50_s=statistics.median(ttfts),
        ttft_p90_s=quantiles[8],
        tokens_while_loading=int(sum(loading)),
        num_served=len(served),
        num_lost=len(load.failed),
        bins_tokens_per_s=bins,
        bins_start_s=bins_start_s - start_s,
    )


def _print_outcome(outcome: Outcome) -> None:
    print(
        f"{outcome.mode:20} alone {outcome.alone_tokens_per_s:6.0f} tok/s, lowest "
        f"second while loading {outcome.lowest_tokens_per_s:6.0f}; a target computes "
        f"after {outcome.contributes_s:5.2f} s of {outcome.loaded_s:5.2f} s "
        f"({outcome.contributes_at:.0%}), targets without a source after "
        f"{outcome.targets_alone_s:5.2f} s ({outcome.targets_alone_at:.0%}); all local "
        f"after {outcome.all_local_s:5.2f} s; TTFT p50 {outcome.ttft_p50_s:.2f} s, "
        f"p90 {outcome.ttft_p90_s:.2f} s; {outcome.num_served} requests, "
        f"{outcome.num_lost} lost"
    )
    bins = " ".join(f"{value:.0f}" for value in outcome.bins_tokens_per_s)
    print(f"{'':20} tok/s from {outcome.bins_start_s:+.0f} s on: {bins}", flush=True)


def _print_ratios(outcomes: list[Outcome]) -> None:
    first, second = MODES
    by_mode = {mode: [each for each in outcomes if each.mode == mode] for mode in MODES}

    def ratio(field: str) -> str:
        pairs = zip(by_mode[first], by_mode[second], strict=True)
        ratios = [getattr(a, field) / getattr(b, field) for a, b in pairs]
        spread = f" ({min(ratios):.2f}–{max(ratios):.2f})" if len(ratios) > 1 else ""
        return f"{statistics.median(ratios):.2f}{spread}"

    print(f"{first} / {second}, emulated accelerators and links:")
    for field in ("tokens_while_loading", "ttft_p50_s", "ttft_p90_s", "loaded_s"):
        print(f"  {field:22} {ratio(field)}")
    lowest = [o.lowest_tokens_per_s / o.alone_tokens_per_s for o in by_mode[first]]
    print(f"  lowest second / alone  {min(lowest):.2f}–{max(lowest):.2f}")


def _plot(outcomes: list[Outcome], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4))
    for outcome in outcomes:
        times = [
            outcome.bins_start_s + 0.5 + index
            for index in range(len(outcome.bins_tokens_per_s))
        ]
        axes.plot(times, outcome.bins_tokens_per_s, label=outcome.mode, marker=".")
        axes.axvline(outcome.loaded_s, color="0.8", zorder=0)
    axes.axhline(outcomes[0].alone_tokens_per_s, color="0.5", linestyle=":")
    axes.set_xlabel("seconds since the first byte")
    axes.set_ylabel("tokens/s")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size_mib", type=int, default=64)
    parser.add_argument("--num_layers", type=int, default=16)
    parser.add_argument("--num_blocks", type=int, default=16)
    parser.add_argument("--sources", type=int, default=1)
    parser.add_argument(
        "--kill",
        default="",
        metavar="WORKER@FRACTION",
        help="kill -9 of that worker when targets hold so much; they follow sources",
    )
    parser.add_argument("--modes", choices=("both", "while", "then"), default="both")
    parser.add_argument("--num_targets", type=int, default=3)
    parser.add_argument("--link_mbit_s", type=float, default=50.0)
    parser.add_argument("--emulate_layer_us", type=int, default=10_000)
    parser.add_argument("--step_rows", type=int, default=256)
    parser.add_argument("--num_clients", type=int, default=64)
    parser.add_argument("--prompt_tokens", type=int, default=16)
    parser.add_argument("--max_tokens", type=int, default=32)
    parser.add_argument("--alone_s", type=float, default=10.0)
    parser.add_argument("--after_s", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", help="rows go to this file")
    parser.add_argument("--plot", help="tokens/s over time goes to this PNG")
    return parser.parse_args()


if __name__ == "__main__":
    main()
