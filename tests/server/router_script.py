"""Plays transcripts to a router: what happened (>), and what it wants done."""

import inspect

from jscale.cluster.gateway_messages import Replica, ReplicasChanged
from jscale.core.errors import OverloadedError
from jscale.core.ids import PipelineId, SequenceId, WorkerId
from jscale.core.units import NS_PER_S
from jscale.engine.request import Request, SamplingParams
from jscale.pipeline.messages import (
    Cancel,
    Emitted,
    Finished,
    KvMoved,
    KvTicket,
    Rejected,
    Returned,
)
from jscale.server.decisions import Decision, Deliver, End, Fail, Send
from jscale.server.router import Router, RouterConfig

EOS = 2


class Script:
    """Plays lines of a transcript to a router."""

    def __init__(self, max_queued: int = 8) -> None:
        config = RouterConfig(max_queued=max_queued, eos_token_ids=(EOS,))
        self.now_ns = 0
        self.router = Router(config, self.now_ns)

    def play(self, script: str) -> str:
        lines = []
        for line in inspect.cleandoc(script).splitlines():
            if line.startswith("> "):
                lines.append(line)
                lines += self.answer(line[2:].split())
        return "\n".join(lines)

    def answer(self, words: list[str]) -> list[str]:
        try:
            return [show(decision) for decision in self.do(*words)]
        except OverloadedError as error:
            return [f"refused: {error}"]

    def do(self, verb: str, *words: str) -> list[Decision]:
        router, now_ns = self.router, self.now_ns
        match verb, *words:
            case "submit", name, *rest:
                max_tokens = int(rest[0]) if rest else 9
                sequence = SequenceId(name)
                request = Request(sequence, (1,), SamplingParams(max_tokens=max_tokens))
                generated = [int(token) for token in rest[1:]]
                return router.submit(sequence, request, now_ns, generated=generated)
            case "replicas", *names:
                opened = tuple(map(replica, names))
                change = ReplicasChanged(opened, is_snapshot=True)
                return router.replicas_changed(change, now_ns)
            case "opens", *names:
                change = ReplicasChanged(tuple(map(replica, names)))
                return router.replicas_changed(change, now_ns)
            case "closes", *numbers:
                closed = tuple(PipelineId(int(number)) for number in numbers)
                change = ReplicasChanged(closed=closed)
                return router.replicas_changed(change, now_ns)
            case "attach", head:
                return router.head_attached(WorkerId(head), now_ns)
            case "lose", head:
                return router.head_lost(WorkerId(head), "the stream broke", now_ns)
            case "cancel", name:
                return router.cancel(SequenceId(name), now_ns)
            case "at", seconds:
                self.now_ns = int(float(seconds) * NS_PER_S)
                return router.tick(self.now_ns)
            case head, event, name, *rest:
                return router.served(WorkerId(head), said(event, name, rest), now_ns)
        raise AssertionError(verb)


def replica(text: str) -> Replica:
    """`3:w1:local:2` is pipeline 3 with head w1, local, of capacity 2."""
    pipeline, head, kind, capacity = text.split(":")
    return Replica(
        pipeline=PipelineId(int(pipeline)),
        head=WorkerId(head),
        serve_address=f"{head}:1",
        is_local=kind == "local",
        capacity=int(capacity),
        workers=(WorkerId(head),),
    )


def said(event: str, name: str, rest: list[str]):
    sequence, attempt = SequenceId(name.split("#")[0]), int(name.split("#")[1])
    match event:
        case "emits":
            index, token = map(int, rest)
            return Emitted(sequence, attempt, index, token, -0.5)
        case "finishes":
            return Finished(sequence, attempt, rest[0])
        case "returns":
            kv = KvTicket(PipelineId(1), (), (1,), int(rest[0])) if rest else None
            return Returned(sequence, attempt, "it closes", kv)
        case "moved":
            return KvMoved(sequence, attempt, int(rest[0]), size_bytes=1000)
        case "rejects":
            return Rejected(sequence, attempt, "too long")
    raise AssertionError(event)


def show(decision: Decision) -> str:
    match decision:
        case Send(head, Cancel(sequence)):
            return f"{head} < cancel {sequence}"
        case Send(head, submit):
            name = f"{submit.sequence}#{submit.attempt}"
            after = f" after {[*submit.generated]}" if submit.generated else ""
            kv = f", kv of {submit.kv.num_tokens}" if submit.kv else ""
            return f"{head} < submit {name} to {submit.pipeline}{after}{kv}"
        case Deliver(sequence, index, token, _):
            return f"{sequence} gets {token} at {index}"
        case End(sequence, reason):
            return f"{sequence} ends: {reason}"
        case Fail(sequence, error):
            return f"{sequence} fails: {type(error).__name__} {error}"
