"""What pipelines and holdings are."""

import pytest

from jscale.core.ids import WorkerId
from jscale.plan.execution import ExecutionPipeline, Holdings, Stage

W0, W1, W2, W3 = (WorkerId(f"w{index}") for index in range(4))


def pipeline(*workers):
    return ExecutionPipeline.of_workers(workers)


def test_a_pipeline_is_what_its_stages_are():
    made = pipeline(W0, W0, W1, W0)
    assert made == ExecutionPipeline(
        (Stage(W0, 0, 2), Stage(W1, 2, 1), Stage(W0, 3, 1))
    )
    assert made.num_blocks == 4
    assert made.head == W0
    assert made.workers == (W0, W1)
    assert made.num_blocks_of(W0) == made.num_blocks_of_busiest == 3
    assert not made.is_local
    assert str(made) == "w0[0-1] → w1[2] → w0[3]"
    assert pipeline(W0, W0).is_local


@pytest.mark.parametrize(
    "stages",
    [
        (),
        (Stage(W0, 1, 2),),
        (Stage(W0, 0, 2), Stage(W1, 3, 1)),
        (Stage(W0, 0, 2), Stage(W1, 1, 2)),
        (Stage(W0, 0, 2), Stage(W0, 2, 2)),
    ],
    ids=["empty", "not from 0", "gap", "overlap", "same worker twice in a row"],
)
def test_stages_that_do_not_run_each_block_once_are_refused(stages):
    with pytest.raises(AssertionError):
        ExecutionPipeline(stages)


def test_holdings_know_who_is_complete_and_cannot_be_changed():
    blocks = {0, 1}
    holdings = Holdings({W0: blocks, W1: {1}, W2: set()}, 2)
    blocks.clear()
    assert holdings.complete_workers == (W0,)
    assert holdings.partial_workers == (W1,)
    assert holdings.holds(W1, 1)
    assert not holdings.holds(W3, 0)
    assert holdings == Holdings({W0: {0, 1}, W1: {1}, W2: ()}, 2)
    with pytest.raises(TypeError):
        holdings.ready[W2] = frozenset()


@pytest.mark.parametrize(
    ("newer", "older", "holds"),
    [
        ("w1 w1 w0 w0", "w1 w0 w0 w0", True),
        ("w1 w0 w0 w0", "w1 w1 w0 w0", False),
        ("w1 w1 w1 w1", "w1 w0 w0 w0", False),
        ("w1 w1 w2 w2", "w1 w0 w0 w0", False),
        ("w1 w1 w0 w1", "w1 w0 w0 w0", False),
        ("w1 w1 w0 w0", "w0 w0 w0 w0", False),
    ],
)
def test_a_recut_continues_only_where_the_second_stage_keeps_its_kv(
    newer, older, holds
):
    assert pipeline(*newer.split()).continues(pipeline(*older.split())) == holds
