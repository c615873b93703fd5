"""Runs a text script against `WorkerState` and gives its full transcript.

Each line is what happens; below it, indented, what the worker wants done:

    attached
      report WorkerHello
    welcome
      PrepareModel
"""

import shlex

from jscale.cluster import messages
from jscale.cluster import worker_effects as effects
from jscale.cluster import worker_events as events
from jscale.cluster.worker_state import WorkerState
from jscale.core.ids import PipelineId, PlanId, WorkerId
from jscale.engine.config import EngineConfig
from jscale.pipeline.messages import PipelineSpec, StageSpec

BUNDLE = messages.Bundle("b" * 64, 4096, "f")


class WorkerScript:
    """The worker `w1` and what each verb of a script does to it."""

    def __init__(self, num_blocks: int) -> None:
        self.spec = messages.ModelSpec(
            model_name="toy",
            manifest=b"",
            engine=EngineConfig(),
            chunk_size_bytes=4096,
            block_sizes_bytes=(8192,) * num_blocks,
        )
        self.state = WorkerState(
            messages.WorkerHello(WorkerId("w1"), "mem://w1", "w1:1")
        )

    def run(self, line: str) -> list[str]:
        verb, *words = shlex.split(line)
        event = getattr(self, f"on_{verb.replace('-', '_')}")(*words)
        return [self.show(effect) for effect in self.state.step(event)]

    def on_attached(self) -> events.WorkerEvent:
        return events.ManagerAttached()

    def on_detached(self) -> events.WorkerEvent:
        return events.ManagerDetached()

    def on_welcome(self, *words: str) -> events.WorkerEvent:
        """`welcome [other-model] [protocol=9]`."""
        spec, version = self.spec, messages.PROTOCOL_VERSION
        for word in words:
            if word == "other-model":
                spec = messages.ModelSpec("other", b"", EngineConfig(), 4096, (1,))
            if word.startswith("protocol="):
                version = int(word[9:])
        return events.CommandArrived(messages.Welcome(spec, version))

    def on_refuse(self, reason: str) -> events.WorkerEvent:
        return events.CommandArrived(messages.Refuse(reason))

    def on_load(self) -> events.WorkerEvent:
        return events.CommandArrived(messages.LoadFromDisk("/model"))

    def on_join(self, plan: str, *words: str) -> events.WorkerEvent:
        """`join 1 w0 w1 [spare=w2] [no-bundle]`."""
        members = tuple(
            messages.Member(WorkerId(word), f"mem://{word}")
            for word in words
            if word.startswith("w")
        )
        spares = tuple(
            messages.Member(WorkerId(word[6:]), f"mem://{word[6:]}")
            for word in words
            if word.startswith("spare=")
        )
        bundle = None if "no-bundle" in words else BUNDLE
        return events.CommandArrived(
            messages.JoinMulticast(
                PlanId(int(plan)), "binomial", (members,), spares, bundle
            )
        )

    def on_cancel(self, plan: str) -> events.WorkerEvent:
        return events.CommandArrived(messages.CancelMulticast(PlanId(int(plan))))

    def on_open(self, pipeline: str, *stages: str) -> events.WorkerEvent:
        """`open 3 w1:0+2 w0:2+2`: worker, first block, number of blocks."""
        parsed = []
        for stage in stages:
            worker, _, blocks = stage.partition(":")
            first, _, count = blocks.partition("+")
            parsed.append(StageSpec(WorkerId(worker), worker, int(first), int(count)))
        spec = PipelineSpec(PipelineId(int(pipeline)), tuple(parsed), 64)
        return events.CommandArrived(messages.OpenPipeline(spec))

    def on_close(self, pipeline: str, *words: str) -> events.WorkerEvent:
        number = PipelineId(int(pipeline))
        finish = "finish" in words
        return events.CommandArrived(messages.ClosePipeline(number, "re-cut", finish))

    def on_leave(self) -> events.WorkerEvent:
        return events.CommandArrived(messages.Leave("fewer are wanted"))

    def on_filled(self, region: str) -> events.WorkerEvent:
        return events.RegionFilled(int(region))

    def on_published(self, block: str) -> events.WorkerEvent:
        return events.BlockPublished(int(block))

    def on_corrupt(self, region: str) -> events.WorkerEvent:
        return events.RegionCorrupt(int(region), "sha256 differs")

    def on_loaded(self, origin: str, *words: str) -> events.WorkerEvent:
        complete = "complete" in words
        bundle = BUNDLE if complete and origin != "mismatched" else None
        return events.ExecutablesLoaded(origin, 1.0, complete, bundle)

    def on_mismatched(self) -> events.WorkerEvent:
        return events.ExecutablesMismatched("jaxlib is another")

    def on_disk_failed(self) -> events.WorkerEvent:
        return events.DiskLoadFailed("block 3 is truncated")

    def on_over(self, plan: str, missing: str) -> events.WorkerEvent:
        return events.TransferOver(PlanId(int(plan)), int(missing))

    def on_path(self, data_path: str) -> events.WorkerEvent:
        """`path 'staged: no DMA-BUF'`: the arena is there."""
        return events.DataPathChosen(data_path)

    def on_opened(self, pipeline: str) -> events.WorkerEvent:
        return events.StagesOpened(PipelineId(int(pipeline)))

    def on_refused(self, pipeline: str) -> events.WorkerEvent:
        return events.StagesRefused(PipelineId(int(pipeline)), "no pages")

    def on_closed(self, pipeline: str) -> events.WorkerEvent:
        return events.StagesClosed(PipelineId(int(pipeline)), "re-cut")

    def on_lost(self, peer: str) -> events.WorkerEvent:
        return events.PeerGone(WorkerId(peer))

    def on_sigterm(self) -> events.WorkerEvent:
        return events.StopRequested()

    def on_timeout(self) -> events.WorkerEvent:
        return events.DrainTimedOut()

    def show(self, effect: effects.WorkerEffect) -> str:
        if isinstance(effect, effects.Report):
            return f"report {self.show_fields(effect.report)}"
        return self.show_fields(effect)

    def show_fields(self, value: object) -> str:
        """The class and what tells two of them apart."""
        name = type(value).__name__
        match value:
            case messages.WorkerHello():
                pipelines = [spec.pipeline for spec in value.pipelines]
                path = f" path={value.data_path!r}" if value.data_path else ""
                return f"{name} blocks={list(value.blocks)} pipelines={pipelines}{path}"
            case messages.ExecutablesReady():
                ready = "complete" if value.is_complete else "stages only"
                return f"{name} {value.origin}, {ready}, bundle {bool(value.bundle)}"
            case effects.StartMulticast(command):
                return f"{name} {command.plan}"
            case effects.OpenStages(spec):
                return f"{name} {spec.pipeline}"
            case effects.PrepareModel() | effects.LoadExecutables():
                return name
            case effects.Exit(reason, failed):
                return f"{name} {'failed: ' if failed else ''}{reason}"
            case _:
                fields = (
                    getattr(value, field)
                    for field in getattr(
                        value, "__struct_fields__", getattr(value, "__match_args__", ())
                    )
                )
                return " ".join([name, *(str(field) for field in fields)])


def transcript(script: str) -> str:
    """The script with what was wanted done below each line."""
    runner: WorkerScript | None = None
    lines: list[str] = []
    for line in script.splitlines():
        if line.startswith("  "):
            continue
        lines.append(line.rstrip())
        text = line.partition("#")[0].strip()
        if text.startswith("worker "):
            runner = WorkerScript(int(text.split("=")[1]))
        elif text:
            assert runner is not None, "a script starts with `worker blocks=N`"
            lines += [f"  {shown}" for shown in runner.run(text)]
    return "\n".join(lines) + "\n"
