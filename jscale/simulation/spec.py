"""Small texts that say which and how: `poisson:rate=5,seconds=600`."""

import dataclasses
import math
from collections.abc import Mapping

from jscale.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Spec:
    """A name and its numbers, as `spec_from_text` reads them.

    Args:
      name: before the colon.
      numbers: after it; several of one key are joined by `/`: `rates=1/10/1`.
    """

    name: str
    numbers: Mapping[str, tuple[float, ...]]

    def with_defaults(self, known: Mapping[str, float | None]) -> dict[str, float]:
        """The one number of each known key, or its default; None: it must be given.

        Raises:
          ConfigError: a key is unknown, missing, or has several numbers.
        """
        self._check_keys(known)
        return {
            key: self.one(key)
            if key in self.numbers
            else _default(self.name, key, value)
            for key, value in known.items()
        }

    def one(self, key: str) -> float:
        """The one number of a key that is there.

        Raises:
          ConfigError: it has several.
        """
        values = self.numbers[key]
        if len(values) != 1:
            raise ConfigError(f"{self.name}: {key} has {len(values)} numbers: give one")
        return values[0]

    def _check_keys(self, known: Mapping[str, float | None]) -> None:
        for key in self.numbers:
            if key not in known:
                raise ConfigError(
                    f"{self.name}: there is no {key!r}: give some of {', '.join(known)}"
                )


def spec_from_text(text: str) -> Spec:
    """The spec that a text like `gamma:rate=5,cv=4` stands for.

    Raises:
      ConfigError: it has not that form, or a number is negative or none.
    """
    name, _, rest = text.partition(":")
    numbers: dict[str, tuple[float, ...]] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key in numbers:
            raise ConfigError(f"{text!r}: {part!r}: give each KEY=NUMBER once")
        numbers[key] = tuple(_number(text, part, item) for item in value.split("/"))
    return Spec(name, numbers)


def _number(text: str, part: str, item: str) -> float:
    try:
        value = float(item)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ConfigError(f"{text!r}: {part!r}: give numbers of 0 or more")
    return value


def _default(name: str, key: str, value: float | None) -> float:
    if value is None:
        raise ConfigError(f"{name}: {key} is missing: give {name}:{key}=NUMBER")
    return value
