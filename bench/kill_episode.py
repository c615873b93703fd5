"""One cluster under load whose processes are killed, and what became of the requests.

A manager, a gateway and workers as processes of this machine; clients that check every
token; a number of workers that goes up and down; and `kill -9` of a random process at a
random moment of that, again and again. What is random comes from the seed; when exactly
a transfer is how far is up to the machine.
"""

import dataclasses
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jscale
from jscale.core.units import NS_PER_S
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.child_process import ChildProcess
from jscale.server.load import Finished, Load
from jscale.server.scale_out import is_settled
from jscale.server.snapshot import status_line

PROMPTS: tuple[tuple[int, ...], ...] = ((1,), (1, 403, 407), (1, 261, 378, 432))
GREEDY: dict[str, float] = {}
SAMPLED: dict[str, float] = {"temperature": 0.9, "seed": 1234}

KINDS = ("source", "target", "worker", "two workers", "manager", "gateway")
"""Who is killed: a complete worker while others load from it; one that loads; one
while nothing moves; two workers at once; …"""

POLL_S = 0.02
MOMENT_S = 10.0
"""How long the moment for a kill may take to come."""


@dataclasses.dataclass(frozen=True)
class EpisodeConfig:
    """What one cluster goes through.

    Attributes:
      seed: of everything random.
      num_kills: how often something is killed.
      cache_dir: compiled executables are kept here.
      num_clients: half of them greedy, half sampled; one request each at a time.
      max_tokens: tokens of a request.
      sizes: numbers of workers that a scale-out goes to; back goes to 1 or 2.
      kills_at_once: numbers of kills while one such change comes about.
      link_mbit_s: 4 makes the bundled model take about 4 s.
      emulate_layer_us: a layer takes at least so long.
      delay_s: at most so long after the moment that the kind of victim needs.
      settle_s: within so long what is wanted must be there.
      log_dir: where logs stay; None: they are removed.
    """

    seed: int
    num_kills: int
    cache_dir: str
    num_clients: int = 24
    max_tokens: int = 60
    sizes: tuple[int, ...] = (3, 4)
    kills_at_once: tuple[int, ...] = (1, 2, 2)
    link_mbit_s: float = 4.0
    emulate_layer_us: int = 1000
    delay_s: float = 2.0
    settle_s: float = 90.0
    log_dir: str | None = None


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill, and what followed until the next.

    Attributes:
      victims: the processes that were killed.
      kind: what they were at that moment.
      wanted: how many workers were wanted.
      at_s: since the episode's start.
      settled_s: until as many were there, or None if another kill came first.
      stuck_as: what there was instead, if they were not there in time.
      num_completed: requests that ended before the next kill, each token right.
      faults: what the others said.
      longest_stall_s: the longest that one of them waited for its next token.
    """

    victims: tuple[str, ...]
    kind: str
    wanted: int
    at_s: float
    settled_s: float | None = None
    stuck_as: str = ""
    num_completed: int = 0
    num_lost: int = 0
    num_wrong: int = 0
    faults: tuple[str, ...] = ()
    longest_stall_s: float = 0.0

    def is_harmless(self) -> bool:
        """Nothing was lost or wrong, and what is wanted is there."""
        return not (self.num_lost or self.num_wrong or self.stuck_as)


class Episode:
    """Plays one episode; owned by the thread that makes it."""

    def __init__(self, config: EpisodeConfig) -> None:
        self._config = config
        self._rng = random.Random(config.seed)
        self._kinds = self._shuffled_kinds()
        self._kills: list[Kill] = []
        self._kill_times_ns: list[int] = []
        self._wanted = 1
        self._epoch = 0

    def run(self) -> list[Kill]:
        """Every kill, in order; fewer than asked for if the cluster got stuck.

        Raises:
          JscaleError: the cluster could not be started.
        """
        config = self._config
        with jscale.LocalCluster(
            jscale.BUNDLED_MODEL,
            num_workers=1,
            link_mbit_s=config.link_mbit_s,
            emulate_layer_us=config.emulate_layer_us,
            max_sequences=8,
            cache_dir=config.cache_dir,
            runtime_dir=config.log_dir,
        ) as cluster:
            loads = [self._load(cluster, sampling) for sampling in (GREEDY, SAMPLED)]
            if not self._is_ready(cluster):
                raise jscale.JscaleError("it could not even scale out undisturbed")
            start_ns = time.monotonic_ns()
            for load in loads:
                load.start()
            try:
                while len(self._kills) < config.num_kills and self._round(cluster):
                    pass
            finally:
                for load in loads:
                    load.stop()
            finished = [ended for load in loads for ended in load.finished]
        return self._told(finished, start_ns)

    def _load(self, cluster: jscale.LocalCluster, sampling: dict[str, float]) -> Load:
        """Clients that know what a single worker, undisturbed, answers."""

        def ask(prompt: Sequence[int]) -> tuple[int, ...]:
            tokens = cluster.generate(
                prompt,
                max_tokens=self._config.max_tokens,
                ignore_eos=True,
                **sampling,
            )
            return tuple(token.id for token in tokens)

        with ThreadPoolExecutor(len(PROMPTS)) as pool:
            expected = dict(zip(PROMPTS, pool.map(ask, PROMPTS), strict=True))
        return Load(
            cluster.client,
            expected,
            num_clients=self._config.num_clients // 2,
            sampling=sampling,
        )

    def _is_ready(self, cluster: jscale.LocalCluster) -> bool:
        """Scales out undisturbed, after which compiled executables are on disk."""
        self._wanted = 2
        ask_to_scale(cluster, self._wanted)
        return self._seconds_until_settled(cluster) is not None

    def _round(self, cluster: jscale.LocalCluster) -> bool:
        """One change of the number, kills meanwhile; whether it came about."""
        goes_out = self._wanted < min(self._config.sizes)
        sizes = self._config.sizes if goes_out else (1, 2)
        self._wanted = self._rng.choice(sizes)
        ask_to_scale(cluster, self._wanted)
        left = self._config.num_kills - len(self._kills)
        for _ in range(min(left, self._rng.choice(self._config.kills_at_once))):
            self._kill(cluster)
        settled_s = self._seconds_until_settled(cluster)
        stuck_as = "" if settled_s is not None else status_line(status_of(cluster))
        self._kills[-1] = dataclasses.replace(
            self._kills[-1], settled_s=settled_s, stuck_as=stuck_as
        )
        return settled_s is not None

    def _kill(self, cluster: jscale.LocalCluster) -> None:
        kind = next(self._kinds)
        if kind in ("source", "target"):
            wait_for_transfer(cluster)
        time.sleep(self._rng.uniform(0.0, self._config.delay_s))
        victims, kind = self._choose(cluster, kind)
        self._epoch = status_of(cluster).manager_epoch if kind == "manager" else 0
        for process in victims:
            process.kill()
        self._kill_times_ns.append(time.monotonic_ns())
        names = tuple(process.name for process in victims)
        self._kills.append(Kill(names, kind, self._wanted, at_s=0.0))

    def _choose(
        self, cluster: jscale.LocalCluster, kind: str
    ) -> tuple[list[ChildProcess], str]:
        """Processes of that kind, or of one that there is now."""
        if kind in cluster.servers:
            return [cluster.servers[kind]], kind
        workers = dict(sorted(cluster.workers.items()))
        if kind == "two workers" and len(workers) > 1:
            return self._rng.sample([*workers.values()], 2), kind
        loading, complete = holders(status_of(cluster))
        of_kind = loading if kind == "target" else complete
        names = sorted(set(of_kind) & workers.keys()) or list(workers)
        if not names:  # The last one is about to be replaced.
            return [cluster.servers["gateway"]], "gateway"
        name = self._rng.choice(names)
        if name in loading:
            return [workers[name]], "target"
        return [workers[name]], "source" if loading else "worker"

    def _seconds_until_settled(self, cluster: jscale.LocalCluster) -> float | None:
        """How long until exactly those run the whole model that should; None: too long.

        What was killed last must be missed first: the manager hears of it later.
        """
        start_s = time.monotonic()
        victims = {name for kill in self._kills[-1:] for name in kill.victims}
        while (waited_s := time.monotonic() - start_s) < self._config.settle_s:
            status = status_of(cluster)
            if (
                is_settled(status, self._wanted)
                and victims.isdisjoint(worker.worker for worker in status.workers)
                and status.manager_epoch != self._epoch
            ):
                return waited_s
            time.sleep(POLL_S)
        return None

    def _shuffled_kinds(self) -> Iterator[str]:
        """All kinds equally often, in an order without a pattern."""
        while True:
            yield from self._rng.sample(KINDS, len(KINDS))

    def _told(self, finished: Sequence[Finished], start_ns: int) -> list[Kill]:
        ends_ns = [*self._kill_times_ns[1:], time.monotonic_ns()]
        told = []
        for kill, at_ns, end_ns in zip(
            self._kills, self._kill_times_ns, ends_ns, strict=True
        ):
            ended = [each for each in finished if at_ns <= each.finished_ns < end_ns]
            faults = [each for each in ended if each.fault]
            told.append(
                dataclasses.replace(
                    kill,
                    at_s=(at_ns - start_ns) / NS_PER_S,
                    num_completed=len(ended) - len(faults),
                    num_lost=sum(each.is_lost for each in faults),
                    num_wrong=sum(each.is_wrong for each in faults),
                    faults=tuple(sorted({each.fault for each in faults})),
                    longest_stall_s=max(
                        (each.longest_gap_ns / NS_PER_S for each in ended), default=0.0
                    ),
                )
            )
        return told


def status_of(cluster: jscale.LocalCluster) -> pb.ModelStatusResponse:
    """The status now, or an empty one while gateway or manager is away."""
    try:
        return cluster.status()
    except jscale.JscaleError:
        return pb.ModelStatusResponse()


def holders(status: pb.ModelStatusResponse) -> tuple[list[str], list[str]]:
    """The workers that lack blocks, and those that lack none."""
    num_blocks = len(status.block_sizes_bytes)
    loading = [w.worker for w in status.workers if len(w.blocks) < num_blocks]
    complete = [w.worker for w in status.workers if len(w.blocks) == num_blocks]
    return loading, complete


def wait_for_transfer(cluster: jscale.LocalCluster) -> None:
    """Returns when some worker has received something and lacks something, or late."""
    deadline_s = time.monotonic() + MOMENT_S
    while time.monotonic() < deadline_s:
        status = status_of(cluster)
        num_blocks = len(status.block_sizes_bytes)
        if any(
            worker.received_bytes and len(worker.blocks) < num_blocks
            for worker in status.workers
        ):
            return
        time.sleep(POLL_S)


def ask_to_scale(cluster: jscale.LocalCluster, num_workers: int) -> None:
    """Asks until somebody hears it."""
    for _ in range(int(MOMENT_S / POLL_S)):
        try:
            cluster.scale_to(num_workers)
        except jscale.JscaleError:
            time.sleep(POLL_S)
        else:
            return
    raise jscale.JscaleError(f"nobody took the wish for {num_workers} workers")


def problems(kills: Iterable[Kill]) -> list[str]:
    """What went wrong, a line each."""
    return [
        f"{kill.kind} {', '.join(kill.victims)} killed at {kill.at_s:.1f} s: "
        f"{kill.num_lost} lost, {kill.num_wrong} wrong"
        f"{kill.stuck_as and ', stuck'}; {'; '.join((*kill.faults, kill.stuck_as))}"
        for kill in kills
        if not kill.is_harmless()
    ]
