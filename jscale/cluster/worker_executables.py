"""How far a worker is with its executables, and which of them others can be sent."""

import enum

from jscale.cluster import worker_effects as effects
from jscale.cluster import worker_events as events
from jscale.cluster.messages import Bundle, ExecutablesReady
from jscale.cluster.worker_effects import WorkerEffect


class Progress(enum.Enum):
    """How far the worker is with what it needs to run stages."""

    NONE = "none"
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
        self._is_compiling = False
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
        is_loading = self._is_region_whole and self._region is not None
        return [] if self.are_ready or is_loading else self._compile(reason)

    def join(self, bundle: Bundle | None, *, is_source: bool) -> list[WorkerEffect]:
        """A plan brings this bundle: what else was in region 0 makes room for it."""
        before = self.bundle
        if bundle != self._region:
            self._is_region_whole = False
        self._region = bundle
        changed: list[WorkerEffect] = []
        if before != self.bundle:
            changed.append(effects.Report(self._ready("kept", 0.0)))
        if bundle is None:
            why = "no worker has them" if is_source else "the source has none"
            changed += self.compile(why)
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
        return self._compile(reason)

    def mismatched(self, reason: str) -> list[WorkerEffect]:
        """What was received does not fit this machine; it may fit others."""
        return self._compile(reason)

    def loaded(
        self, event: events.ExecutablesLoaded, *, is_transferring: bool
    ) -> list[WorkerEffect]:
        """Stages, or all of them, can be run. Told once, with what others can have."""
        is_complete = event.is_complete
        self._progress = Progress.COMPLETE if is_complete else Progress.READY
        if is_complete and event.origin != "received":
            self._is_compiling = False
            self._compiled = event if event.bundle is not None else self._compiled
        placed = [] if is_transferring else self._place()
        return placed or [effects.Report(self._ready(event.origin, event.took_ms))]

    def settle(self, *, has_all_blocks: bool) -> list[WorkerEffect]:
        """Between transfers: what was compiled is put where others can be sent it.

        Whoever has all blocks is sent no more, and compiles what did not come.
        """
        is_coming = self._is_region_whole and self._region is not None
        if has_all_blocks and not self.are_ready and not is_coming:
            return self._compile("they did not come with the blocks")
        return self._place()

    def _compile(self, reason: str) -> list[WorkerEffect]:
        if self._is_compiling:
            return []
        self._is_compiling = True
        return [effects.CompileExecutables(reason)]

    def _place(self) -> list[WorkerEffect]:
        compiled = self._compiled
        if compiled is None or self._is_region_whole:
            return []
        self._region = compiled.bundle
        self._is_region_whole = True
        placed = effects.Report(self._ready(compiled.origin, compiled.took_ms))
        return [effects.PlaceExecutables(), placed]

    def _ready(self, origin: str, took_ms: float) -> ExecutablesReady:
        return ExecutablesReady(origin, took_ms, self.are_complete, self.bundle)
