"""The gateway: takes requests, and carries out what its router decides."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable

from absl import logging

from jscale.cluster import gateway_messages, messages, rpc
from jscale.cluster.link import Link
from jscale.core.errors import RequestError, UnavailableError
from jscale.core.ids import PipelineId, SequenceId, WorkerId
from jscale.core.units import NS_PER_S
from jscale.pipeline.messages import ServeCommand, ServeCommands, ServeEvents
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.decisions import Decision, Deliver, End, Fail, Send
from jscale.server.gateway_config import GatewayConfig
from jscale.server.load_reports import LoadReports
from jscale.server.metrics import ServingMetrics
from jscale.server.model_facts import ModelFacts
from jscale.server.request_stream import RequestStream
from jscale.server.requests import read_generated, read_request
from jscale.server.router import Router, RouterConfig
from jscale.server.status_view import status_response

TICK_S = 0.05
"""How often time is told to the router: half of the rest of a replica."""

NUM_WORKERS_MAX = 4096


class Gateway:
    """Requests of clients on one side, heads of replicas on the other.

    Owned by its event loop. `now_ns` is the clock; `name` is unique in the cluster.
    """

    def __init__(
        self,
        config: GatewayConfig,
        facts: ModelFacts,
        *,
        name: str,
        now_ns: Callable[[], int],
    ) -> None:
        self._config = config
        self._facts = facts
        self._name = name
        self._now_ns = now_ns
        self._router = Router(
            RouterConfig(
                max_queued=config.max_queued,
                unavailable_after_ns=int(config.unavailable_after_s * NS_PER_S),
                eos_token_ids=facts.eos_token_ids,
            ),
            now_ns(),
        )
        self._metrics = ServingMetrics(now_ns())
        self._streams: dict[SequenceId, RequestStream] = {}
        self._running: dict[str, RequestStream] = {}
        self._numbers = itertools.count()
        self._replicas: dict[PipelineId, gateway_messages.Replica] = {}
        self._status: gateway_messages.StatusChanged | None = None
        self._asked: tuple[int, int] | None = None
        self._load_reports = LoadReports()
        self._heads: dict[WorkerId, tuple[Link, asyncio.Task[None]]] = {}
        self._manager = Link(
            rpc.ATTACH_GATEWAY,
            config.manager_address,
            config.cluster_token,
            name="the manager",
            on_attached=self._manager_attached,
            on_message=self._manager_said,
            on_lost=lambda _: None,
        )
        self._is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_serving(self) -> bool:
        """A request that comes now can be run at once or soon."""
        return self._router.is_available and not self._is_draining

    @property
    def is_draining(self) -> bool:
        """It takes no more requests."""
        return self._is_draining

    async def run(self) -> None:
        """Attaches to the manager and the heads; runs until cancelled.

        Raises:
          UnavailableError: the manager refuses this gateway.
        """
        ticker = asyncio.create_task(self._tick())
        try:
            await self._manager.run()
        finally:
            ticker.cancel()
            tasks = [ticker, *(task for _, task in self._heads.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def drain(self, timeout_s: float) -> None:
        """Takes no more requests; returns when none runs, or after the timeout."""
        self._is_draining = True
        logging.info("draining num_running=%d", len(self._streams))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()

    def generate(self, asked: pb.GenerateRequest) -> RequestStream:
        """The stream of a new request; hand it to `forget` whatever comes of it.

        Raises:
          RequestError: it can never be served as it is.
          OverloadedError: too many wait.
          UnavailableError: this gateway is leaving.
        """
        if self._is_draining:
            raise UnavailableError(
                "this gateway is leaving: ask another, or again soon"
            )
        number = next(self._numbers)
        sequence = SequenceId(f"{self._name}-{number}")
        name = asked.request_id or sequence
        if name in self._running and not asked.generated_ids:
            raise RequestError(
                f"request id {name!r} is running: choose another, or abort it first"
            )
        request = read_request(asked, self._facts, name)
        generated = read_generated(asked, self._facts, request)
        if generated:  # What still runs here of it, its client lost sight of.
            self.abort(name)
        now_ns = self._now_ns()
        stream = RequestStream(
            sequence,
            request,
            tokenizer=self._facts.tokenizer,
            eos_token_ids=self._facts.eos_token_ids,
            arrived_ns=now_ns,
            generated=generated,
        )
        decisions = self._router.submit(sequence, request, now_ns, generated=generated)
        self._streams[sequence] = self._running[name] = stream
        self._idle.clear()
        self._carry_out(decisions)
        self._report_load()
        return stream

    def forget(self, stream: RequestStream) -> None:
        """The client has all it wants: what still runs of the request ends."""
        if self._running.get(stream.request.id) is stream:
            del self._running[stream.request.id]
        if self._streams.pop(stream.sequence, None) is not None:
            self._carry_out(self._router.cancel(stream.sequence, self._now_ns()))
        if not self._running:
            self._idle.set()

    def abort(self, name: str) -> bool:
        """Ends the request of that name; whether it was running."""
        stream = self._running.get(name)
        if stream is None or stream.sequence not in self._streams:
            return False
        del self._streams[stream.sequence]
        stream.put(End(stream.sequence, "cancelled"))
        self._carry_out(self._router.cancel(stream.sequence, self._now_ns()))
        return True

    def scale_to(self, num_workers: int) -> int:
        """Asks the manager for so many workers; how many were wanted before.

        Raises:
          RequestError: no cluster has so many.
          UnavailableError: the manager is not there.
        """
        if not 0 <= num_workers <= NUM_WORKERS_MAX:
            raise RequestError(
                f"num_workers={num_workers}: give 0 to {NUM_WORKERS_MAX}"
            )
        if not self._manager.is_attached or self._status is None:
            raise UnavailableError(
                f"the manager at {self._manager.address} is not there: try again later"
            )
        self._manager.send(gateway_messages.ScaleTo(num_workers))
        before = self._status.num_workers_wanted
        self._asked = (before, num_workers)
        return before

    def status(self) -> pb.ModelStatusResponse:
        """The cluster as people see it now."""
        response = status_response(self._status, self._replicas.values(), self._router)
        response.model = response.model or self._facts.model_name
        speed = self._metrics.speed(self._now_ns())
        serving = response.serving
        serving.num_queued = self._router.num_queued
        serving.num_running = self._router.num_live - self._router.num_queued
        serving.num_handed_over = self._router.num_handed_over
        serving.num_kv_moved = self._router.num_kv_moved
        serving.kv_moved_bytes = self._router.kv_moved_bytes
        serving.num_finished = speed.num_finished
        serving.num_tokens = speed.num_tokens
        serving.tokens_per_s = speed.tokens_per_s
        serving.ttft_p50_ms = speed.ttft_p50_ms
        serving.ttft_p90_ms = speed.ttft_p90_ms
        return response

    async def _tick(self) -> None:
        while True:
            self._carry_out(self._router.tick(self._now_ns()))
            self._report_load()
            await asyncio.sleep(TICK_S)

    def _report_load(self) -> None:
        load = self._router.load
        if self._manager.is_attached and self._load_reports.is_due(
            load, self._now_ns()
        ):
            self._manager.send(load)

    def _manager_attached(self) -> None:
        """Tells a manager, which may be a new one, what the last one wanted."""
        status = self._status
        wanted = None if status is None else status.num_workers_wanted
        if self._asked is not None:  # The last one may never have heard of it.
            _, wanted = self._asked
        epoch = 0 if status is None else status.epoch
        self._manager.send(gateway_messages.GatewayHello(self._name, wanted, epoch))
        self._load_reports.forget()

    def _manager_said(self, command: gateway_messages.GatewayCommand) -> None:
        match command:
            case messages.Refuse(reason):
                raise UnavailableError(f"the manager refuses this gateway: {reason}")
            case gateway_messages.StatusChanged(num_workers_wanted=wanted):
                self._status = command
                if self._asked is not None and wanted != self._asked[0]:
                    self._asked = None
                self._leave_heads(command)
            case gateway_messages.ReplicasChanged(opened, closed, is_snapshot):
                if is_snapshot:
                    self._replicas.clear()
                for pipeline in closed:
                    self._replicas.pop(pipeline, None)
                self._replicas.update((each.pipeline, each) for each in opened)
                for replica in opened:
                    self._follow_head(replica)
                self._carry_out(self._router.replicas_changed(command, self._now_ns()))

    def _follow_head(self, replica: gateway_messages.Replica) -> None:
        """Opens a link to the head of a replica, if there is none. O(1)."""
        head, address = replica.head, replica.serve_address
        link, task = self._heads.get(head, (None, None))
        if link is not None and link.address == address:
            return
        if task is not None:
            task.cancel()
        link = self._link_to(head, address)
        self._heads[head] = (link, asyncio.create_task(link.run()))

    def _leave_heads(self, status: gateway_messages.StatusChanged) -> None:
        """Closes links to workers that are gone and have nothing of ours."""
        known = {worker.worker for worker in status.workers}
        known.update(replica.head for replica in self._replicas.values())
        for head in self._heads.keys() - known:
            if not self._router.runs_on(head):
                self._heads.pop(head)[1].cancel()

    def _link_to(self, head: WorkerId, address: str) -> Link:
        def attached() -> None:
            self._carry_out(self._router.head_attached(head, self._now_ns()))

        def said(events: ServeEvents) -> None:
            for event in events.events:
                self._carry_out(self._router.served(head, event, self._now_ns()))

        def lost(reason: str) -> None:
            why = f"{head}: {reason}"
            self._carry_out(self._router.head_lost(head, why, self._now_ns()))

        return Link(
            rpc.ATTACH_HEAD,
            address,
            self._config.cluster_token,
            name=f"head {head}",
            on_attached=attached,
            on_message=said,
            on_lost=lost,
        )

    def _carry_out(self, decisions: Iterable[Decision]) -> None:
        commands: dict[WorkerId, list[ServeCommand]] = {}
        for decision in decisions:
            match decision:
                case Send(head, command):
                    commands.setdefault(head, []).append(command)
                case Deliver(sequence):
                    self._count(decision)
                    self._streams[sequence].put(decision)
                case End(sequence) | Fail(sequence):
                    self._metrics.add_finished()
                    self._streams.pop(sequence).put(decision)
        for head, told in commands.items():
            if head in self._heads:
                self._heads[head][0].send(ServeCommands(tuple(told)))

    def _count(self, delivered: Deliver) -> None:
        now_ns = self._now_ns()
        self._metrics.add_token(now_ns)
        if delivered.index == 0:
            stream = self._streams[delivered.sequence]
            self._metrics.add_first_token(now_ns - stream.arrived_ns)
