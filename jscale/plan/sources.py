"""Who of those that hold the model should send it."""

import dataclasses
from collections.abc import Sequence

from jscale.core.errors import ConfigError
from jscale.core.ids import WorkerId
from jscale.core.topology import Topology


@dataclasses.dataclass(frozen=True)
class SourcePolicy:
    """Who is good enough to send.

    Args:
      outbound_busy_max: a host whose serving uses more of its outbound links is spared,
        as long as there is another.
      rate_share_min: a source whose free outbound rate is under this share of the best
        one's is left out: its sub-group would end last.

    Raises:
      ConfigError: a share is not between 0 and 1.
    """

    outbound_busy_max: float = 0.1
    rate_share_min: float = 0.5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            share = getattr(self, field.name)
            if not 0 <= share <= 1:
                raise ConfigError(f"{field.name} {share}: give 0 to 1")


DEFAULT_SOURCE_POLICY = SourcePolicy()


def choose_sources(
    holders: Sequence[WorkerId],
    topology: Topology,
    *,
    policy: SourcePolicy = DEFAULT_SOURCE_POLICY,
) -> tuple[WorkerId, ...]:
    """Those of the holders that should send, the fastest first; at least one.

    Hosts whose outbound links serving uses are spared, unless all do: then the one with
    the most left sends alone. Of a host one worker sends, as they share its NICs.

    Source: BlitzScale (arXiv 2412.17246) drops the sources whose outbound link serving
    uses: one that is not dropped makes scaling take 1.5 × as long, and the tail time
    between tokens of those whom it serves half again as long.

    Raises:
      ConfigError: there is no holder, or the topology lacks one.
    """
    if not holders:
        raise ConfigError("multicast from no source: name at least one")
    hosts = {holder: topology.host_of(holder) for holder in holders}
    first_of = {hosts[holder].workers: holder for holder in reversed(holders)}

    def rate(holder: WorkerId) -> float:
        return hosts[holder].free_outbound_bytes_per_s

    # Sorting keeps the given order among equals.
    one_a_host = [holder for holder in holders if holder in first_of.values()]
    fastest_first = sorted(one_a_host, key=rate, reverse=True)
    busy_max = policy.outbound_busy_max
    idle = [h for h in fastest_first if hosts[h].outbound_busy <= busy_max]
    chosen = idle or fastest_first[:1]
    rate_min = rate(chosen[0]) * policy.rate_share_min
    return tuple(holder for holder in chosen if rate(holder) >= rate_min)
