"""Rows of one sequence in a batch, and the batch that several make. Pure."""

import dataclasses

import numpy as np

from jscale.engine.batch import StepBatch
from jscale.engine.sequence import Sequence


@dataclasses.dataclass(frozen=True)
class Span:
    """The rows of one sequence in a batch: tokens `first` to `first + count - 1`."""

    sequence: Sequence
    first: int
    count: int


def take(sequence: Sequence, count: int) -> Span:
    """The next rows of a sequence, which is in flight from now on."""
    sequence.is_in_flight = True
    return Span(sequence, sequence.num_computed, count)


def batch_of(spans: list[Span], num_pages: int) -> StepBatch:
    """The rows of the spans, in order."""
    counts = [span.count for span in spans]
    page_tables = np.zeros((len(spans), num_pages), np.int32)
    token_ids: list[int] = []
    positions: list[int] = []
    for index, span in enumerate(spans):
        end = span.first + span.count
        page_tables[index, : len(span.sequence.pages)] = span.sequence.pages
        token_ids += span.sequence.token_ids[span.first : end]
        positions += range(span.first, end)
    last_rows = np.cumsum(counts) - 1
    sampled = np.zeros(len(token_ids), np.bool_)
    sampled[last_rows] = [
        span.first + span.count == len(span.sequence.token_ids) for span in spans
    ]
    sampling = [span.sequence.request.sampling for span in spans]
    return StepBatch(
        token_ids=np.array(token_ids, np.int32),
        positions=np.array(positions, np.int32),
        table_index=np.repeat(np.arange(len(spans), dtype=np.int32), counts),
        page_tables=page_tables,
        temperature=np.repeat(
            np.array([params.temperature for params in sampling], np.float32), counts
        ),
        top_k=np.repeat(np.array([p.top_k for p in sampling], np.int32), counts),
        top_p=np.repeat(np.array([p.top_p for p in sampling], np.float32), counts),
        seed=np.repeat(np.array([p.seed for p in sampling], np.uint32), counts),
        sampled=sampled,
    )
