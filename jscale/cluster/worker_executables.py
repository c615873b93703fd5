"""How far a worker is with its executables, and which of them others can be sent."""

import enum

from jscale.cluster import worker_effects as effects
from jscale.cluster import worker_events as events
from jscale.cluster.messages import Bundle, ExecutablesReady
from jscale.cluster.worker_effects import WorkerEffect


class Progress(enum.Enum):
    """How far the worker is with what it needs to run stages."""

    NONE = "none"
    COMING = "coming"
    READY = "ready"
    COMPLETE = "complete"


class WorkerExecutables:
    """Part of a `WorkerState`, pure like it.

    Region 0 is for the bundle of the plan that was joined last; where that had none, or
    did not bring it, for what was compiled here.
    """

    def __init__(self) -> None:
        """None are there."""
        self._progress = Progress.NONE
        self._region: Bundle | None = None
        self._is_region_whole = False
        self._compiled: events.ExecutablesLoaded | None = None

    @property
    def are_ready(self) -> bool:
        """Stages can be run."""
        return self._progress in (Progress.READY, Progress.COMPLETE)

    @property
    def are_complete(self) -> bool:
        """So can the whole model."""
        return self._progress is Progress.COMPLETE

    @property
    def bundle(self) -> Bundle | None:
        """What others can be sent."""
        is_there = self.are_complete and self._is_region_whole
        return self._region if is_there else None

    def compile(self, reason: str) -> list[WorkerEffect]:
        """They come from nowhere else: compiles, unless that or loading goes on."""
        is_coming_by_plan = self._region is not None and not self._is_region_whole
        if self.are_ready or (self._progress is Progress.COMING) > is_coming_by_plan:
            return []
        self._progress = Progress.COMING
        self._region = None
        return [effects.CompileExecutables(reason, ships=True)]

    def join(self, bundle: Bundle | None, *, is_source: bool) -> list[WorkerEffect]:
        """A plan brings this bundle: what else was in region 0 makes room for it."""
        before = self.bundle
        if bundle != self._region:
            self._is_region_whole = False
        changed: list[WorkerEffect] = []
        if before != self.bundle:
            changed.append(effects.Report(self._ready("kept", 0.0)))
        if bundle is None and not is_source:
            changed += self.compile("the source has none")
        self._region = bundle
        if bundle is not None and not self.are_ready:
            self._progress = Progress.COMING
        return changed

    def filled(self) -> list[WorkerEffect]:
        """Every byte of region 0 is there."""
        self._is_region_whole = True
        if self.are_ready:
            return [effects.Report(self._ready("kept", 0.0))]
        return [] if self._region is None else [effects.LoadExecutables(self._region)]

    def corrupt(self, reason: str) -> list[WorkerEffect]:
        """The digest of region 0 was wrong."""
        self._region = None
        self._is_region_whole = False
        return [effects.CompileExecutables(reason, ships=True)]

    def mismatched(self, reason: str) -> list[WorkerEffect]:
        """What was received does not fit this machine; it may fit others."""
        return [effects.CompileExecutables(reason)]

    def loaded(
        self, event: events.ExecutablesLoaded, *, is_transferring: bool
    ) -> list[WorkerEffect]:
        """Stages, or all of them, can be run. Told once, with what others can have."""
        is_complete = event.is_complete
        self._progress = Progress.COMPLETE if is_complete else Progress.READY
        if is_complete and event.origin != "received" and event.bundle is not None:
            self._compiled = event
        placed = [] if is_transferring else self.settle()
        return placed or [effects.Report(self._ready(event.origin, event.took_ms))]

    def settle(self) -> list[WorkerEffect]:
        """Between transfers: what was compiled is put where others can be sent it."""
        compiled = self._compiled
        if compiled is None or self._is_region_whole:
            return []
        self._region = compiled.bundle
        self._is_region_whole = True
        placed = effects.Report(self._ready(compiled.origin, compiled.took_ms))
        return [effects.PlaceExecutables(), placed]

    def _ready(self, origin: str, took_ms: float) -> ExecutablesReady:
        return ExecutablesReady(origin, took_ms, self.are_complete, self.bundle)
