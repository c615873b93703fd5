"""Runs a text script against `ManagerState` and gives its full transcript.

A script is lines of what happens; the transcript repeats each with what the manager
wants done below it, indented by two spaces:

    attach w0
      -> w0: Welcome
      -> w0: LoadFromDisk /model

A comment starts with `#`. What gateways are told is printed as the replicas that are
open and, after `status`, each worker's phase and blocks. See `VERBS` for the words.
"""

import shlex
from collections.abc import Iterable

from jscale.cluster import events, gateway_messages, messages
from jscale.cluster.effects import (
    Effect,
    TellGateway,
    TellGateways,
    TellLauncher,
    TellWorker,
)
from jscale.cluster.manager_policy import ManagerPolicy
from jscale.cluster.manager_state import ManagerState
from jscale.cluster.number_wanted import ScalingBounds
from jscale.core.ids import IDS_PER_EPOCH, PipelineId, PlanId, WorkerId, first_id
from jscale.engine.config import EngineConfig
from jscale.pipeline.messages import PipelineSpec, StageSpec
from jscale.plan.pipeline_policies import PIPELINE_POLICIES
from jscale.plan.scaling_policy import SCALING_POLICIES
from jscale.store.manifest import manifest_fingerprint

NS_PER_MS = 1_000_000


class ManagerScript:
    """One manager, a clock, and what each verb of a script does to it."""

    def __init__(
        self,
        num_blocks: int,
        num_workers: int | None,
        epoch: int = 0,
        policy: ManagerPolicy | None = None,
        block_kib: int = 8,
    ) -> None:
        self.now_ns = 0
        self.spec = messages.ModelSpec(
            model_name="toy",
            manifest=b"",
            engine=EngineConfig(),
            chunk_size_bytes=4096,
            block_sizes_bytes=(block_kib * 1024,) * num_blocks,
        )
        self.state = ManagerState(
            self.spec,
            model_path="/model",
            num_workers=num_workers,
            policy=policy,
            epoch=epoch,
        )
        self.bundle = messages.Bundle("b" * 64, 4096, "f")
        self.status: gateway_messages.StatusChanged | None = None
        self.replicas: dict[PipelineId, gateway_messages.Replica] = {}

    def run(self, line: str) -> list[str]:
        """What the manager wants done after what the line says."""
        verb, *words = shlex.split(line)
        wanted = getattr(self, f"do_{verb}")(*words)
        effects = (e for event in wanted for e in self.state.step(event, self.now_ns))
        shown = [text for effect in effects if (text := self.show(effect))]
        return self.show_status() if verb == "status" else shown

    # --- verbs -----------------------------------------------------------------

    def do_attach(self, worker: str, *words: str) -> list[events.Event]:
        """`attach w1 [blocks=0,1] [executables] [no-disk] [pipeline=7=w1[0],w0[1]]`.

        `[in-memory|other-in-memory] [link=1]`: read at 5 GB/s, a link of 1 GB/s.
        """
        blocks: tuple[int, ...] = ()
        pipelines: list[PipelineSpec] = []
        for word in words:
            if word.startswith("blocks="):
                blocks = read_blocks(word[7:])
            if word.startswith("pipeline="):
                pipelines.append(self.parse_pipeline(word[9:]))
        has_executables = "executables" in words
        models = {"in-memory": self.spec.manifest, "other-in-memory": b"other"}
        near = tuple(manifest_fingerprint(models[w]) for w in words if w in models)
        rates = [float(word[5:]) * 1e9 for word in words if word.startswith("link=")]
        return [
            events.WorkerAttached(
                messages.WorkerHello(
                    worker=WorkerId(worker),
                    data_address=f"mem://{worker}",
                    serve_address=f"{worker}:1",
                    blocks=blocks,
                    bundle=self.bundle if has_executables else None,
                    has_executables=has_executables,
                    has_all_executables=has_executables,
                    pipelines=tuple(pipelines),
                    can_load_from_disk="no-disk" not in words,
                    link_bytes_per_s=sum(rates),
                    in_host_memory=near,
                    host_memory_bytes_per_s=5e9 if near else 0,
                )
            )
        ]

    def do_detach(self, worker: str) -> list[events.Event]:
        """`detach w1`: its stream broke."""
        return [events.WorkerDetached(WorkerId(worker))]

    def do_blocks(self, worker: str, blocks: str) -> list[events.Event]:
        """`blocks w1 0-2`: these are ready there."""
        return [
            self._report(worker, messages.BlockReady(block))
            for block in read_blocks(blocks)
        ]

    def do_executables(self, worker: str) -> list[events.Event]:
        """`executables w1`: it can run stages."""
        ready = messages.ExecutablesReady("compiled", 1.0, True, self.bundle)
        return [self._report(worker, ready)]

    def do_opened(self, pipeline: str, *workers: str) -> list[events.Event]:
        """`opened 3 w1 w0`: these workers have their stages of it."""
        opened = messages.PipelineOpened(PipelineId(read_id(pipeline)))
        return [self._report(worker, opened) for worker in workers]

    def do_refused(self, pipeline: str, worker: str) -> list[events.Event]:
        """`refused 3 w1`."""
        refused = messages.PipelineRefused(PipelineId(read_id(pipeline)), "no pages")
        return [self._report(worker, refused)]

    def do_closed(self, pipeline: str, *workers: str) -> list[events.Event]:
        """`closed 3 w1 w0`: these workers hold nothing of it any more."""
        closed = messages.PipelineClosed(PipelineId(read_id(pipeline)))
        return [self._report(worker, closed) for worker in workers]

    def do_ended(
        self, plan: str, worker: str, missing: str = "0"
    ) -> list[events.Event]:
        """`ended 1 w2 [5]`: its part of the plan is over, 5 chunks are missing."""
        ended = messages.TransferEnded(PlanId(read_id(plan)), int(missing))
        return [self._report(worker, ended)]

    def do_progress(self, plan: str, *words: str) -> list[events.Event]:
        """`progress 1 w1=300 w2=75`: they hold so many KiB by now."""
        reports = []
        for word in words:
            worker, _, kib = word.partition("=")
            progressed = messages.TransferProgressed(
                PlanId(read_id(plan)), int(kib) * 1024, 0.0
            )
            reports.append(self._report(worker, progressed))
        return reports

    def do_lost(self, worker: str, peer: str) -> list[events.Event]:
        """`lost w1 w2`: w1 says that its connection to w2 broke."""
        return [self._report(worker, messages.PeerLost(WorkerId(peer)))]

    def do_used(self, worker: str, outbound: str) -> list[events.Event]:
        """`used w0 0.6`: so much of its outbound link is in use."""
        return [self._report(worker, messages.LinkUsed(float(outbound), 0.0))]

    def do_path(self, worker: str, data_path: str) -> list[events.Event]:
        """`path w0 host`: chunks come to where it computes by that."""
        return [self._report(worker, messages.DataPathChosen(data_path))]

    def do_failed(self, worker: str) -> list[events.Event]:
        """`failed w0`: it could not read the disk."""
        return [self._report(worker, messages.LoadFailed("block 3 is truncated"))]

    def do_leave(self, worker: str) -> list[events.Event]:
        """`leave w1`: it got SIGTERM."""
        return [self._report(worker, messages.LeaveRequested())]

    def do_launcher(self, word: str, *words: str) -> list[events.Event]:
        """`launcher attached [w0 w1] [wanted=3 epoch=1] [ended=w2,w3]`: it knows that.

        Or `launcher detached`.
        """
        if word == "detached":
            return [events.LauncherDetached()]
        workers = tuple(WorkerId(word) for word in words if "=" not in word)
        given = dict(word.split("=") for word in words if "=" in word)
        ended = tuple(map(WorkerId, given.get("ended", "").split(",")))
        return [events.LauncherAttached(workers, *read_wanted(words), ended)]

    def do_exited(self, worker: str, exit_code: str) -> list[events.Event]:
        """`exited w1 2`: the launcher saw its process end."""
        return [events.WorkerProcessEnded(WorkerId(worker), int(exit_code))]

    def do_scale(self, num_workers: str) -> list[events.Event]:
        """`scale 4`."""
        return [events.ScaleRequested(int(num_workers))]

    def do_gateway(self, name: str, *words: str) -> list[events.Event]:
        """`gateway g0 [wanted=3 epoch=1]`: it attached, and saw an earlier manager."""
        hello = gateway_messages.GatewayHello(name, *read_wanted(words))
        return [events.GatewayAttached(hello)]

    def do_load(self, gateway: str, *words: str) -> list[events.Event]:
        """`load g0 waiting=30 running=16 arrived=46 finished=0`: it reports that."""
        given = {name: int(number) for name, number in (w.split("=") for w in words)}
        names = ("waiting", "running", "arrived", "finished")
        counts = {f"num_{name}": given.get(name, 0) for name in names}
        load = gateway_messages.LoadReported(**counts, num_tokens=0, prompt_tokens=0)
        return [events.GatewayReported(gateway, load)]

    def do_wait(self, milliseconds: str) -> list[events.Event]:
        """`wait 500`: so many milliseconds pass."""
        self.now_ns += int(milliseconds) * NS_PER_MS
        return [events.Ticked()]

    def do_status(self) -> list[events.Event]:
        """`status`: print it."""
        return []

    # --- texts -------------------------------------------------------------------

    def show(self, effect: Effect) -> str:
        match effect:
            case TellWorker(worker, command):
                return f"-> {worker}: {self.show_command(command)}"
            case TellLauncher(gateway_messages.RememberWanted(num_workers)):
                return f"-> launcher: remember that {num_workers} are wanted"
            case TellLauncher(command):
                return f"-> launcher: {type(command).__name__} {command.worker}"
            case TellGateways(gateway_messages.StatusChanged() as status):
                self.status = status
                return ""
            case TellGateways(gateway_messages.ReplicasChanged(opened, closed)):
                for pipeline in closed:
                    del self.replicas[pipeline]
                self.replicas.update((each.pipeline, each) for each in opened)
                shown = ", ".join(map(show_replica, self.replicas.values()))
                return f"-> gateways: replicas {shown or 'none'}"
            case TellGateway(gateway, gateway_messages.ReplicasChanged(opened)):
                shown = ", ".join(map(show_replica, opened))
                return f"-> {gateway}: all replicas: {shown or 'none'}"
            case TellGateway():
                return ""
        raise AssertionError(effect)

    def show_command(self, command: messages.WorkerCommand) -> str:
        name = type(command).__name__
        match command:
            case messages.LoadFromDisk(path):
                return f"{name} {path}"
            case messages.JoinMulticast():
                groups = [" ".join(m.worker for m in group) for group in command.groups]
                spares = [f"spare {member.worker}" for member in command.spares]
                lacking = [f"{w} lacks executables" for w in command.lacking]
                members = ", ".join((*groups, *spares, *lacking))
                kind = "" if command.kind == "binomial" else f"{command.kind} "
                return f"{name} {show_id(command.plan)}: {kind}{members}"
            case messages.CancelMulticast(plan):
                return f"{name} {show_id(plan)}"
            case messages.OpenPipeline(spec):
                continues = (
                    f" continues {show_id(spec.continues)}" if spec.continues else ""
                )
                return (
                    f"{name} {show_id(spec.pipeline)}: {show_stages(spec)}{continues}"
                )
            case messages.ClosePipeline(pipeline, reason, finish, continued_by):
                notes = " (finish)" if finish else ""
                notes += (
                    f" (continued by {show_id(continued_by)})" if continued_by else ""
                )
                return f"{name} {show_id(pipeline)}{notes}: {reason}"
            case _:
                return name

    def show_status(self) -> list[str]:
        assert self.status is not None
        lines = [
            f"{worker.worker} {worker.phase} blocks {list(worker.blocks)}"
            + (f" path {worker.data_path!r}" if worker.data_path else "")
            for worker in self.status.workers
        ]
        lines += [
            f"pipeline {show_id(spec.pipeline)}: {show_stages(spec)}"
            for spec in self.status.pipelines
        ]
        if self.status.note:
            lines.append(f"note: {self.status.note}")
        return lines

    def parse_pipeline(self, text: str) -> PipelineSpec:
        number, _, stages = text.partition("=")
        parsed = []
        for stage in stages.split(","):
            worker, _, blocks = stage.rstrip("]").partition("[")
            first, _, last = blocks.partition("-")
            num_blocks = int(last or first) - int(first) + 1
            parsed.append(
                StageSpec(WorkerId(worker), f"mem://{worker}", int(first), num_blocks)
            )
        return PipelineSpec(PipelineId(read_id(number)), tuple(parsed), 64)

    def _report(self, worker: str, report: messages.WorkerReport) -> events.Event:
        return events.WorkerReported(WorkerId(worker), report)


def show_id(number: int) -> str:
    """`7`, or `2:7` for the seventh of epoch 2."""
    epoch, rest = divmod(number, IDS_PER_EPOCH)
    return f"{epoch}:{rest}" if epoch else f"{rest}"


def read_id(text: str) -> int:
    epoch, _, rest = text.rpartition(":")
    return first_id(int(epoch or 0)) + int(rest)


def read_policy(settings: dict[str, str]) -> ManagerPolicy:
    """Scaled by people, unless `autoscale=` says otherwise."""
    execution = PIPELINE_POLICIES[settings.get("pipelines", "jscale")]
    if "autoscale" not in settings:
        return ManagerPolicy(execution=execution)
    return ManagerPolicy(
        execution=execution,
        scaling=SCALING_POLICIES[settings["autoscale"]],
        bounds=ScalingBounds(
            int(settings["min"]),
            int(settings["max"]),
            int(settings["scale_out_ms"]) * NS_PER_MS,
        ),
    )


def read_blocks(text: str) -> tuple[int, ...]:
    """`0,2` or `0-2`."""
    blocks: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        blocks += range(int(first), int(last or first) + 1)
    return tuple(blocks)


def show_replica(replica: gateway_messages.Replica) -> str:
    partners = " ".join(replica.workers[1:])
    return (
        f"{show_id(replica.pipeline)} at {replica.head}"
        f"{f' with {partners}' if partners else ''}"
    )


def show_stages(spec: PipelineSpec) -> str:
    return " → ".join(
        f"{s.worker}[{s.first_block}"
        f"{f'-{s.first_block + s.num_blocks - 1}' if s.num_blocks > 1 else ''}]"
        for s in spec.stages
    )


def transcript(script: str) -> str:
    """The script with what was wanted done below each line.

    Its first line sets up: `manager blocks=4 workers=1` (or `workers=any`), and then
    `epoch=2`, `block_kib=8`, `pipelines=lambdascale`,
    `autoscale=anticipating min=1 max=4 scale_out_ms=2000`.
    """
    runner: ManagerScript | None = None
    lines: list[str] = []
    for line in script.splitlines():
        if line.startswith("  "):
            continue
        lines.append(line.rstrip())
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if text.startswith("manager "):
            settings = dict(word.split("=") for word in text.split()[1:])
            wanted = settings["workers"]
            runner = ManagerScript(
                int(settings["blocks"]),
                None if wanted == "any" else int(wanted),
                int(settings.get("epoch", 0)),
                read_policy(settings),
                int(settings.get("block_kib", 8)),
            )
            continue
        assert runner is not None, "a script starts with `manager …`"
        lines += [f"  {shown}" for shown in runner.run(text)]
    return "\n".join(lines) + "\n"


def read_wanted(words: Iterable[str]) -> tuple[int | None, int]:
    """What an earlier manager wanted, and its epoch: `wanted=3 epoch=1`."""
    given = dict(word.split("=") for word in words if "=" in word)
    wanted = int(given["wanted"]) if "wanted" in given else None
    return wanted, int(given.get("epoch", 0))
