"""The main job, to watch: one worker becomes four while it tells stories."""

import dataclasses
import json
import pathlib
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from jscale.core.errors import JscaleError
from jscale.core.units import NS_PER_S
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.demo_report import DemoReport, Marks
from jscale.server.load import Load, Prompt, difference
from jscale.server.local_cluster import LocalCluster
from jscale.server.scale_out import is_settled
from jscale.server.screen import Screen
from jscale.server.snapshot import Snapshot

PROMPTS: tuple[Prompt, ...] = (
    (1,),
    "Once upon a time",
    "There was a little girl named Lily",
    "One day, a boy named Tim",
    "The dog and the cat",
    "A big red ball",
    "Sara and Ben went to the park",
    "In a small house there was",
    "The sun was hot and",
    "Mom said",
    "A bird wanted to fly",
    "Tom had a toy car",
)
"""Openings of stories; token 1 alone begins a text from nothing, as the oracle does."""

ORACLE_FILE = "greedy_expected.json"
INTERVAL_MS = 100
NUM_SPEEDS_KEPT = 1200

START_S = 60.0
"""How long the first story may take."""


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """What the demo shows, and what it pretends the hardware to be.

    Attributes:
      model: the model to serve.
      num_workers: workers at the end; one at the start.
      num_clients: each has one request in flight.
      seconds: steady serving before the scale-out and after it, each.
      scale_timeout_s: the scale-out fails when it takes longer.
      max_tokens: tokens of a story.
      link_mbit_s: emulated rate of a worker's link.
      emulate_layer_us: a layer takes at least this long on a worker.
      cache_dir: where converted models and compiled executables are kept.
    """

    model: str
    cache_dir: str
    num_workers: int = 4
    num_clients: int = 56
    seconds: float = 6.0
    scale_timeout_s: float = 120.0
    max_tokens: int = 96
    link_mbit_s: float = 3.0
    emulate_layer_us: int = 6000


def run_demo(config: DemoConfig) -> DemoReport:
    """What happened, measured and checked; draws it meanwhile.

    Raises:
      JscaleError: the cluster could not be started, or not be scaled out.
    """
    with (
        Screen() as screen,
        _cluster(config, screen) as cluster,
    ):
        screen.say("asking the single worker for the right tokens")
        expected = reference(cluster, config)
        load = Load(cluster.client, expected, num_clients=config.num_clients)
        load.start()
        try:
            marks = _play(config, cluster, load, screen)
        finally:
            load.stop()
        return DemoReport(
            config.num_workers,
            marks,
            load.finished,
            load.token_times_ns,
            cluster.status().serving.num_handed_over,
        )


def reference(
    cluster: LocalCluster, config: DemoConfig
) -> dict[Prompt, tuple[int, ...]]:
    """The greedy tokens of every prompt, as the only worker gives them.

    Raises:
      JscaleError: they are not those of the oracle that came with the model.
    """

    def ask(prompt: Prompt) -> tuple[int, ...]:
        tokens = cluster.generate(prompt, max_tokens=config.max_tokens, ignore_eos=True)
        return tuple(token.id for token in tokens)

    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        expected = dict(zip(PROMPTS, pool.map(ask, PROMPTS), strict=True))
    oracle_file = pathlib.Path(config.model) / ORACLE_FILE
    if oracle_file.exists():
        oracle = json.loads(oracle_file.read_text())["greedy_token_ids"]
        fault = difference(expected[(1,)], oracle[: config.max_tokens])
        if fault:
            raise JscaleError(f"the single worker is wrong by {oracle_file}: {fault}")
    return expected


def _cluster(config: DemoConfig, screen: Screen) -> LocalCluster:
    screen.say("starting a manager, a gateway and one worker")
    return LocalCluster(
        config.model,
        num_workers=1,
        link_mbit_s=config.link_mbit_s,
        emulate_layer_us=config.emulate_layer_us,
        cache_dir=config.cache_dir,
    )


def _play(
    config: DemoConfig, cluster: LocalCluster, load: Load, screen: Screen
) -> Marks:
    """One worker, the scale-out, all workers; the moments at which each began."""
    began_ns = time.monotonic_ns()
    speeds: deque[float] = deque(maxlen=NUM_SPEEDS_KEPT)
    timeout_s = START_S + 2 * config.seconds + config.scale_timeout_s
    statuses = cluster.client.watch(interval_ms=INTERVAL_MS, timeout_s=timeout_s)

    def show(headline: str) -> Iterator[tuple[int, pb.ModelStatusResponse]]:
        """Draws every status until the one who iterates has seen enough."""
        for status in statuses:
            now_ns = time.monotonic_ns()
            speeds.append(status.serving.tokens_per_s)
            finished = load.finished
            num_wrong = sum(bool(ended.fault) for ended in finished)
            screen.show(
                Snapshot(
                    status=status,
                    headline=headline,
                    elapsed_s=(now_ns - began_ns) / NS_PER_S,
                    speeds=tuple(speeds),
                    stories=load.stories(3),
                    num_right=len(finished) - num_wrong,
                    num_wrong=num_wrong,
                )
            )
            yield now_ns, status

    for _ in show("one worker starts on the queue"):
        if load.finished:
            break
    started_ns = time.monotonic_ns()
    steady_ns = int(config.seconds * NS_PER_S)
    for now_ns, _ in show("one worker serves"):
        if now_ns - started_ns >= steady_ns:
            break
    scaled_ns = time.monotonic_ns()
    cluster.scale_to(config.num_workers)
    joining = config.num_workers - 1
    arrived_ns = helped_ns = 0
    for now_ns, status in show(f"{joining} more workers join while it serves"):
        if len(status.workers) > 1:
            arrived_ns = arrived_ns or now_ns
        if any(stage.worker != "w0" for p in status.pipelines for stage in p.stages):
            helped_ns = helped_ns or now_ns
        if is_settled(status, config.num_workers):
            break
        if now_ns - scaled_ns > config.scale_timeout_s * NS_PER_S:
            raise JscaleError(
                f"not all {config.num_workers} workers are local after "
                f"{config.scale_timeout_s:.0f} s: see the logs in {cluster.runtime_dir}"
            )
    settled_ns = time.monotonic_ns()
    for now_ns, _ in show(f"{config.num_workers} local replicas serve"):
        if now_ns - settled_ns >= steady_ns:
            break
    return Marks(
        started_ns=started_ns,
        scaled_ns=scaled_ns,
        arrived_ns=arrived_ns,
        helped_ns=helped_ns,
        settled_ns=settled_ns,
        ended_ns=time.monotonic_ns(),
    )
