"""`jscale-simulate`: what users would have waited, and what it would have cost."""

from absl import flags

from jscale.launch import mains
from jscale.launch.simulation_output import CHARTS, charts_folder, show, watched
from jscale.simulation.comparison import simulate
from jscale.simulation.metrics import Objective
from jscale.simulation.trace_file import columns_from_text
from jscale.simulation.traces import TraceOptions


def define_flags() -> None:
    """What is simulated, and how it is shown."""
    flags.DEFINE_string(
        "trace", "azure-code", "Name, generator (poisson:rate=5,seconds=600) or .csv."
    )
    flags.DEFINE_string(
        "columns", "", "In a .csv: arrival=NAME,prompt=NAME,output=NAME."
    )
    flags.DEFINE_string("lengths", "chat", "Drawn from this, where a trace has none.")
    flags.DEFINE_float("rate_scale", 1.0, "2: requests come twice as fast.")
    flags.DEFINE_float("start_s", 0.0, "Second of the trace to begin at.")
    flags.DEFINE_float("end_s", None, "Second of the trace to end at.")
    flags.DEFINE_list(
        "system", ["all"], "Systems; the others are compared with the first."
    )
    flags.DEFINE_string("preset", "h800-400g", "Machines, as in a paper.")
    flags.DEFINE_string("model", "llama-2-13b", "Model, by its name.")
    flags.DEFINE_integer("workers", 12, "Workers at most; λScale has 12 hosts.")
    flags.DEFINE_integer("min_workers", 1, "Workers at least; 0: the model may go.")
    flags.DEFINE_integer("max_sequences", 4, "Sequences that a worker runs at a time.")
    flags.DEFINE_float("ttft_s", 1.0, "SLO: seconds until the first token.")
    flags.DEFINE_float("tpot_s", 0.2, "SLO: seconds for each further token.")
    flags.DEFINE_integer("seed", 0, "Of all that is drawn.")
    flags.DEFINE_boolean("json", False, "Print numbers for programs, not a table.")
    flags.DEFINE_string("plot", None, f"Folder for charts, {CHARTS}; empty: none.")
    flags.DEFINE_string("timelines", "", "Folder for what each request saw, as CSV.")


def main(arguments: list[str]) -> None:
    """Simulates, and shows what came of it."""
    mains.expect_no_arguments(arguments)
    given = flags.FLAGS
    options = TraceOptions(
        seed=given.seed,
        rate_scale=given.rate_scale,
        start_s=given.start_s,
        end_s=given.end_s,
        lengths=given.lengths,
        columns=columns_from_text(given.columns) if given.columns else None,
    )
    with watched() as progress:
        comparison = simulate(
            given.trace,
            given.system,
            num_workers=given.workers,
            min_workers=given.min_workers,
            model=given.model,
            preset=given.preset,
            max_sequences=given.max_sequences,
            options=options,
            objective=Objective(given.ttft_s, given.tpot_s),
            seed=given.seed,
            progress=progress,
        )
    plot = charts_folder(given.plot, as_json=given.json)
    show(comparison, as_json=given.json, plot=plot, timelines=given.timelines)


def run() -> None:
    """The command."""
    mains.run(define_flags, main)


if __name__ == "__main__":
    run()
