"""For whom each source runs blocks, and which: a proposal in the making."""

import dataclasses
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Sequence

from jscale.core.ids import WorkerId
from jscale.plan.execution import ExecutionPipeline, Holdings
from jscale.plan.sharing import share_blocks, teams
from jscale.plan.source_load import deal_teams, gain_of_another, recut_alike


@dataclasses.dataclass(frozen=True)
class _Team:
    """Targets that share a pipeline with a source, and what they hold together."""

    targets: tuple[WorkerId, ...]
    held: int


class HelpedTargets:
    """Owns the pipelines of every source while a proposal is made.

    What is already helped stays with its source: `keep`. Then `improve` cuts anew what
    is worth it and finds sources for those who wait, until nothing changes any more.
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
        self._helped: dict[WorkerId, list[ExecutionPipeline]] = {
            source: [] for source in holdings.complete_workers
        }
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
            if len(self._helped[sources[0]]) < self._max_pipelines:
                self._helped[sources[0]].append(pipeline)
                seen.update(targets)
        self._waiting = [w for w in self._holdings.partial_workers if w not in seen]

    def improve(self) -> None:
        """Cuts anew what is worth it, and takes on whom it is worth to take on."""
        if self._max_pipelines:
            while self._recut() | self._take_on():
                pass

    def pipelines(self) -> Iterator[ExecutionPipeline]:
        """All of them, by source."""
        for pipelines in self._helped.values():
            yield from pipelines

    def _recut(self) -> bool:
        """Source by source; whether anything changed."""
        changed = False
        for source, pipelines in self._helped.items():
            if not pipelines:
                continue
            found = [self._team(source, pipeline) for pipeline in pipelines]
            cuts = [_cut(source, pipeline) for pipeline in pipelines]
            proposed = recut_alike(
                cuts,
                [team.held for team in found],
                num_blocks=self._holdings.num_blocks,
                merged_share=self._merged_share,
                growth=self._growth,
            )
            for index, team in enumerate(found):
                if proposed[index] != cuts[index]:
                    pipelines[index] = self._help(source, team, proposed[index])
                    changed = True
        return changed

    def _take_on(self) -> bool:
        """Finds sources for those who wait; whether any was found.

        First with a source that runs the same for others already, then with idle ones.
        """
        found = (
            self._team_of(targets)
            for targets in teams(
                self._holdings.masks,
                self._waiting,
                self._holdings.num_blocks,
                self._max_targets,
            )
        )
        # Sorting keeps the order found among equals; equal ones must be neighbours.
        most_first = sorted(found, key=lambda t: (-t.held.bit_count(), t.held))
        self._waiting = []
        rest = self._join_groups(most_first)
        rest = self._take_on_idle(rest)
        rest = self._join_groups(rest)
        self._waiting += [target for team in rest for target in team.targets]
        return len(rest) < len(most_first)

    def _take_on_idle(self, waiting: Sequence[_Team]) -> list[_Team]:
        """Sources that help nobody take teams on; returns who still waits."""
        idle = [source for source, pipelines in self._helped.items() if not pipelines]
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
        for source, pipelines in self._helped.items():
            cuts = {_cut(source, pipeline) for pipeline in pipelines}
            if len(cuts) == 1:
                groups[cuts.pop(), len(pipelines)].append(source)
        has_idle = any(not pipelines for pipelines in self._helped.values())
        rest = []
        for team in waiting:
            best: tuple[int, int] | None = None
            best_gain = 0.0
            if has_idle:
                best_gain = gain_of_another(team.held, 0, num_blocks, merged_share)
            for (cut, num_teams), sources in groups.items():
                if num_teams < self._max_pipelines and sources and not cut & ~team.held:
                    gain = gain_of_another(cut, num_teams, num_blocks, merged_share)
                    if gain > best_gain:
                        best, best_gain = (cut, num_teams), gain
            if best is None:
                rest.append(team)
                continue
            source = groups[best].popleft()
            groups[best[0], best[1] + 1].append(source)
            self._helped[source].append(self._help(source, team, best[0]))
        return rest

    def _help(self, source: WorkerId, team: _Team, cut: int) -> ExecutionPipeline:
        """The team's pipeline; who has nothing to run in it waits for another."""
        pipeline = pipeline_of(self._holdings, team.targets, source, cut)
        self._waiting += [w for w in team.targets if w not in pipeline.workers]
        return pipeline

    def _team(self, source: WorkerId, pipeline: ExecutionPipeline) -> _Team:
        return self._team_of(tuple(w for w in pipeline.workers if w != source))

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


def _cut(source: WorkerId, pipeline: ExecutionPipeline) -> int:
    """The blocks, as bits, that all but the source run."""
    return sum(stage.mask for stage in pipeline.stages if stage.worker != source)
