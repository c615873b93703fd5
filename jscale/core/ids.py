"""Names for the things that processes tell each other about."""

from typing import NewType

WorkerId = NewType("WorkerId", str)
"""A worker process: `w0`, `w1`, … unique for the life of a manager."""

BlockIndex = NewType("BlockIndex", int)
"""Position of a block in its partition, from 0."""

ChunkIndex = NewType("ChunkIndex", int)
"""Position of a chunk in a `ChunkTable`, from 0."""

ModelName = NewType("ModelName", str)
"""A model, among those that a cluster serves."""

PlanId = NewType("PlanId", int)
"""A multicast plan that a manager started; never used again: see `first_id`."""

PipelineId = NewType("PipelineId", int)
"""An execution pipeline; never used again, local replicas have one too."""

BatchId = NewType("BatchId", int)
"""A micro-batch of one pipeline, numbered by its head."""

SequenceId = NewType("SequenceId", str)
"""A sequence: the progress of one request, numbered by its gateway."""

IDS_PER_EPOCH = 1 << 20
"""Numbers between the first ids of two epochs that follow one another."""


def first_id(epoch: int) -> int:
    """The number after which a manager counts plans and pipelines.

    A manager's epoch is the millisecond in which it started. It starts far fewer than
    `IDS_PER_EPOCH` of either in a millisecond, so that none of its numbers is ever one
    of an earlier manager's, whose plans and pipelines may still run somewhere.
    """
    assert epoch >= 0, epoch
    return epoch * IDS_PER_EPOCH
