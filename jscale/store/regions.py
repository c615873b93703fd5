"""What is held of one region of the arena, and what may happen to it next."""

import enum
import weakref

from jscale.core.errors import IntegrityError


class RegionState(enum.Enum):
    """How far a region is; it goes from one to the next, or back to `MISSING`."""

    MISSING = "missing"
    FILLING = "filling"
    VERIFYING = "verifying"
    READY = "ready"


class Region:
    """The chunks and users of one region. Its `BlockStore` guards it by its lock."""

    def __init__(self, num_chunks: int) -> None:
        self.held = bytearray(num_chunks)
        self.arriving: set[int] = set()
        self.state = RegionState.MISSING
        self.num_users = 0
        self._lent: weakref.ref[Lent] | None = None

    @property
    def is_lent(self) -> bool:
        """Whether array views of it may live."""
        return self._lent is not None and self._lent() is not None

    def claim(self, position: int) -> bool:
        """Whether the caller may write the chunk at that place: nobody else has."""
        if self.held[position] or position in self.arriving:
            return False
        self.arriving.add(position)
        return True

    def abandon(self, position: int) -> None:
        """Lets the chunk be claimed again."""
        self.arriving.discard(position)

    def land(self, position: int) -> bool:
        """Notes the claimed chunk at that place; whether it completed the region."""
        assert position in self.arriving, position
        self.arriving.remove(position)
        self.held[position] = 1
        is_full = 0 not in self.held
        self.state = RegionState.VERIFYING if is_full else RegionState.FILLING
        return is_full

    def fill(self) -> None:
        """Notes every chunk at once."""
        self.held = bytearray(b"\x01" * len(self.held))
        self.state = RegionState.VERIFYING

    def reset(self) -> None:
        """Forgets every chunk."""
        assert not self.is_lent
        assert not self.arriving
        self.held = bytearray(len(self.held))
        self.state = RegionState.MISSING

    def settle(self, name: str, actual: str, expected: str) -> None:
        """Ends the verification: ready, or nothing held at all.

        Raises:
          IntegrityError: the digests differ.
        """
        assert self.state is RegionState.VERIFYING, self.state
        if actual == expected:
            self.state = RegionState.READY
            return
        self.reset()
        raise IntegrityError(
            f"{name}: digest {actual}, expected {expected}; its bytes are dropped, "
            "fetch or load them again"
        )

    def lend(self) -> "Lent":
        """What array views keep alive, so that they can be noticed."""
        lent = self._lent() if self._lent is not None else None
        if lent is None:
            lent = Lent()
            self._lent = weakref.ref(lent)
        return lent


class Lent:
    """Lives as long as some array view of a region."""

    __slots__ = ("__weakref__",)
