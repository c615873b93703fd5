"""Micro-batches that wait for a stage, and how several are run as one."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jscale.core.errors import TransportError
from jscale.core.ids import BatchId
from jscale.engine.batch import StepBatch
from jscale.pipeline.messages import PipelineSpec, StageSpec


@dataclasses.dataclass(frozen=True)
class Work:
    """A micro-batch that waits for one of our stages.

    `page_map` gives the physical page of each virtual page of its pipeline here; `x`,
    `[num_rows, embed]`, is what the stage before made of it, None for a first stage. A
    refill ends after the first stage, whose KV was all it was for.
    """

    spec: PipelineSpec
    stage_index: int
    batch_id: BatchId
    batch: StepBatch
    page_map: npt.NDArray[np.int32]
    x: npt.NDArray[Any] | None
    is_refill: bool = False

    @property
    def stage(self) -> StageSpec:
        """The stage it waits for."""
        return self.spec.stages[self.stage_index]

    def fits(self, other: "Work") -> bool:
        """Whether both run the same blocks, so that they can be run as one."""
        mine, theirs = self.stage, other.stage
        return (mine.first_block, mine.num_blocks) == (
            theirs.first_block,
            theirs.num_blocks,
        )


def merge(
    works: Sequence[Work],
) -> tuple[StepBatch, npt.NDArray[np.int32], npt.NDArray[Any] | None]:
    """One batch of the rows of all, the page map for it, and the activations.

    A row's result does not depend on the rows beside it, so merging changes no bit. It
    saves time: a step of many rows costs little more than one of few, and a source that
    is a stage of several pipelines serves them all in one. The pages of the merged
    batch are physical already.

    Raises:
      TransportError: a batch names pages that its pipeline lacks.
    """
    if len(works) == 1:
        return works[0].batch, works[0].page_map, works[0].x
    batches = [work.batch for work in works]
    tables = [_physical(work) for work in works]
    firsts = np.cumsum([0, *(len(table) for table in tables[:-1])], dtype=np.int32)
    merged = StepBatch(
        **{
            field.name: np.concatenate([getattr(b, field.name) for b in batches])
            for field in dataclasses.fields(StepBatch)
            if field.name not in ("table_index", "page_tables")
        },
        table_index=np.concatenate(
            [
                batch.table_index + first
                for batch, first in zip(batches, firsts, strict=True)
            ]
        ),
        page_tables=np.concatenate(tables),
    )
    identity = np.arange(1 + merged.page_tables.max(), dtype=np.int32)
    given = [work.x for work in works if work.x is not None]
    assert len(given) in (0, len(works)), "the same blocks, but not the same input"
    return merged, identity, np.concatenate(given) if given else None


def _physical(work: Work) -> npt.NDArray[np.int32]:
    tables = work.batch.page_tables
    if tables.min() < 0 or tables.max() >= len(work.page_map):
        raise TransportError(
            f"a micro-batch of pipeline {work.spec.pipeline} names pages "
            f"{tables.min()} to {tables.max()}, it has 0 to {len(work.page_map) - 1}; "
            f"close the pipeline"
        )
    return work.page_map[tables]
