"""Where copies of models are, and where to start the next workers of one."""

import dataclasses
import enum
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import itemgetter

from jscale.core.ids import ModelName


class Tier(enum.IntEnum):
    """Where a copy of a model is, the fastest first."""

    DEVICE = 0
    HOST = 1
    DISK = 2
    REMOTE = 3


class StartKind(enum.IntEnum):
    """What a new worker finds, the soonest to serve first."""

    HOT = 0
    """Its device still holds the model."""
    WARM = 1
    """Its host's memory holds it: it is loaded without the network."""
    COLD = 2
    """Others have to send it, or it is read from disk."""


@dataclasses.dataclass(frozen=True)
class Device:
    """An accelerator, and the model that is in its memory.

    Args:
      model: what it holds; None: nothing.
      is_serving: a worker uses it; what it holds otherwise is merely still there.
      used_ns: when it last served.
    """

    model: ModelName | None = None
    is_serving: bool = False
    used_ns: int = 0

    def __post_init__(self) -> None:
        assert self.model is not None or not self.is_serving, self


@dataclasses.dataclass(frozen=True)
class HostCopies:
    """What one host holds.

    Args:
      host: its name.
      devices: its accelerators.
      memory_bytes: host memory for copies of models.
      in_memory: whose copies are there, the longest unused first.
      on_disk: whose copies are on its disk.
    """

    host: str
    devices: tuple[Device, ...] = ()
    memory_bytes: int = 0
    in_memory: tuple[ModelName, ...] = ()
    on_disk: frozenset[ModelName] = frozenset()

    def __post_init__(self) -> None:
        assert len(set(self.in_memory)) == len(self.in_memory), self

    def tier_of(self, model: ModelName) -> Tier:
        """The fastest tier of this host that holds the model; else it is remote."""
        if any(device.model == model for device in self.devices):
            return Tier.DEVICE
        if model in self.in_memory:
            return Tier.HOST
        return Tier.DISK if model in self.on_disk else Tier.REMOTE


@dataclasses.dataclass(frozen=True)
class Start:
    """A worker to start: on which device, what it finds, what it displaces there."""

    host: str
    device: int
    kind: StartKind
    displaces: ModelName | None = None


def count_copies(hosts: Iterable[HostCopies]) -> Counter[ModelName]:
    """Copies of each model in devices and host memories. O(devices + copies)."""
    return Counter(
        model
        for host in hosts
        for model in (*(d.model for d in host.devices), *host.in_memory)
        if model is not None
    )


def choose_starts(
    hosts: Sequence[HostCopies], model: ModelName, num_workers: int
) -> tuple[Start, ...]:
    """Where to start so many workers, the soonest to serve first; fewer, if no room.

    Hot starts before warm before cold ones; of each kind empty devices before those
    whose model has to go. Of what is alike, every host starts one before any starts a
    second, as those of a host share its memory's bandwidth and its NICs; and then the
    longest unused model goes first. Never goes the last copy of one.

    O(devices · log devices).

    Source: hot, warm and cold starts are λScale's (arXiv 2502.09922). That nothing is
    evicted while something is free answers what users of ServerlessLLM complain of.
    """
    num_copies = count_copies(hosts)
    starts: list[Start] = []
    possible = (each for host in hosts for each in _starts_on(host, model))
    for _, start in sorted(possible, key=itemgetter(0)):
        if len(starts) == num_workers:
            break
        if start.displaces is not None:
            if num_copies[start.displaces] == 1:
                continue
            num_copies[start.displaces] -= 1
        starts.append(start)
    return tuple(starts)


def choose_holders(
    hosts: Sequence[HostCopies], model: ModelName, *, leaving_out: Collection[str] = ()
) -> tuple[tuple[str, Tier], ...]:
    """Hosts that could send the model, with the tier it is in, the fastest first.

    Which of them do send is for `choose_sources` to say, who knows their links: here is
    one entry a host. With a copy in a device or a memory somewhere, nobody reads a
    disk. O(devices + copies).
    """
    tiers = [(h.host, h.tier_of(model)) for h in hosts if h.host not in leaving_out]
    able = [each for each in tiers if each[1] <= Tier.HOST]
    able = able or [each for each in tiers if each[1] == Tier.DISK]
    return tuple(sorted(able, key=lambda each: each[1]))


def _starts_on(
    host: HostCopies, model: ModelName
) -> Iterator[tuple[tuple[StartKind, bool, int, int], Start]]:
    """Every start that is possible on a host, after its place in the order of all."""
    elsewhere = StartKind.WARM if model in host.in_memory else StartKind.COLD
    num_alike: Counter[tuple[StartKind, bool]] = Counter()
    free = [
        (i, device) for i, device in enumerate(host.devices) if not device.is_serving
    ]
    for index, device in sorted(free, key=lambda each: each[1].used_ns):
        is_hot = device.model == model
        kind = StartKind.HOT if is_hot else elsewhere
        displaces = None if is_hot else device.model
        alike = (kind, displaces is not None)
        used_ns = 0 if displaces is None else device.used_ns
        order = (*alike, num_alike[alike], used_ns)
        num_alike[alike] += 1
        yield order, Start(host.host, index, kind, displaces)
