"""For whom each source runs blocks, and which: a proposal in the making."""

import dataclasses
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Sequence

from jscale.core.ids import WorkerId
from jscale.plan.execution import ExecutionPipeline, Holdings
from jscale.plan.sharing import share_blocks, teams
from jscale.plan.source_load import (
    deal_teams,
    gain_of_another,
    recut_alike,
    source_rate,
)


@dataclasses.dataclass(frozen=True)
class _Team:
    """Targets that share a pipeline with a source, and what they hold together."""

    targets: tuple[WorkerId, ...]
    held: int


@dataclasses.dataclass(frozen=True)
class _Help:
    """A source's pipeline for a team, in which the team runs the blocks of the cut."""

    team: _Team
    cut: int
    pipeline: ExecutionPipeline


class HelpedTargets:
    """Owns the pipelines of every source while a proposal is made.

    What is already helped stays with its source: `keep`. Where several workers of a
    pipeline have become complete, the first is its source and the others assist. Then
    `improve` cuts anew what is worth it and finds sources for those who wait, until
    nothing changes any more.
    """

    def __init__(
        self,
        holdings: Holdings,
        *,
        max_pipelines_per_worker: int,
        max_targets_per_pipeline: int,
        recut_growth: float,
        merged_share: float,
    ) -> None:
        """Nobody is helped yet, and nobody waits; settings as in `ExecutionPolicy`."""
        self._holdings = holdings
        self._max_pipelines = max_pipelines_per_worker
        self._max_targets = max_targets_per_pipeline
        self._growth = recut_growth
        self._merged_share = merged_share
        self._helped: dict[WorkerId, list[_Help]] = {
            source: [] for source in holdings.complete_workers
        }
        self._assisting: Counter[WorkerId] = Counter()
        self._joined: list[ExecutionPipeline] = []
        self._waiting: list[WorkerId] = []

    def keep(
        self, running: Sequence[ExecutionPipeline], taken: Collection[WorkerId]
    ) -> None:
        """Who is helped goes on with that source, but for targets that are taken."""
        seen = set(taken)
        for pipeline in newest_for_each_target(running, self._holdings):
            sources = [w for w in pipeline.workers if w in self._helped]
            targets = [w for w in pipeline.workers if w not in self._helped]
            if not sources or not seen.isdisjoint(targets):
                continue
            if all(self._room(source) > 0 for source in sources):
                self._assisting.update(sources[1:])
                team = self._team_of(tuple(targets))
                cut = sum(s.mask for s in pipeline.stages if s.worker in targets)
                self._helped[sources[0]].append(_Help(team, cut, pipeline))
                seen.update(targets)
        self._waiting = [w for w in self._holdings.partial_workers if w not in seen]

    def improve(self, *, pools_first: bool) -> None:
        """Cuts anew what is worth it, and takes on whom it is worth to take on.

        With `pools_first` targets that hold different blocks rather share a pipeline
        than have one each.
        """
        while self._max_pipelines and (
            self._recut()
            | self._take_on(is_pooled=pools_first)
            | self._take_on(is_pooled=not pools_first)
        ):
            pass

    def pipelines(self) -> Iterator[ExecutionPipeline]:
        """All of them, by source; last those that do without, after all."""
        for helped in self._helped.values():
            for each in helped:
                yield each.pipeline
        yield from self._joined

    @property
    def rate(self) -> float:
        """Micro-batches in a block time, those of local replicas among them."""
        joined = sum(1 / p.num_blocks_of_busiest for p in self._joined)
        return joined + sum(
            source_rate(
                [each.cut for each in helped],
                self._holdings.num_blocks,
                self._merged_share,
            )
            for helped in self._helped.values()
        )

    def _recut(self) -> bool:
        """Source by source; whether anything changed."""
        changed = False
        for source, helped in self._helped.items():
            if not helped:
                continue
            proposed = recut_alike(
                tuple(each.cut for each in helped),
                tuple(each.team.held for each in helped),
                num_blocks=self._holdings.num_blocks,
                merged_share=self._merged_share,
                growth=self._growth,
            )
            for index, each in enumerate(helped):
                if proposed[index] != each.cut:
                    others = set(each.pipeline.workers) - {source, *each.team.targets}
                    self._assisting.subtract(others)
                    helped[index] = self._help(source, each.team, proposed[index])
                    changed = True
        return changed

    def _take_on(self, *, is_pooled: bool) -> bool:
        """Finds sources for those who wait; whether any was found.

        First with a source that runs the same for others already, then with idle ones.
        """
        whole = (1 << self._holdings.num_blocks) - 1
        able, others = self._able()
        found = []
        for targets in teams(
            self._holdings.masks,
            able,
            self._holdings.num_blocks,
            self._max_targets if is_pooled else 1,
        ):
            team = self._team_of(targets)
            if team.held == whole:
                self._joined.append(pipeline_of(self._holdings, targets))
            else:
                found.append(team)
        # Sorting keeps the order found among equals; equal ones must be neighbours.
        most_first = sorted(found, key=lambda t: (-t.held.bit_count(), t.held))
        self._waiting = others
        rest = self._join_groups(most_first)
        rest = self._take_on_idle(rest)
        rest = self._join_groups(rest)
        self._waiting += [target for team in rest for target in team.targets]
        return len(rest) < len(most_first)

    def _able(self) -> tuple[list[WorkerId], list[WorkerId]]:
        """Those who wait that could be taken on, and those for whom there is no room.

        Of targets that hold the same no more are looked at than all sources may take.
        """
        room = sum(self._room(source) for source in self._helped)
        num_equal: Counter[int] = Counter()
        able: list[WorkerId] = []
        others: list[WorkerId] = []
        for target in self._waiting:
            mask = self._holdings.masks[target]
            num_equal[mask] += 1
            (able if num_equal[mask] <= room else others).append(target)
        return able, others

    def _take_on_idle(self, waiting: Sequence[_Team]) -> list[_Team]:
        """Sources that help nobody take teams on; returns who still waits."""
        idle = [source for source in self._helped if self._is_idle(source)]
        if not idle or not waiting:
            return list(waiting)
        dealt = deal_teams(
            [team.held for team in waiting],
            len(idle),
            num_teams_max=self._max_pipelines,
            num_blocks=self._holdings.num_blocks,
            merged_share=self._merged_share,
        )
        served: set[_Team] = set()
        for source, (first, helped) in zip(idle, dealt, strict=False):
            for team in waiting[first : first + helped.num_teams]:
                self._helped[source].append(self._help(source, team, helped.mask))
                served.add(team)
        return [team for team in waiting if team not in served]

    def _join_groups(self, waiting: Sequence[_Team]) -> list[_Team]:
        """Teams join where all are cut alike and they can be too; returns who waits.

        As long as a source is idle, only where they bring more than there.
        """
        num_blocks, merged_share = self._holdings.num_blocks, self._merged_share
        groups: dict[tuple[int, int], deque[WorkerId]] = defaultdict(deque)
        for source, helped in self._helped.items():
            cuts = {each.cut for each in helped}
            if len(cuts) == 1 and self._room(source) > 0:
                groups[cuts.pop(), len(helped)].append(source)
        has_idle = any(self._is_idle(source) for source in self._helped)
        rest = []
        for team in waiting:
            best: tuple[int, int] | None = None
            best_gain = 0.0
            if has_idle:
                best_gain = gain_of_another(team.held, 0, num_blocks, merged_share)
            for (cut, num_teams), sources in groups.items():
                if sources and not cut & ~team.held:
                    gain = gain_of_another(cut, num_teams, num_blocks, merged_share)
                    if gain > best_gain:
                        best, best_gain = (cut, num_teams), gain
            if best is None:
                rest.append(team)
                continue
            source = groups[best].popleft()
            self._helped[source].append(self._help(source, team, best[0]))
            if self._room(source) > 0:
                groups[best[0], best[1] + 1].append(source)
        return rest

    def _room(self, source: WorkerId) -> int:
        """How many more pipelines it may take part in, the ones it assists counted."""
        num_pipelines = len(self._helped[source]) + self._assisting[source]
        return self._max_pipelines - num_pipelines

    def _is_idle(self, source: WorkerId) -> bool:
        return not self._helped[source] and not self._assisting[source]

    def _help(self, source: WorkerId, team: _Team, cut: int) -> _Help:
        """The team's pipeline; who has nothing to run in it waits for another."""
        pipeline = pipeline_of(self._holdings, team.targets, source, cut)
        idle = [w for w in team.targets if w not in pipeline.workers]
        if idle:
            self._waiting += idle
            team = self._team_of(tuple(w for w in team.targets if w not in idle))
        return _Help(team, cut, pipeline)

    def _team_of(self, targets: tuple[WorkerId, ...]) -> _Team:
        held = 0
        for target in targets:
            held |= self._holdings.masks[target]
        return _Team(targets, held)


def pipeline_of(
    holdings: Holdings,
    targets: Sequence[WorkerId],
    source: WorkerId | None = None,
    cut: int = -1,
) -> ExecutionPipeline:
    """The pipeline of these targets; a source runs all that is not in their cut."""
    masks = tuple(holdings.masks[target] & cut for target in targets)
    workers = []
    for runner in share_blocks(masks, holdings.num_blocks):
        worker = source if runner is None else targets[runner]
        assert worker is not None, f"{targets} do not hold the whole model"
        workers.append(worker)
    return ExecutionPipeline.of_workers(workers)


def newest_for_each_target(
    running: Sequence[ExecutionPipeline], holdings: Holdings
) -> list[ExecutionPipeline]:
    """Of the pipelines that run, oldest first, the last for each target.

    The others are older cuts, about to close. Pipelines of complete workers alone are
    for nobody.
    """
    sources = frozenset(holdings.complete_workers)
    seen: set[WorkerId] = set()
    newest = []
    for pipeline in reversed(running):
        targets = [w for w in pipeline.workers if w not in sources]
        if targets and seen.isdisjoint(targets):
            newest.append(pipeline)
            seen.update(targets)
    return newest[::-1]
