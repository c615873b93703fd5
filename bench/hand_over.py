"""From a hand-over to the next token: KV moved along, against KV computed again.

Two workers in this process, each with its device thread, over tcp:// with links of an
emulated rate. A sequence of so many tokens runs on one; its replica is closed, as for a
re-cut, and it is submitted to the other's with the ticket that came back. Measured is
the time from the closing to the next token. The tokens must be the same either way.

    python bench/hand_over.py
    python bench/hand_over.py --link_mbit_s=10000 --repeats=5 --json=out.json
"""

import argparse
import dataclasses
import json
import pathlib
import queue
import statistics
import tempfile
import time

import msgspec

from jscale.checkpoint.random_model import config_of_size, write_random_model
from jscale.cluster.device import Device
from jscale.cluster.peers import Peers
from jscale.core.ids import PipelineId, SequenceId, WorkerId
from jscale.core.units import MIB, NS_PER_MS, mbit_to_bytes_per_s
from jscale.engine.config import EngineConfig
from jscale.engine.executables import ExecutableSet
from jscale.engine.executor import StageExecutor
from jscale.engine.kv_copy import kv_bytes_per_token, kv_copy_specs
from jscale.engine.program import ModelProgram
from jscale.engine.request import Request, SamplingParams
from jscale.pipeline.messages import (
    Emitted,
    KvMoved,
    PipelineSpec,
    Returned,
    StageSpec,
    Submit,
)
from jscale.pipeline.outbox import Outbox
from jscale.pipeline.stage_host import StageHost
from jscale.store.block_store import BlockStore
from jscale.store.manifest import Manifest
from jscale.transport.base import Hello
from jscale.transport.pacing import LinkPacer
from jscale.transport.registry import open_transport

WAYS = ("never", "always", "auto")
NUM_TOKENS_BEFORE = 4


class Worker(Outbox):
    """A stage host on its thread, its peers, and what it tells its gateway."""

    def __init__(self, name, model, config, link_bytes_per_s):
        program, executables, store = model
        self.name = WorkerId(name)
        self.events = queue.SimpleQueue()
        self.transport = open_transport(
            "tcp://127.0.0.1:0", Hello(self.name), link=LinkPacer(link_bytes_per_s)
        )
        self.peers = Peers(
            self.transport,
            deliver=lambda message, payload: self.device.post(
                lambda host: host.take(message, payload)
            ),
            lose=lambda peer: self.device.post(lambda host: host.break_with(peer)),
        )
        self.address = self.transport.listen("tcp://127.0.0.1:0", self.peers).address
        executor = StageExecutor(executables)
        for block in range(program.partition.num_blocks):
            executor.set_block(block, store.publish(block))
        host = StageHost(
            self.name, config, executor, self, link_bytes_per_s=link_bytes_per_s
        )
        self.device = Device(host, self.events.put)
        self.device.start()

    def send(self, stage, message, payload):
        """See `Outbox`."""
        self.peers.send(stage.worker, stage.address, message, payload)

    def emit(self, gateway, events):
        """See `Outbox`."""
        del gateway
        for event in events:
            self.events.put(event)

    def closed(self, pipeline, reason):
        """See `Outbox`."""

    def stop(self):
        """Ends the threads."""
        self.device.stop()
        self.peers.close()
        self.transport.close()

    def next(self, kind, sequence):
        """The next event of that kind about that sequence."""
        while True:
            event = self.events.get(timeout=300)
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, kind) and event.sequence == sequence:
                return event


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One hand-over."""

    way: str
    link_mbit_s: float
    num_tokens: int
    took_ms: float
    was_moved: bool
    kv_bytes: int
    index: int
    token: int


def main() -> None:
    """Runs every size and way in turn, and prints medians."""
    options = _parse_options()
    outcomes = []
    with tempfile.TemporaryDirectory() as directory:
        model = _model(options, pathlib.Path(directory))
        size = kv_bytes_per_token(model[0], options.num_layers)
        print(f"{options.size_mib} MiB of weights, {size / 1024:.0f} KiB KV a token")
        for link_mbit_s in options.link_mbit_s:
            outcomes += _run(options, model, link_mbit_s)
    if options.json:
        rows = [dataclasses.asdict(outcome) for outcome in outcomes]
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


def _run(options, model, link_mbit_s):
    """All hand-overs on links of one rate."""
    outcomes = []
    rate = mbit_to_bytes_per_s(link_mbit_s)
    pairs = {way: _Pair(model, way, rate) for way in WAYS}
    print(f"{link_mbit_s:.0f} Mbit/s: ms from hand-over to next token, median (spread)")
    for num_tokens in options.num_tokens:
        for repeat in range(1 + options.repeats):
            for pair in pairs.values():
                outcome = pair.hand_over(num_tokens, link_mbit_s)
                if repeat:  # The first of each size warms up.
                    outcomes.append(outcome)
        of_size = [each for each in outcomes if each.num_tokens == num_tokens]
        tokens = {(each.index, each.token) for each in of_size}
        indices = {each.index for each in of_size}
        assert len(tokens) == len(indices), "the same tokens either way"
        print(f"  {num_tokens:5} tokens: {_line(of_size)}", flush=True)
    for pair in pairs.values():
        pair.stop()
    return outcomes


def _line(outcomes):
    parts = []
    for way in WAYS:
        of_way = [each for each in outcomes if each.way == way]
        took = [each.took_ms for each in of_way]
        moved = sum(each.was_moved for each in of_way)
        auto = f" moved {moved} of {len(of_way)}" if way == "auto" else ""
        parts.append(
            f"{way} {statistics.median(took):7.1f} "
            f"({min(took):.1f} to {max(took):.1f}){auto}"
        )
    return ", ".join(parts)


class _Pair:
    """Two workers between which sequences are handed over, there and back."""

    def __init__(self, model, way, link_bytes_per_s):
        self._way = way
        self._config = msgspec.structs.replace(model[0].engine, moves_kv=way)
        self._num_blocks = model[0].partition.num_blocks
        self._workers = [
            Worker(name, model, self._config, link_bytes_per_s) for name in ("w0", "w1")
        ]
        self._next_pipeline = 1

    def stop(self):
        """Ends both."""
        for worker in self._workers:
            worker.stop()

    def hand_over(self, num_tokens, link_mbit_s):
        """One sequence, after so many tokens, from one worker to the other."""
        older, newer = self._workers
        self._workers = [newer, older]
        before, after = self._open(older), self._open(newer)
        prompt = tuple(3 + n % 500 for n in range(num_tokens - NUM_TOKENS_BEFORE))
        sampling = SamplingParams(max_tokens=NUM_TOKENS_BEFORE + 50, ignore_eos=True)
        sequence = SequenceId(f"s{before.pipeline}")
        request = Request(sequence, prompt, sampling)
        self._submit(older, Submit(before.pipeline, sequence, 0, request))
        tokens = [older.next(Emitted, sequence).token for _ in range(NUM_TOKENS_BEFORE)]
        started_ns = time.monotonic_ns()
        older.device.post(lambda host: host.close(before.pipeline, "re-cut"))
        while isinstance(event := older.next((Emitted, Returned), sequence), Emitted):
            tokens.append(event.token)
        command = Submit(after.pipeline, sequence, 1, request, tuple(tokens), event.kv)
        self._submit(newer, command)
        event = newer.next((KvMoved, Emitted), sequence)
        moved = event if isinstance(event, KvMoved) else None
        emitted = newer.next(Emitted, sequence) if moved else event
        took_ms = (time.monotonic_ns() - started_ns) / NS_PER_MS
        newer.device.post(lambda host: host.close(after.pipeline, "done"))
        return Outcome(
            self._way,
            link_mbit_s,
            num_tokens,
            took_ms,
            moved is not None,
            moved.size_bytes if moved else 0,
            emitted.index,
            emitted.token,
        )

    def _open(self, worker):
        stage = StageSpec(worker.name, worker.address, 0, self._num_blocks)
        pages = 2 * self._config.pages_per_sequence
        spec = PipelineSpec(PipelineId(self._next_pipeline), (stage,), pages)
        self._next_pipeline += 1
        worker.device.post(lambda host: host.open(spec))
        return spec

    def _submit(self, worker, command):
        worker.device.post(lambda host: host.submit("gateway", command))


def _model(options, directory):
    """The model, compiled, and its blocks."""
    context = max(options.num_tokens) + 64
    config = config_of_size(
        options.size_mib * MIB, num_layers=options.num_layers, max_context=context
    )
    write_random_model(directory, config, num_blocks=options.num_blocks)
    manifest = Manifest.load(directory)
    pages = -(-context // 64)
    engine = EngineConfig(max_context=context, num_pages=6 * pages)
    program = ModelProgram.of(manifest, engine)
    executables = ExecutableSet(program)
    executables.compile((*program.stage_specs(), *program.fused_specs()))
    executables.compile(kv_copy_specs(program))
    store = BlockStore(manifest)
    for block in range(manifest.num_blocks):
        store.load(block, directory)
    return program, executables, store


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--size_mib", type=int, default=64)
    add("--num_layers", type=int, default=8)
    add("--num_blocks", type=int, default=4)
    add("--link_mbit_s", type=float, nargs="+", default=[1000.0, 10000.0])
    add("--num_tokens", type=int, nargs="+", default=[64, 256, 512, 1024, 2048])
    add("--repeats", type=int, default=5)
    add("--json", default=None)
    return parser.parse_args()


if __name__ == "__main__":
    main()
