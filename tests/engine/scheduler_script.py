"""Scripts that drive a scheduler, and the model that it is pretended to run."""

import textwrap

from jscale.core.ids import SequenceId
from jscale.engine.config import EngineConfig
from jscale.engine.request import Request, SamplingParams
from jscale.engine.scheduler import ScheduledBatch, Scheduler, TokenSampled
from jscale.engine.sequence import Sequence


def config(**changes: object) -> EngineConfig:
    sizes = {"row_buckets": (16,), "page_tokens": 4, "num_pages": 64, "max_context": 64}
    return EngineConfig(**{**sizes, "max_sequences": 4, **changes})


def sequence(name: str, num_prompt: int, max_tokens: int = 8, **sampling) -> Sequence:
    params = SamplingParams(max_tokens=max_tokens, **sampling)
    return Sequence(
        Request(SequenceId(name), tuple(range(10, 10 + num_prompt)), params)
    )


def model(token: int, position: int) -> int:
    """The token that the pretended model gives after this one."""
    return 100 + (token * 7 + position * 3) % 50


def result(batch) -> tuple[list[int], list[float]]:
    tokens = [
        model(int(token), int(position))
        for token, position in zip(batch.token_ids, batch.positions, strict=True)
    ]
    return tokens, [-1.0] * batch.num_rows


def expected(prompt: tuple[int, ...], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(model(tokens[-1], len(tokens) - 1))
    return tokens[len(prompt) :]


def play(scheduler: Scheduler, script: str) -> str:
    """Carries out a script and returns it with what came of each line below it."""
    lines, flying, moving = [], {}, {}
    for line in textwrap.dedent(script).strip().splitlines():
        if line.startswith(" "):
            continue
        lines.append(line)
        words = line.split()
        if words[0] == "add":
            happened = [scheduler.add(sequence(words[1], *map(int, words[2:])))]
        elif words[0] == "bring":
            brought = sequence(words[1], int(words[2]))
            brought.num_movable = int(words[3])
            moving[words[1]] = brought
            happened = [scheduler.add(brought)]
        elif words[0] == "move":
            movable = scheduler.movable()
            happened = ["nothing"]
            if movable is not None:
                scheduler.start_move(movable)
                happened = [f"{movable.id} to {movable.pages}"]
        elif words[0] == "moved":
            happened = [scheduler.end_move(moving[words[1]], int(words[2]))]
        elif words[0] == "cancel":
            happened = [scheduler.cancel(SequenceId(words[1]))]
        elif words[0] == "next":
            scheduled = scheduler.next_batch()
            happened = [describe(scheduled)]
            if scheduled is not None:
                flying[f"b{scheduled.id}"] = scheduled
        elif words[0] == "complete":
            scheduled = flying.pop(words[1])
            happened = scheduler.complete(scheduled.id, *result(scheduled.batch))
        else:
            happened = [[each.id for each in scheduler.evacuate()]]
        lines += [f"    {tell(each)}" for each in happened if each is not None]
    return "\n".join(lines)


def describe(scheduled: ScheduledBatch | None) -> str:
    if scheduled is None:
        return "nothing"
    batch = scheduled.batch
    spans = []
    for index, table in enumerate(batch.page_tables):
        rows = batch.table_index == index
        positions, pages = batch.positions[rows], table[table > 0]
        mark = "*" if batch.sampled[rows].any() else ""
        spans.append(f"{positions[0]}-{positions[-1]}{mark} in {pages.tolist()}")
    return f"b{scheduled.id}: {', '.join(spans)}"


def tell(event: object) -> str:
    if isinstance(event, TokenSampled):
        return f"{event.sequence}[{event.index}] = {event.token}"
    if hasattr(event, "reason"):
        return f"{event.sequence} {event.reason}"
    return str(event)


def check(scheduler: Scheduler, transcript: str) -> None:
    assert play(scheduler, transcript) == textwrap.dedent(transcript).strip()
