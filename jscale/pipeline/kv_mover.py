"""A worker's part in moving KV: it gives what was left here, and gets what was not.

KV is pulled piece by piece, a few pieces at a time: whoever gives it keeps no state,
and whoever stops asking has cancelled. Whatever goes wrong ends a move with a reason,
and its tokens are computed again.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator

from jscale.core.errors import TransportError
from jscale.core.ids import PipelineId, WorkerId
from jscale.core.units import NS_PER_S
from jscale.engine.executor import StageExecutor
from jscale.pipeline.lease import Leases, PageMap
from jscale.pipeline.messages import (
    FetchKv,
    KvPiece,
    MoveEnded,
    MoveKv,
    PipelineSpec,
    StageSpec,
)
from jscale.pipeline.outbox import Outbox

PIECES_ASKED_MAX = 4
"""Pieces that a worker has asked for at a time: enough to keep a link busy while the
other side runs a step, few enough to be queued there without harm."""

STALL_NS = 2 * NS_PER_S
"""A move of which nothing arrives for so long has failed."""

MOVE_NS_MAX = 10 * NS_PER_S
"""A move that is not complete after so long has failed."""


@dataclasses.dataclass(frozen=True)
class _Piece:
    """Pages of one block: those of the old pipeline, and ours, physical ones."""

    holder: StageSpec
    block: int
    source_pages: tuple[int, ...]
    target_pages: tuple[int, ...]


@dataclasses.dataclass
class _Move:
    """What one sequence's KV still lacks here."""

    command: MoveKv
    spec: PipelineSpec
    began_ns: int
    heard_ns: int
    unasked: collections.deque[_Piece]
    num_asked: int = 0
    size_bytes: int = 0

    @property
    def deadline_ns(self) -> int:
        last_ns = self.began_ns + MOVE_NS_MAX
        return min(last_ns, self.heard_ns + STALL_NS) if self.num_asked else last_ns


class KvMover:
    """Gives and gets pieces of KV. Owned by the device thread."""

    def __init__(
        self,
        worker: WorkerId,
        executor: StageExecutor,
        leases: Leases,
        outbox: Outbox,
        *,
        ended: Callable[[PipelineSpec, MoveEnded], None],
    ) -> None:
        """Moves KV between an executor's pools and other workers.

        Args:
          worker: who we are.
          executor: has the pools.
          leases: knows whose pages are where in them.
          outbox: the way to other workers.
          ended: told once how each move ended, unless it was dropped.
        """
        self._worker = worker
        self._executor = executor
        self._leases = leases
        self._outbox = outbox
        self._ended = ended
        self._moves: dict[tuple[PipelineId, int], _Move] = {}
        self._asked: dict[int, tuple[_Move, _Piece]] = {}
        self._next_piece = 0

    @property
    def deadline_ns(self) -> int | None:
        """When `expire` has something to do; None: not as things are."""
        return min((move.deadline_ns for move in self._moves.values()), default=None)

    def give(self, command: FetchKv) -> None:
        """Answers a worker that asks for a piece."""
        pages = self._physical(command.pipeline, command.pages)
        has_block = 0 <= command.block < self._executor.num_blocks
        if pages and has_block and self._executor.can_copy_kv:
            fits = len(pages) <= self._executor.kv_piece_pages(command.block)
            if fits:
                data = self._executor.read_kv(command.block, pages)
                self._outbox.send(command.reader, KvPiece(command.piece, True), data)
                return
        self._outbox.send(command.reader, KvPiece(command.piece, False), b"")

    def move(self, command: MoveKv, spec: PipelineSpec, now_ns: int) -> None:
        """Gets the KV of the blocks that we run in a pipeline that is open here."""
        move = _Move(command, spec, now_ns, now_ns, collections.deque())
        self._moves[command.pipeline, command.move] = move
        if not self._executor.can_copy_kv:
            self._end(move, now_ns, "the executables that copy KV are not here yet")
            return
        try:
            for piece in self._pieces(command, spec):
                if piece.holder.worker == self._worker:
                    self._copy(command.ticket.pipeline, piece)
                else:
                    move.unasked.append(piece)
        except TransportError as error:
            self._end(move, now_ns, str(error))
            return
        if not move.unasked:
            self._end(move, now_ns)
        self._ask(now_ns)

    def arrived(self, message: KvPiece, payload: memoryview, now_ns: int) -> None:
        """A piece came; one that nobody waits for any more is dropped."""
        asked = self._asked.pop(message.piece, None)
        if asked is None:
            return
        move, piece = asked
        move.num_asked -= 1
        move.heard_ns = now_ns
        if not message.is_there:
            reason = f"{piece.holder.worker} has it no more"
            self._end(move, now_ns, reason)
        else:
            try:
                pages = piece.target_pages
                self._executor.write_kv(piece.block, pages, payload)
            except TransportError as error:
                self._end(move, now_ns, str(error))
            else:
                move.size_bytes += len(payload)
                if not move.unasked and not move.num_asked:
                    self._end(move, now_ns)
        self._ask(now_ns)

    def lose(self, peer: WorkerId, now_ns: int) -> None:
        """A worker is gone, and with it all that it was to give."""
        for move in list(self._moves.values()):
            holders = {piece.holder.worker for piece in move.unasked}
            holders |= {
                piece.holder.worker for of, piece in self._asked.values() if of is move
            }
            if peer in holders:
                self._end(move, now_ns, f"{peer} is lost")
        self._ask(now_ns)

    def expire(self, now_ns: int) -> None:
        """Ends the moves that take too long."""
        for move in list(self._moves.values()):
            if move.deadline_ns <= now_ns:
                self._end(move, now_ns, "it takes too long")
        self._ask(now_ns)

    def drop(self, pipeline: PipelineId) -> None:
        """The pipeline that KV was to be moved to is closed here."""
        for key, move in list(self._moves.items()):
            if key[0] == pipeline:
                self._forget(move)

    def _pieces(self, command: MoveKv, spec: PipelineSpec) -> Iterator[_Piece]:
        """All that is to be had, block by block.

        Raises:
          TransportError: the ticket does not tell who has it.
        """
        ticket = command.ticket
        targets = self._physical(command.pipeline, command.pages)
        if targets is None or len(ticket.pages) != len(targets):
            raise TransportError(
                f"KV in {len(ticket.pages)} pages is to be moved to pages "
                f"{command.pages}, which do not fit; recompute it"
            )
        for block in _blocks_of(spec, self._worker):
            holder = next((s for s in ticket.stages if block in s.blocks), None)
            if holder is None:
                raise TransportError(f"nobody had block {block}; recompute its KV")
            count = self._executor.kv_piece_pages(block)
            for first in range(0, len(targets), count):
                pages = slice(first, first + count)
                yield _Piece(holder, block, ticket.pages[pages], targets[pages])

    def _copy(self, pipeline: PipelineId, piece: _Piece) -> None:
        sources = self._physical(pipeline, piece.source_pages)
        if sources is None:
            raise TransportError(f"{self._worker} has it no more")
        self._executor.copy_kv(piece.block, sources, piece.target_pages)

    def _physical(
        self, pipeline: PipelineId, pages: tuple[int, ...]
    ) -> tuple[int, ...] | None:
        """Where pages of a pipeline are here; None if they are not."""
        page_map: PageMap | None = self._leases.page_map(pipeline)
        if page_map is None or not pages:
            return None
        if min(pages) < 1 or max(pages) >= len(page_map):
            return None
        return tuple(page_map[list(pages)].tolist())

    def _ask(self, now_ns: int) -> None:
        """Asks for the next pieces, of the oldest moves first."""
        for move in self._moves.values():
            while move.unasked and len(self._asked) < PIECES_ASKED_MAX:
                piece = move.unasked.popleft()
                if not move.num_asked:
                    move.heard_ns = now_ns
                move.num_asked += 1
                number = self._next_piece
                self._next_piece += 1
                self._asked[number] = move, piece
                reader = next(s for s in move.spec.stages if s.worker == self._worker)
                fetch = FetchKv(
                    pipeline=move.command.ticket.pipeline,
                    piece=number,
                    reader=reader,
                    block=piece.block,
                    pages=piece.source_pages,
                )
                self._outbox.send(piece.holder, fetch, b"")

    def _end(self, move: _Move, now_ns: int, reason: str = "") -> None:
        self._forget(move)
        ended = MoveEnded(
            pipeline=move.command.pipeline,
            move=move.command.move,
            worker=self._worker,
            size_bytes=move.size_bytes,
            took_ns=now_ns - move.began_ns,
            reason=reason,
        )
        self._ended(move.spec, ended)

    def _forget(self, move: _Move) -> None:
        del self._moves[move.command.pipeline, move.command.move]
        self._asked = {
            number: asked
            for number, asked in self._asked.items()
            if asked[0] is not move
        }


def _blocks_of(spec: PipelineSpec, worker: WorkerId) -> list[int]:
    """The blocks that a worker runs in a pipeline, in order."""
    ours = [stage for stage in spec.stages if stage.worker == worker]
    return [block for stage in ours for block in stage.blocks]
