"""Host memory as a cache: one copy of each model kept, the rest while there is room."""

import dataclasses
import heapq
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from jscale.core.errors import ConfigError
from jscale.core.ids import ModelName
from jscale.core.units import format_size
from jscale.plan.placement import HostCopies


@dataclasses.dataclass(frozen=True)
class Room:
    """What has to go from a host's memory so that something fits; all stays if not."""

    is_enough: bool
    evicted: tuple[ModelName, ...] = ()


def choose_homes(
    hosts: Sequence[HostCopies],
    sizes_bytes: Mapping[ModelName, int],
    homes: Mapping[ModelName, str],
) -> Mapping[ModelName, str]:
    """The host whose memory keeps each model for good: its home.

    One copy in the whole cluster is enough, since from there it is multicast. Homes are
    spread so that hosts have about as much room left for copies that come and go: with
    equal hosts and models their numbers differ by one at most. A model keeps its home
    unless that host is gone, or the spread asks for it; of hosts that are as good, it
    goes where a copy is already.

    O((models + copies + moves) · log hosts).

    Source: BlitzScale's O(1) host caching (arXiv 2412.17246): a pool with one host copy
    of each model, where ServerlessLLM keeps one on every host that may start it.

    Args:
      hosts: every host, by name.
      sizes_bytes: every model of the cluster, with its size.
      homes: what was chosen before.

    Raises:
      ConfigError: a model fits in no host's memory beside the others.
    """
    free_bytes = {host.host: host.memory_bytes for host in hosts}
    chosen: dict[ModelName, str] = {}
    for model, size_bytes in sizes_bytes.items():
        home = homes.get(model)
        if home is not None and free_bytes.get(home, 0) >= size_bytes:
            chosen[model] = home
            free_bytes[home] -= size_bytes
    homeless = [model for model in sizes_bytes if model not in chosen]
    homeless.sort(key=lambda model: -sizes_bytes[model])
    _settle(homeless, sizes_bytes, chosen, free_bytes, _holders(hosts))
    _level(sizes_bytes, chosen, free_bytes)
    return chosen


def missing_homes(
    hosts: Sequence[HostCopies], homes: Mapping[ModelName, str]
) -> tuple[tuple[ModelName, str], ...]:
    """Models that their home has yet to fetch, with that home. O(hosts + models)."""
    copies = {host.host: set(host.in_memory) for host in hosts}
    return tuple((m, home) for m, home in homes.items() if m not in copies[home])


def make_room(
    host: HostCopies,
    size_bytes: int,
    *,
    sizes_bytes: Mapping[ModelName, int],
    homes: Mapping[ModelName, str],
    num_copies: Mapping[ModelName, int],
) -> Room:
    """What goes so that so many bytes fit: nothing, while there is room.

    Else the longest unused go first, but neither a model whose home this is nor the
    last copy of one. What need not go, in the end, stays. O(copies on the host).

    Args:
      host: in whose memory they are to fit.
      size_bytes: how many.
      sizes_bytes: sizes of the models.
      homes: where each model is kept for good.
      num_copies: of each model in the cluster, by `count_copies`.
    """
    lacking = size_bytes - free_bytes_of(host, sizes_bytes)
    evicted: list[ModelName] = []
    for model in host.in_memory:
        if lacking <= 0:
            break
        if homes.get(model) != host.host and num_copies[model] > 1:
            evicted.append(model)
            lacking -= sizes_bytes[model]
    if lacking > 0:
        return Room(is_enough=False)
    # A large one that went last may have made the small ones before it needless.
    for model in reversed(evicted[:-1]):
        if sizes_bytes[model] <= -lacking:
            evicted.remove(model)
            lacking += sizes_bytes[model]
    return Room(is_enough=True, evicted=tuple(evicted))


def keep_after_serving(
    host: HostCopies,
    model: ModelName,
    *,
    sizes_bytes: Mapping[ModelName, int],
    homes: Mapping[ModelName, str],
    num_copies: Mapping[ModelName, int],
) -> Room:
    """Whether a device's copy goes to host memory when its device is needed.

    Where there is room, it does, for nothing. Others go for it only if this is its home
    or it is the last copy.
    """
    if model in host.in_memory:
        return Room(is_enough=False)
    size_bytes = sizes_bytes[model]
    is_free = free_bytes_of(host, sizes_bytes) >= size_bytes
    if is_free or homes.get(model) == host.host or num_copies[model] == 1:
        return make_room(
            host,
            size_bytes,
            sizes_bytes=sizes_bytes,
            homes=homes,
            num_copies=num_copies,
        )
    return Room(is_enough=False)


def free_bytes_of(host: HostCopies, sizes_bytes: Mapping[ModelName, int]) -> int:
    """What of its memory holds no copy."""
    return host.memory_bytes - sum(sizes_bytes[model] for model in host.in_memory)


def _holders(hosts: Sequence[HostCopies]) -> Mapping[ModelName, list[str]]:
    holders: dict[ModelName, list[str]] = defaultdict(list)
    for host in hosts:
        for model in host.in_memory:
            holders[model].append(host.host)
    return holders


def _settle(
    homeless: Sequence[ModelName],
    sizes_bytes: Mapping[ModelName, int],
    chosen: dict[ModelName, str],
    free_bytes: dict[str, int],
    holders: Mapping[ModelName, Collection[str]],
) -> None:
    """Gives each a home where most room is left."""
    roomiest = [(-free, host) for host, free in free_bytes.items()]
    heapq.heapify(roomiest)
    for model in homeless:
        size_bytes = sizes_bytes[model]
        most = _roomiest(roomiest, free_bytes)
        if most is None or free_bytes[most] < size_bytes:
            raise ConfigError(
                f"{model} ({format_size(size_bytes)}) fits in no host's memory beside "
                f"the {len(chosen)} models that are kept already: add hosts or memory"
            )
        as_good = [
            host
            for host in holders.get(model, ())
            if free_bytes.get(host) == free_bytes[most]
        ]
        home = as_good[0] if as_good else most
        chosen[model] = home
        free_bytes[home] -= size_bytes
        heapq.heappush(roomiest, (-free_bytes[home], home))


def _level(
    sizes_bytes: Mapping[ModelName, int],
    chosen: dict[ModelName, str],
    free_bytes: dict[str, int],
) -> None:
    """Moves small ones from the fullest hosts to the roomiest, while that levels."""
    kept: dict[str, list[tuple[int, ModelName]]] = defaultdict(list)
    for model, home in chosen.items():
        kept[home].append((sizes_bytes[model], model))
    for models in kept.values():
        heapq.heapify(models)
    roomiest = [(-free, host) for host, free in free_bytes.items()]
    heapq.heapify(roomiest)
    fullest = [(free_bytes[host], host) for host in kept]
    heapq.heapify(fullest)
    while fullest:
        _, source = heapq.heappop(fullest)
        target = _roomiest(roomiest, free_bytes)
        assert target is not None, "there is a host, as there is a home"
        gain_bytes = free_bytes[target] - free_bytes[source]
        if not kept[source] or gain_bytes <= kept[source][0][0]:
            continue
        size_bytes, model = heapq.heappop(kept[source])
        heapq.heappush(kept[target], (size_bytes, model))
        chosen[model] = target
        free_bytes[source] += size_bytes
        free_bytes[target] -= size_bytes
        for host in (source, target):
            heapq.heappush(fullest, (free_bytes[host], host))
            heapq.heappush(roomiest, (-free_bytes[host], host))


def _roomiest(heap: list[tuple[int, str]], free_bytes: Mapping[str, int]) -> str | None:
    """Who has most room; entries of the heap that are out of date are dropped."""
    while heap and -heap[0][0] != free_bytes[heap[0][1]]:
        heapq.heappop(heap)
    return heap[0][1] if heap else None
