"""`simulate`: a trace on one or several systems, and what it comes to on each."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jscale.core.errors import ConfigError
from jscale.simulation import plots, report
from jscale.simulation.metrics import Objective, Summary, summarise
from jscale.simulation.presets import SEQUENCES_MAX, find_testbed, model_costs
from jscale.simulation.results import SimulationResult, TraceRequest
from jscale.simulation.run import simulate_run
from jscale.simulation.settings import System
from jscale.simulation.systems import Setting, find_systems
from jscale.simulation.traces import TraceOptions, load_trace


@dataclasses.dataclass(frozen=True)
class SystemRun:
    """What came of one system."""

    system: System
    summary: Summary
    result: SimulationResult


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came of all systems, in the order in which they were named.

    Args:
      title: what was simulated, in words.
      price_per_hour: of an accelerator, in dollars.
      runs: one for each system; the first is what others are compared with.
    """

    title: str
    price_per_hour: float
    runs: Sequence[SystemRun]

    def __getitem__(self, name: str) -> SystemRun:
        """The run of the system of that name."""
        return next(run for run in self.runs if run.system.name == name)

    def describe(self) -> str:
        """The comparison as a table of text."""
        return report.table_text(self._rows(), self.title, self.price_per_hour)

    def print(self) -> None:
        """The comparison as a table, in colour where the terminal has any."""
        report.print_table(self._rows(), self.title, self.price_per_hour)

    def as_json(self) -> dict[str, Any]:
        """Everything in numbers, seconds mostly; what is endless is null."""
        return {
            "title": self.title,
            "systems": [
                {
                    "name": run.system.name,
                    "cost_dollars": run.summary.cost(self.price_per_hour),
                    **finite(dataclasses.asdict(run.summary)),
                }
                for run in self.runs
            ],
        }

    def plot(self, folder: str | pathlib.Path) -> list[pathlib.Path]:
        """Draws the charts into a folder, and returns their paths.

        Raises:
          ConfigError: matplotlib is not installed, or the folder cannot be written.
        """
        results = {run.system.name: run.result for run in self.runs}
        return plots.draw(results, pathlib.Path(folder), self.title)

    def write_timelines(self, folder: str | pathlib.Path) -> list[pathlib.Path]:
        """Writes a CSV for each system: what each request saw when.

        Raises:
          ConfigError: the folder cannot be written.
        """
        results = {run.system.name: run.result for run in self.runs}
        return report.write_timelines(results, pathlib.Path(folder))

    def _rows(self) -> list[tuple[str, Summary]]:
        return [(run.system.name, run.summary) for run in self.runs]


def simulate(
    trace: str | Iterable[TraceRequest] = "azure-code",
    policy: str | System | Sequence[str | System] = "jscale",
    *,
    num_workers: int = 12,
    min_workers: int = 1,
    model: str = "llama-2-13b",
    preset: str = "h800-400g",
    max_sequences: int = SEQUENCES_MAX,
    options: TraceOptions | None = None,
    objective: Objective | None = None,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Comparison:
    """What users would have waited, and what it would have cost.

    Args:
      trace: a name, a generator or a file (`traces.load_trace`), or requests.
      policy: names of systems, or systems; `all` are all.
      num_workers: at most at a time.
      min_workers: at the start and at least; 0 lets the model scale to zero.
      model: a name of `model_shapes.MODELS`.
      preset: a name of `presets.TESTBEDS`.
      max_sequences: that a worker runs at a time.
      options: how the trace is read.
      objective: what a request should see.
      seed: of all that is random in a run.
      progress: is told the system that runs, and the share of all that is done.

    Raises:
      ConfigError: anything of this cannot be.
    """
    testbed = find_testbed(preset)
    costs = model_costs(model, testbed, max_sequences)
    cluster = testbed.cluster_for(costs, num_workers)
    if not 0 <= min_workers <= num_workers:
        raise ConfigError(
            f"{min_workers} workers at least, {num_workers} at most: give a least of 0 "
            "or more that is not over the most"
        )
    setting = Setting(cluster, costs, min_workers, num_workers)
    systems = find_systems(policy, setting)
    requests = load_trace(trace, options)
    runs = []
    for number, system in enumerate(systems):

        def watch(share: float, number: int = number, name: str = system.name) -> None:
            if progress is not None:
                progress(name, (number + share) / len(systems))

        watch(0.0)
        result = simulate_run(
            cluster,
            costs,
            system,
            requests,
            seed,
            num_workers=min_workers,
            progress=watch,
        )
        runs.append(SystemRun(system, summarise(result, objective), result))
        watch(1.0)
    name = trace if isinstance(trace, str) else "given requests"
    title = f"{name}: {len(requests):,} requests of {model} on {preset}"
    title += f", at most {num_workers} workers"
    return Comparison(title, testbed.price_per_hour, runs)


def finite(value: Any) -> Any:
    """The same with None for what is endless: JSON has no infinity."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
