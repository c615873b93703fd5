"""Numbers drawn from a seed, the same on every machine and in every version."""

_MASK = (1 << 64) - 1


class Draws:
    """A stream of pseudo-random numbers.

    Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA
    2014 (SplitMix64).
    """

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def below(self, bound: int) -> int:
        """A whole number from 0 to `bound` − 1."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((mixed ^ (mixed >> 31)) * bound) >> 64
