"""How fast prompts are computed and KV moves, as far as it was seen. Pure."""

from jscale.core.units import NS_PER_S
from jscale.engine.config import TILE_ROWS

LINK_BYTES_PER_S_ASSUMED = 1.25e9
"""Of a link of which nothing is known: 10 Gb/s."""

MOVE_BYTES_MIN = 256 << 10
"""Moves of fewer bytes tell more about waiting than about the link."""

SEEN_FOR_NS = 10 * NS_PER_S
"""What was seen of a link holds for so long; then it may have become another."""


class PrefillRate:
    """Tokens of prompts that a replica computes in a second, for one sequence.

    A step computes tiles, and a step of many costs less a row than a step of one. So
    what a step tells counts unless it is much smaller than the last that counted, and
    until a prompt was seen, decoding gives a rate that is too low.

    Attributes:
      tokens_per_s: 0 as long as nothing was seen.
      step_ns: how long the last step took, of whatever size.
    """

    def __init__(self) -> None:
        self.tokens_per_s = 0.0
        self.step_ns = 0
        self._num_rows = 0

    def seen(self, num_rows: int, took_ns: int) -> None:
        """A step of so many rows went through all stages in `took_ns`."""
        self.step_ns = took_ns
        num_rows = -(-num_rows // TILE_ROWS) * TILE_ROWS
        if took_ns > 0 and 2 * num_rows >= self._num_rows:
            self._num_rows = num_rows
            self.tokens_per_s = num_rows * NS_PER_S / took_ns


class LinkRate:
    """Bytes that links between workers carry in a second, as one of them knows it."""

    def __init__(self, bytes_per_s: float | None = None) -> None:
        """A link of which `bytes_per_s` is what it is built for; None: not known."""
        self._built_for = bytes_per_s or LINK_BYTES_PER_S_ASSUMED
        self._seen = 0.0
        self._seen_until_ns = 0

    def seen(self, size_bytes: int, took_ns: int, now_ns: int) -> None:
        """KV of so many bytes was moved in `took_ns`, waiting included."""
        if size_bytes >= MOVE_BYTES_MIN and took_ns > 0:
            self._seen = size_bytes * NS_PER_S / took_ns
            self._seen_until_ns = now_ns + SEEN_FOR_NS

    def bytes_per_s(self, now_ns: int) -> float:
        """What the next move may hope for."""
        return self._seen if now_ns < self._seen_until_ns else self._built_for
