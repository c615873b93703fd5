"""Which replica runs which sequence, and what happens when it cannot go on.

Hand-over is one path: a replica that gives a sequence back, a head whose stream broke
and a re-cut all put the sequence into the queue again, in its old place, and it goes
on after the tokens that the client has. A client sees every index once, in order.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import msgspec

from jscale.cluster.gateway_messages import LoadReported, Replica, ReplicasChanged
from jscale.core.errors import OverloadedError, RequestError, UnavailableError
from jscale.core.ids import PipelineId, SequenceId, WorkerId
from jscale.core.units import NS_PER_MS, NS_PER_S
from jscale.engine.request import Request
from jscale.pipeline.messages import (
    Cancel,
    Emitted,
    Finished,
    KvMoved,
    KvTicket,
    Moved,
    Rejected,
    Returned,
    ServeEvent,
    Submit,
)
from jscale.server.decisions import Decision, Deliver, End, Fail, Send
from jscale.server.live import LiveSequence
from jscale.server.replica_set import ReplicaSet
from jscale.server.waiting import Waiting

REST_NS = 100 * NS_PER_MS
"""A replica that gave a sequence back gets none for so long: it is mostly closing, and
the news of that comes by another connection."""

FRUITLESS_MAX = 200
"""Hand-overs in a row without a token, after which a sequence fails."""


@dataclasses.dataclass(frozen=True)
class RouterConfig:
    """Bounds of a router, and what ends a text.

    Attributes:
      max_queued: requests that wait at most; more are refused.
      unavailable_after_ns: with no replica for so long, those that wait fail; time in
        which nobody waited does not count.
      eos_token_ids: tokens after which the model has nothing to say.
    """

    max_queued: int = 1024
    unavailable_after_ns: int = 60 * NS_PER_S
    eos_token_ids: tuple[int, ...] = ()


class Router:
    """Queue, replicas and outstanding sequences of one gateway.

    Every method takes the time and returns what to do, in order. An event costs
    O(log replicas + log waiting) and what it decides. Owned by the gateway's event
    loop.
    """

    def __init__(self, config: RouterConfig, now_ns: int) -> None:
        self._config = config
        self._live: dict[SequenceId, LiveSequence] = {}
        self._waiting = Waiting()
        self._replicas = ReplicaSet()
        self._running_at: dict[WorkerId, dict[SequenceId, LiveSequence]] = {}
        self._unavailable_since_ns: int | None = now_ns
        self._num_arrived = 0
        self._num_tokens = 0
        self._prompt_tokens = 0
        self.num_handed_over = 0
        self.num_kv_moved = 0
        """Hand-overs after which nothing was computed again."""
        self.kv_moved_bytes = 0
        self.num_tokens_of: Counter[WorkerId] = Counter()
        """Tokens that a worker contributed to, as any stage of a replica."""

    @property
    def num_queued(self) -> int:
        """Sequences that wait for a replica."""
        return len(self._waiting)

    @property
    def num_live(self) -> int:
        """Sequences that wait or run."""
        return len(self._live)

    @property
    def is_available(self) -> bool:
        """Some replica could be sent to, if it has room."""
        return self._unavailable_since_ns is None

    @property
    def load(self) -> LoadReported:
        """What waits and runs now, and what came and was given since the start."""
        return LoadReported(
            num_waiting=self.num_queued,
            num_running=self.num_live - self.num_queued,
            num_arrived=self._num_arrived,
            num_finished=self._num_arrived - self.num_live,
            num_tokens=self._num_tokens,
            prompt_tokens=self._prompt_tokens,
        )

    def outstanding(self, pipeline: PipelineId) -> int:
        """Sequences of this gateway that the replica runs."""
        return self._replicas.outstanding(pipeline)

    def runs_on(self, head: WorkerId) -> bool:
        """Some sequence is at that head. O(1)."""
        return head in self._running_at

    def submit(
        self,
        sequence: SequenceId,
        request: Request,
        now_ns: int,
        *,
        generated: Sequence[int] = (),
    ) -> list[Decision]:
        """A request arrived; its client has the tokens `generated` already.

        Raises:
          OverloadedError: as many wait as may.
        """
        assert sequence not in self._live, sequence
        if len(self._waiting) >= self._config.max_queued:
            raise OverloadedError(
                f"{len(self._waiting)} requests are waiting, as many as may: "
                f"try again later, or add workers"
            )
        if self._unavailable_since_ns is not None and not self._waiting:
            self._unavailable_since_ns = now_ns  # Nobody has waited until now.
        live = LiveSequence(
            sequence, request, arrival=self._num_arrived, generated=list(generated)
        )
        self._num_arrived += 1
        self._prompt_tokens += len(request.prompt_ids)
        finished = live.finish_reason(self._config.eos_token_ids)
        if finished is not None:  # It was cut off before it heard of its end.
            return [End(sequence, finished)]
        self._live[sequence] = live
        self._waiting.add(live)
        return self._dispatch(now_ns)

    def cancel(self, sequence: SequenceId, now_ns: int) -> list[Decision]:
        """Nobody wants the rest of this sequence; nothing more is delivered."""
        live = self._live.get(sequence)
        if live is None:
            return []
        replica = live.replica
        self._forget(live)
        told = [Send(replica.head, Cancel(sequence))] if replica else []
        return [*told, *self._dispatch(now_ns)]

    def replicas_changed(self, change: ReplicasChanged, now_ns: int) -> list[Decision]:
        """Some replicas are open now, others no longer.

        Sequences on a replica that is open no longer run on until it returns them.
        """
        self._replicas.change(change)
        return self._dispatch(now_ns)

    def head_attached(self, head: WorkerId, now_ns: int) -> list[Decision]:
        """The stream to this worker is open: its replicas can be sent to."""
        self._replicas.attach(head)
        return self._dispatch(now_ns)

    def head_lost(self, head: WorkerId, reason: str, now_ns: int) -> list[Decision]:
        """The stream to this worker broke: what ran there goes on elsewhere."""
        self._replicas.detach(head)
        decisions: list[Decision] = []
        running = self._running_at.get(head, {}).values()
        for live in sorted(running, key=lambda live: live.arrival):
            decisions += self._hand_over(live, reason)
        return decisions + self._dispatch(now_ns)

    def served(self, head: WorkerId, event: ServeEvent, now_ns: int) -> list[Decision]:
        """A head says something of a sequence; what an old attempt says is dropped."""
        live = self._live.get(event.sequence)
        if (
            live is None
            or live.replica is None
            or live.replica.head != head
            or live.attempt != event.attempt
        ):
            return []
        match event:
            case Emitted(index=index) if index == len(live.generated):
                live.generated.append(event.token)
                live.num_fruitless = 0
                self._num_tokens += 1
                for worker in live.replica.workers:
                    self.num_tokens_of[worker] += 1
                return [Deliver(live.sequence, index, event.token, event.logprob)]
            case Emitted(index=index) if index < len(live.generated):
                return []
            case Emitted(index=index):
                told = Send(head, Cancel(live.sequence))
                reason = f"{head} left out token {len(live.generated)} (sent {index})"
                return [told, *self._hand_over(live, reason), *self._dispatch(now_ns)]
            case Finished():
                self._forget(live)
                return [End(live.sequence, event.reason), *self._dispatch(now_ns)]
            case Returned():
                self._replicas.rest(live.replica.pipeline, now_ns + REST_NS)
                decisions = self._hand_over(live, event.reason, event.kv)
                return decisions + self._dispatch(now_ns)
            case Moved(pipeline=pipeline):
                self._move(live, pipeline)
                return self._dispatch(now_ns)
            case KvMoved():
                self.num_kv_moved += 1
                self.kv_moved_bytes += event.size_bytes
                return []
            case Rejected():
                self._forget(live)
                failed = Fail(live.sequence, RequestError(event.reason))
                return [failed, *self._dispatch(now_ns)]

    def tick(self, now_ns: int) -> list[Decision]:
        """Time passed: rests end, and waiting without any replica does too."""
        decisions = self._dispatch(now_ns)
        since_ns = self._unavailable_since_ns
        if since_ns is None or now_ns - since_ns < self._config.unavailable_after_ns:
            return decisions
        waited_s = (now_ns - since_ns) // NS_PER_S
        for live in list(self._waiting):
            self._forget(live)
            message = (
                f"no worker could serve for {waited_s} s: "
                f"see ModelStatus, then try again or add workers"
            )
            decisions.append(Fail(live.sequence, UnavailableError(message)))
        return decisions

    def _hand_over(
        self, live: LiveSequence, reason: str, kv: KvTicket | None = None
    ) -> list[Decision]:
        """Takes the sequence from its replica and queues it, if anything is left."""
        self._release(live)
        live.kv = kv
        self.num_handed_over += 1
        live.attempt += 1
        live.num_fruitless += 1
        finished = live.finish_reason(self._config.eos_token_ids)
        if finished is not None:
            self._forget(live)
            return [End(live.sequence, finished)]
        if live.num_fruitless > FRUITLESS_MAX:
            self._forget(live)
            message = f"{FRUITLESS_MAX} replicas in a row gave it back: {reason}"
            return [Fail(live.sequence, UnavailableError(message))]
        self._waiting.add(live)
        return []

    def _dispatch(self, now_ns: int) -> list[Decision]:
        """Sends who waits longest while a replica has room."""
        if self._replicas.is_usable:
            self._unavailable_since_ns = None
        elif self._unavailable_since_ns is None:
            self._unavailable_since_ns = now_ns
        decisions: list[Decision] = []
        while self._waiting and (replica := self._replicas.choose(now_ns)):
            live = self._waiting.pop()
            self._book(live, replica)
            submit = Submit(
                pipeline=replica.pipeline,
                sequence=live.sequence,
                attempt=live.attempt,
                request=live.request,
                generated=tuple(live.generated),
                kv=live.kv,
            )
            decisions.append(Send(replica.head, submit))
        return decisions

    def _book(self, live: LiveSequence, replica: Replica) -> None:
        live.replica = replica
        self._replicas.book(replica.pipeline)
        self._running_at.setdefault(replica.head, {})[live.sequence] = live

    def _release(self, live: LiveSequence) -> None:
        replica = live.replica
        if replica is None:
            return
        self._replicas.release(replica.pipeline)
        running = self._running_at[replica.head]
        del running[live.sequence]
        if not running:
            del self._running_at[replica.head]
        live.replica = None

    def _move(self, live: LiveSequence, pipeline: PipelineId) -> None:
        """Books the sequence on another replica of the same head."""
        assert live.replica is not None, live
        # That the replica is open may be told later than that it has the sequence.
        unknown = msgspec.structs.replace(live.replica, pipeline=pipeline)
        self._release(live)
        self._book(live, self._replicas.find(pipeline) or unknown)

    def _forget(self, live: LiveSequence) -> None:
        self._waiting.discard(live)
        self._release(live)
        del self._live[live.sequence]
