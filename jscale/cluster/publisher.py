"""What gateways are told: replicas that open and close, and the cluster as it is."""

from collections.abc import Callable

from jscale.cluster.decisions import is_too_soon
from jscale.cluster.effects import Effect, TellGateway, TellGateways
from jscale.cluster.gateway_messages import ReplicasChanged, StatusChanged
from jscale.cluster.messages import ModelSpec
from jscale.cluster.pipeline_book import PipelineBook
from jscale.cluster.roster import Roster
from jscale.cluster.status import describe_replica, describe_status


class Publisher:
    """Owns what gateways were told last. Part of a `ManagerState`, pure like it."""

    def __init__(
        self,
        spec: ModelSpec,
        roster: Roster,
        pipelines: PipelineBook,
        emit: Callable[[Effect], None],
        *,
        epoch: int,
    ) -> None:
        """Nobody was told anything; `epoch` is the manager's."""
        self._spec = spec
        self._roster = roster
        self._pipelines = pipelines
        self._emit = emit
        self._epoch = epoch
        self._status: StatusChanged | None = None
        self._has_news = True
        self._told: tuple[int | None, str] = (None, "")
        self._told_ns = 0

    def greet(self, gateway: str) -> None:
        """Tells a gateway that has just attached everything."""
        replicas = tuple(
            describe_replica(self._spec, self._roster, record)
            for record in self._pipelines.published
        )
        snapshot = ReplicasChanged(opened=replicas, is_snapshot=True)
        self._emit(TellGateway(gateway, snapshot))
        if self._status is not None:
            self._emit(TellGateway(gateway, self._status))

    def something_happened(self) -> None:
        """The cluster may look different now."""
        self._has_news = True

    def publish(self, num_wanted: int | None, note: str, now_ns: int) -> None:
        """Tells which replicas opened and closed, and people how things are."""
        opened, closed = self._pipelines.take_changes()
        if opened or closed:
            self._has_news = True
            told = (describe_replica(self._spec, self._roster, r) for r in opened)
            self._emit(TellGateways(ReplicasChanged(tuple(told), tuple(closed))))
        self._has_news |= (num_wanted, note) != self._told
        if not self._has_news or is_too_soon(len(self._roster), self._told_ns, now_ns):
            return
        self._told = (num_wanted, note)
        self._has_news, self._told_ns = False, now_ns
        status = describe_status(
            self._spec,
            self._roster,
            self._pipelines.opened_now,
            num_wanted=num_wanted,
            note=note,
            epoch=self._epoch,
        )
        if status != self._status:
            self._status = status
            self._emit(TellGateways(status))
