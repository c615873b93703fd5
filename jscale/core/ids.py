"""Names for the things that processes tell each other about."""

from typing import NewType

WorkerId = NewType("WorkerId", str)
"""A worker process: `w0`, `w1`, … unique for the life of a manager."""

BlockIndex = NewType("BlockIndex", int)
"""Position of a block in its partition, from 0."""

ChunkIndex = NewType("ChunkIndex", int)
"""Position of a chunk in a `ChunkTable`, from 0."""

PlanId = NewType("PlanId", int)
"""A multicast plan that the manager started; never used again."""

PipelineId = NewType("PipelineId", int)
"""An execution pipeline; never used again, local replicas have one too."""

BatchId = NewType("BatchId", int)
"""A micro-batch of one pipeline, numbered by its head."""

SequenceId = NewType("SequenceId", str)
"""A sequence: the progress of one request, numbered by its gateway."""
