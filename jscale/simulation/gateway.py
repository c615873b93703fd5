"""A simulated gateway: the real `Router` between clients and heads."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from jscale.cluster import gateway_messages, messages
from jscale.core.errors import OverloadedError
from jscale.core.ids import PipelineId, SequenceId, WorkerId
from jscale.core.units import NS_PER_MS
from jscale.engine.request import Request, SamplingParams
from jscale.pipeline.messages import Emitted, ServeCommand, Submit
from jscale.server.decisions import Decision, Deliver, End, Fail, Send
from jscale.server.load_reports import REPORT_NS, LoadReports
from jscale.server.router import Router, RouterConfig
from jscale.simulation.sequence_progress import SimulatedServeEvent, TokensEmitted
from jscale.simulation.worker import SimulatedWorker

if TYPE_CHECKING:
    from jscale.simulation.world import World

TICK_NS = 50 * NS_PER_MS
"""How often the router is told that time passes, while somebody waits."""

MAX_QUEUED = 1 << 30
"""Simulated requests are never refused: how long they wait is what is asked."""


class SimulatedGateway:
    """Carries out what the router decides. Clients' requests are numbers of a trace."""

    def __init__(
        self, world: "World", name: str, wanted: tuple[int | None, int]
    ) -> None:
        """A gateway that has just started.

        `wanted` is what the last manager that clients heard of wanted, and its epoch.
        """
        self._world = world
        self.name = name
        self.is_alive = True
        self.is_attached = False
        self._wanted, self._wanted_epoch = wanted
        config = RouterConfig(max_queued=MAX_QUEUED)
        self.router = Router(config, world.clock.now_ns)
        self._numbers: dict[SequenceId, int] = {}
        self._given: dict[SequenceId, int] = {}
        self._replicas: dict[PipelineId, gateway_messages.Replica] = {}
        self._heads: dict[WorkerId, SimulatedWorker] = {}
        self._is_ticking = False
        self._load_reports = LoadReports()
        world.clock.after(REPORT_NS, self._tell_load)

    @property
    def numbers(self) -> dict[int, int]:
        """Requests that are not complete, and the tokens that each was given."""
        return {number: self._given[s] for s, number in self._numbers.items()}

    # --- clients -----------------------------------------------------------------

    def submit(self, number: int, given: int = 0) -> None:
        """A request of the trace arrives; its client has so many tokens already."""
        asked = self._world.trace[number]
        sequence = SequenceId(f"{self.name}-{number}")
        request = Request(
            id=sequence,
            prompt_ids=self._world.prompt(asked.prompt_tokens),
            sampling=SamplingParams(max_tokens=asked.output_tokens, ignore_eos=True),
        )
        self._numbers[sequence] = number
        self._given[sequence] = given
        now_ns = self._world.clock.now_ns
        try:
            decided = self.router.submit(
                sequence, request, now_ns, generated=range(given)
            )
        except OverloadedError as error:
            self._ended(sequence, str(error))
        else:
            self._carry_out(decided)
            self._report()

    def scale_to(self, num_workers: int) -> None:
        """Somebody asks for so many workers."""
        manager = self._world.manager
        command = gateway_messages.ScaleTo(num_workers)
        self._world.streams.send(self, manager, manager.gateway_said, self, command)

    # --- the manager -------------------------------------------------------------

    def attach(self) -> None:
        """The stream to the manager is open."""
        if self.is_alive and self._world.manager.is_alive:
            self.is_attached = True
            hello = gateway_messages.GatewayHello(
                self.name, self._wanted, self._wanted_epoch
            )
            manager = self._world.manager
            self._world.streams.send(self, manager, manager.gateway_said, self, hello)

    def detach(self) -> None:
        """The stream to the manager broke."""
        self.is_attached = False
        self._load_reports.forget()

    def stop(self) -> None:
        """The process is gone."""
        self.is_alive = False
        world, manager = self._world, self._world.manager
        for head in self._heads.values():
            world.streams.send(self, head, head.gateway_gone, self.name)
        world.streams.send(self, manager, manager.gateway_gone, self)

    @property
    def wanted(self) -> tuple[int | None, int]:
        """What the last manager that it heard of wanted, and its epoch."""
        return self._wanted, self._wanted_epoch

    def manager_said(self, command: gateway_messages.GatewayCommand) -> None:
        """What there is now."""
        world = self._world
        match command:
            case gateway_messages.StatusChanged():
                self._wanted = command.num_workers_wanted
                self._wanted_epoch = command.epoch
                world.wanted_changed(command.num_workers_wanted)
            case gateway_messages.ReplicasChanged(opened, closed, is_snapshot):
                if is_snapshot:
                    self._replicas.clear()
                for pipeline in closed:
                    self._replicas.pop(pipeline, None)
                    world.recorder.closed(pipeline, world.clock.now_ns)
                for replica in opened:
                    self._replicas[replica.pipeline] = replica
                    world.recorder.opened(replica, world.clock.now_ns)
                    self._follow(replica.head)
                now_ns = world.clock.now_ns
                self._carry_out(self.router.replicas_changed(command, now_ns))
            case messages.Refuse(reason):
                raise AssertionError(reason)

    # --- heads -------------------------------------------------------------------

    def head_said(self, head: WorkerId, events: Iterable[SimulatedServeEvent]) -> None:
        """What became of sequences."""
        for event in events:
            if isinstance(event, TokensEmitted):
                self._emitted(head, event)
            else:
                self._carry_out(self.router.served(head, event, self._now_ns))

    def head_gone(self, head: SimulatedWorker) -> None:
        """The stream to a head broke."""
        if self._heads.get(head.name) is head:
            del self._heads[head.name]
            why = f"{head.name} is lost"
            self._carry_out(self.router.head_lost(head.name, why, self._now_ns))
            self._world.clock.after(REPORT_NS, self.follow, head.name)

    def follow(self, head: WorkerId) -> None:
        """Tries again to reach a head, if it is one."""
        if any(each.head == head for each in self._replicas.values()):
            self._follow(head)

    def _follow(self, head: WorkerId) -> None:
        """Opens a stream to a head, if there is none."""
        worker = self._world.find(head)
        if head in self._heads or worker is None or not self.is_alive:
            return
        if self._world.machines.is_cut(worker.device.host):
            return  # It is followed when the link is healed.
        self._heads[head] = worker
        worker.gateways.add(self.name)
        self._world.streams.send(worker, self, self._head_attached, worker)

    def _head_attached(self, worker: SimulatedWorker) -> None:
        if self._heads.get(worker.name) is worker:
            self._carry_out(self.router.head_attached(worker.name, self._now_ns))

    def _emitted(self, head: WorkerId, run: TokensEmitted) -> None:
        """Every token by itself, as the router takes them; counted together."""
        served, now_ns = self.router.served, self._now_ns
        num_delivered = 0
        for index in range(run.first_index, run.first_index + run.num_tokens):
            event = Emitted(run.sequence, run.attempt, index, index, 0.0)
            decided = served(head, event, now_ns)
            if len(decided) == 1 and isinstance(decided[0], Deliver):
                assert decided[0].index == self._given[run.sequence], decided
                self._given[run.sequence] += 1
                num_delivered += 1
            else:
                self._carry_out(decided)
        if num_delivered:
            number = self._numbers[run.sequence]
            from_ns = now_ns - (run.to_ns - run.from_ns)
            self._world.recorder.gave(number, num_delivered, from_ns, now_ns)

    # --- decisions ---------------------------------------------------------------

    @property
    def _now_ns(self) -> int:
        return self._world.clock.now_ns

    def _carry_out(self, decisions: Iterable[Decision]) -> None:
        commands: dict[WorkerId, list[ServeCommand]] = {}
        for decision in decisions:
            match decision:
                case Send(head, command):
                    if isinstance(command, Submit) and command.attempt:
                        number = self._numbers[command.sequence]
                        self._world.recorder.handed_over(number)
                    commands.setdefault(head, []).append(command)
                case Deliver():
                    raise AssertionError("tokens are delivered in `_emitted`")
                case End(sequence):
                    self._ended(sequence)
                case Fail(sequence, error):
                    self._ended(sequence, str(error))
        for head, told in commands.items():
            worker = self._heads.get(head)
            if worker is not None:
                self._world.streams.send(
                    self, worker, worker.serve, self.name, tuple(told)
                )
        if self.router.num_queued and not self._is_ticking:
            self._is_ticking = True
            self._world.clock.after(TICK_NS, self._tick)

    def _ended(self, sequence: SequenceId, error: str = "") -> None:
        number = self._numbers.pop(sequence)
        given = self._given.pop(sequence)
        self._world.request_ended(number, given, error)

    def _tick(self) -> None:
        self._is_ticking = False
        if self.is_alive:
            self._carry_out(self.router.tick(self._now_ns))

    def _tell_load(self) -> None:
        if self.is_alive:
            self._report()
            self._world.clock.after(TICK_NS, self._tell_load)

    def _report(self) -> None:
        """Tells the manager the load, as the real gateway does, if that is due."""
        load, now_ns = self.router.load, self._world.clock.now_ns
        if self.is_attached and self._load_reports.is_due(load, now_ns):
            manager = self._world.manager
            self._world.streams.send(self, manager, manager.gateway_said, self, load)
