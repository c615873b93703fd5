"""Traces from files: columns by name, and one clear error for each mistake."""

import csv
import dataclasses
import datetime
import gzip
import io
import math
import pathlib
import zlib
from collections.abc import Iterator, Mapping

from jscale.core.errors import ConfigError
from jscale.core.units import NS_PER_S


@dataclasses.dataclass(frozen=True)
class Columns:
    """What the columns of a trace are called.

    Args:
      arrival: when a request came: seconds, or a date and time.
      prompt: tokens of its prompt.
      output: tokens that were generated.
    """

    arrival: str
    prompt: str
    output: str


KNOWN_COLUMNS = (
    Columns("arrival_s", "prompt_tokens", "output_tokens"),
    Columns("TIMESTAMP", "ContextTokens", "GeneratedTokens"),  # Azure
    Columns("Timestamp", "Request tokens", "Response tokens"),  # BurstGPT
)
"""Tried in this order where nobody says what the columns are called."""

_HOW = "Name them: columns arrival=NAME,prompt=NAME,output=NAME"


@dataclasses.dataclass(frozen=True)
class Arrival:
    """A line of a trace; without token counts where the file has none."""

    at_ns: int
    prompt_tokens: int | None = None
    output_tokens: int | None = None


def columns_from_text(text: str) -> Columns:
    """The columns that `arrival=A,prompt=P,output=O` names.

    Raises:
      ConfigError: it has not that form.
    """
    given = dict(part.partition("=")[::2] for part in text.split(",") if part)
    names = [field.name for field in dataclasses.fields(Columns)]
    if sorted(given) != sorted(names) or not all(given.values()):
        raise ConfigError(
            f"columns {text!r}: give all of arrival=NAME,prompt=NAME,output=NAME"
        )
    return Columns(**given)


def read_arrivals(
    path: pathlib.Path, columns: Columns | None = None
) -> tuple[Arrival, ...]:
    """The lines of a file (`.csv` with a header, `.txt` of times; `.gz` of either).

    The first request comes at 0 if times are dates; else times are taken as they are.

    Args:
      path: of the file.
      columns: what they are called; None: the first of `KNOWN_COLUMNS` that is there.

    Raises:
      ConfigError: it cannot be read, is empty, lacks a column, or a line of it is no
        request: the message says which.
    """
    text = _read(path)
    is_csv = pathlib.PurePath(path.name.removesuffix(".gz")).suffix != ".txt"
    if columns is not None and not is_csv:
        raise ConfigError(f"{path}: a .txt has times alone: give a .csv, or no columns")
    rows = _csv_rows(path, text, columns) if is_csv else _txt_rows(path, text)
    return _in_order(path, rows)


def _read(path: pathlib.Path) -> str:
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        return raw.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"trace {path}: {reason}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"trace {path}: byte {error.start} is not UTF-8: give a text file"
        ) from None


def _txt_rows(path: pathlib.Path, text: str) -> Iterator[tuple[int, Arrival]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, Arrival(_time_ns(path, number, line.strip()))


def _csv_rows(
    path: pathlib.Path, text: str, columns: Columns | None
) -> Iterator[tuple[int, Arrival]]:
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    header = tuple(reader.fieldnames or ())
    if not header:
        raise ConfigError(f"trace {path}: it is empty: give at least one request")
    names = columns or _known(path, header)
    for name in dataclasses.astuple(names):
        if name not in header:
            raise ConfigError(
                f"trace {path}: no column {name!r} among {', '.join(header)}: {_HOW}"
            )
    for row in _csv_lines(path, reader):
        number = reader.line_num
        at_ns = _time_ns(path, number, row[names.arrival])
        prompt_tokens = _tokens(path, number, row, names.prompt)
        yield (
            number,
            Arrival(at_ns, prompt_tokens, _tokens(path, number, row, names.output)),
        )


def _csv_lines(
    path: pathlib.Path, reader: "csv.DictReader[str]"
) -> Iterator[dict[str, str | None]]:
    try:
        yield from reader
    except csv.Error as error:
        raise ConfigError(f"trace {path}, line {reader.line_num}: {error}") from None


def _known(path: pathlib.Path, header: tuple[str, ...]) -> Columns:
    for columns in KNOWN_COLUMNS:
        if set(dataclasses.astuple(columns)) <= set(header):
            return columns
    raise ConfigError(
        f"trace {path}: of its columns {', '.join(header)}, which are which? {_HOW}"
    )


def _time_ns(path: pathlib.Path, number: int, text: str | None) -> int:
    """Nanoseconds of a number of seconds, or of a date since 1970."""
    try:
        seconds = float(text or "")
    except ValueError:
        return _date_ns(path, number, text)
    if not math.isfinite(seconds) or seconds < 0:
        raise ConfigError(
            f"trace {path}, line {number}: time {text}: give seconds of 0 or more"
        )
    return round(seconds * NS_PER_S)


def _date_ns(path: pathlib.Path, number: int, text: str | None) -> int:
    """Azure writes seven digits of a second, which `fromisoformat` takes as six."""
    try:
        date = datetime.datetime.fromisoformat(text or "")
    except ValueError:
        raise ConfigError(
            f"trace {path}, line {number}: time {text!r}: give seconds from the start, "
            "or a date and time like 2023-11-16 18:17:03.97"
        ) from None
    since = date.replace(tzinfo=date.tzinfo or datetime.UTC) - _EPOCH
    return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1_000


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_DATES_FROM_NS = 365 * 86_400 * NS_PER_S
"""A trace that starts a year or more after 0 counts from a date, not from its start."""


def _tokens(
    path: pathlib.Path, number: int, row: Mapping[str, str | None], name: str
) -> int:
    try:
        count = int(row[name] or "")
    except ValueError:
        count = 0
    if count < 1:
        raise ConfigError(
            f"trace {path}, line {number}: {name} {row[name]!r}: give a whole number "
            "from 1 on, or leave the line out"
        )
    return count


def _in_order(
    path: pathlib.Path, rows: Iterator[tuple[int, Arrival]]
) -> tuple[Arrival, ...]:
    arrivals: list[Arrival] = []
    for number, arrival in rows:
        if arrivals and arrival.at_ns < arrivals[-1].at_ns:
            raise ConfigError(
                f"trace {path}, line {number}: it comes "
                f"{(arrivals[-1].at_ns - arrival.at_ns) / NS_PER_S:g} s before the one "
                "above it: sort the file by time"
            )
        arrivals.append(arrival)
    if not arrivals:
        raise ConfigError(f"trace {path}: it is empty: give at least one request")
    first_ns = arrivals[0].at_ns
    if first_ns < _DATES_FROM_NS:
        return tuple(arrivals)
    return tuple(
        dataclasses.replace(arrival, at_ns=arrival.at_ns - first_ns)
        for arrival in arrivals
    )
