"""A micro-batch on its way between workers."""

import numpy as np
import pytest

from jscale.core.errors import TransportError
from jscale.core.ids import SequenceId
from jscale.engine.batch import StepBatch
from jscale.engine.config import EngineConfig
from jscale.engine.request import Request, SamplingParams
from jscale.engine.scheduler import Scheduler
from jscale.engine.sequence import Sequence


def batch_of_two() -> StepBatch:
    scheduler = Scheduler(EngineConfig(), num_pages=16)
    sampling = SamplingParams(temperature=0.7, top_k=5, top_p=0.9, seed=2**32 - 1)
    scheduler.add(Sequence(Request(SequenceId("a"), (1, 2, 3), sampling)))
    scheduler.add(Sequence(Request(SequenceId("b"), (1, 2, 3, 4, 5))))
    scheduled = scheduler.next_batch()
    assert scheduled is not None
    return scheduled.batch


def test_a_batch_survives_the_wire() -> None:
    batch = batch_of_two()
    again = StepBatch.from_bytes(batch.to_bytes())
    for name in vars(batch):
        np.testing.assert_array_equal(getattr(again, name), getattr(batch, name))


@pytest.mark.parametrize("damage", [b"", b"123", None])
def test_bytes_that_are_no_batch_are_refused(damage: bytes | None) -> None:
    whole = batch_of_two().to_bytes()
    with pytest.raises(TransportError, match="drop it"):
        StepBatch.from_bytes(whole[:-4] if damage is None else damage)
