"""The same tokens and logprobs, bit for bit, whatever cut, bucket or company."""

import json
import pathlib

import jax
import numpy as np
import pytest

import jscale
from jscale.core.errors import TransportError
from jscale.core.units import NS_PER_MS
from jscale.engine.batch import StepBatch
from jscale.engine.config import TILE_ROWS
from jscale.engine.executor import Emulation, StageExecutor
from jscale.engine.rows import pack_rows
from jscale.models import block as models_block

ORACLE = json.loads(
    (pathlib.Path(jscale.BUNDLED_MODEL) / "greedy_expected.json").read_text()
)
MODELS = (
    ("random", 2, "float32", "float32"),
    ("random", 4, "float32", "float32"),
    ("random", 2, "bfloat16", "float32"),
    ("random", 2, "bfloat16", "bfloat16"),
)
PROMPT = tuple(range(3, 43))


def test_tiles_have_the_size_that_models_are_compiled_for():
    assert TILE_ROWS == models_block.TILE_ROWS


def test_the_bundled_model_gives_the_tokens_of_the_oracle(bundled, replica):
    local = replica(bundled)
    local.add("a", (ORACLE["bos"],), max_tokens=300)
    tokens = [token for token, _ in local.run()["a"]]
    assert tokens == ORACLE["greedy_token_ids"]


@pytest.mark.parametrize(("model", "num_blocks", "dtype", "compute_dtype"), MODELS)
def test_every_walk_equals_the_fused_step(
    rig, replica, cuts, model, num_blocks, dtype, compute_dtype
):
    small = rig(model, num_blocks, dtype, compute_dtype=compute_dtype)
    results = []
    for executables in (small.executables, small.walking()):
        for cut in cuts(num_blocks):
            stages = replica(small, cut, executor=small.executor(executables))
            stages.add("a", PROMPT, max_tokens=30)
            stages.add("b", (5,), max_tokens=30, temperature=1.0, seed=7)
            results.append(stages.run())
    assert all(result == results[0] for result in results)
    assert len(results[0]["a"]) == 30


def test_the_bundled_model_walks_as_it_runs_fused(bundled, replica):
    results = []
    for cut in ((3,), (1, 2), (2, 1), (1, 1, 1)):
        stages = replica(bundled, cut)
        stages.add("a", PROMPT, max_tokens=40)
        results.append(stages.run()["a"])
    assert all(result == results[0] for result in results)


def test_the_partition_moves_no_bit(rig, bundled, replica):
    results = []
    for cut in (bundled, rig("bundled", 1), rig("bundled", 5)):
        local = replica(cut)
        local.add("a", (1, *PROMPT), max_tokens=60)
        results.append(local.run()["a"])
    assert results[0] == results[1] == results[2]


def test_rows_beside_a_sequence_move_no_bit_of_it(bundled, replica):
    """Alone in the small bucket, then among decodes and a long prefill."""
    alone = replica(bundled)
    alone.add("a", PROMPT[:7], max_tokens=40)
    wanted = alone.run()["a"]
    crowd = replica(bundled, num_pages=70)
    for index in range(5):
        crowd.add(f"before{index}", PROMPT[: index + 1], max_tokens=50)
        crowd.step()
    crowd.add("a", PROMPT[:7], max_tokens=40)
    for index in range(5):
        crowd.step()
        crowd.add(f"after{index}", PROMPT * 6, max_tokens=9, temperature=1.5, seed=3)
    assert crowd.run()["a"] == wanted


def test_prefill_decode_and_recomputation_agree(bundled, replica):
    first = replica(bundled)
    first.add("a", PROMPT, max_tokens=60)
    wanted = first.run()["a"]
    tokens = [token for token, _ in wanted]
    for num_generated in (1, 2, 23, 24, 59):
        second = replica(bundled, (1, 2))
        second.add("a", PROMPT, tokens[:num_generated], max_tokens=60)
        assert second.run()["a"] == wanted[num_generated:]


def test_a_drawn_stream_goes_on_after_a_hand_over(bundled, replica):
    sampling = {"temperature": 1.2, "top_k": 40, "top_p": 0.95, "seed": 11}
    first = replica(bundled)
    first.add("a", PROMPT, max_tokens=30, **sampling)
    wanted = first.run()["a"]
    second = replica(bundled, (2, 1))
    tokens = [token for token, _ in wanted[:13]]
    second.add("a", PROMPT, tokens, max_tokens=30, **sampling)
    assert second.run()["a"] == wanted[13:]


def test_scarce_pages_change_no_token(bundled, replica):
    results = []
    for num_pages in (32, 7):
        local = replica(bundled, num_pages=num_pages)
        for index in range(3):
            local.add(f"s{index}", PROMPT[: 20 + index], max_tokens=50)
        results.append(local.run())
    assert results[0] == results[1]


def test_batches_in_flight_together_change_no_token(bundled, replica):
    """Two pipelines share the blocks' pools, each with pages of its own."""
    wanted, executor = [], bundled.executor()
    for index in range(2):
        alone = replica(bundled)
        alone.add("a", PROMPT[index:], max_tokens=20)
        wanted.append(alone.run()["a"])
    pair = [replica(bundled, num_pages=20, executor=executor) for _ in range(2)]
    pair[1].page_map = pair[1].page_map + 30 * (pair[1].page_map > 0)
    for index, each in enumerate(pair):
        each.add("a", PROMPT[index:], max_tokens=20)
    while sum(each.step() for each in pair):
        pass
    assert [each.tokens["a"] for each in pair] == wanted


def test_a_step_copies_neither_weights_nor_pools(bundled, replica):
    """Pools stay where they are, and there is no room for a copy of either."""
    local = replica(bundled)
    local.add("a", PROMPT, max_tokens=10)

    def pointers():
        pools = (*local.executor._k_pools, *local.executor._v_pools)
        return [pool.unsafe_buffer_pointer() for pool in pools]

    before = pointers()
    local.run()
    assert pointers() == before
    for spec in bundled.program.fused_specs():
        analysis = bundled.executables.find(spec).memory_analysis()
        pool = np.prod(bundled.program.kv_shape(spec.kinds[0])) * 4
        assert analysis.temp_size_in_bytes < pool


def test_blocks_come_and_go(bundled):
    executor = StageExecutor(bundled.executables)
    assert not executor.holds(0, 1)
    executor.set_block(1, bundled.store.publish(1))
    assert executor.holds(1, 1)
    assert not executor.holds(1, 2)
    executor.drop_block(1)
    assert not executor.holds(1, 1)


def one_row(**changes) -> StepBatch:
    fields = {
        "token_ids": np.array([1], np.int32),
        "positions": np.array([0], np.int32),
        "table_index": np.array([0], np.int32),
        "page_tables": np.zeros((1, 32), np.int32),
        "temperature": np.zeros(1, np.float32),
        "top_k": np.zeros(1, np.int32),
        "top_p": np.ones(1, np.float32),
        "seed": np.array([2**32 - 1], np.uint32),
        "sampled": np.array([True]),
    }
    return StepBatch(**{**fields, **changes})


@pytest.mark.parametrize("page", [-1, 3])
def test_pages_that_a_replica_lacks_are_refused(page):
    batch = one_row(page_tables=np.full((1, 32), page, np.int32))
    with pytest.raises(TransportError, match="the replica has 0 to 2"):
        pack_rows(
            batch, np.array([0, 8, 9], np.int32), bucket=16, pages_per_sequence=32
        )


@pytest.mark.parametrize(
    ("changes", "x", "message"),
    [
        ({}, np.zeros((2, 64), np.float32), r"float32\[2, 64\], expected float32\[1"),
        ({}, np.zeros((1, 65), np.float32), r"float32\[1, 65\], expected"),
        ({}, np.zeros((1, 64), np.float64), r"float64\[1, 64\], expected"),
        ({"page_tables": np.zeros((1, 9), np.int32)}, None, "of 9 pages, expected 32"),
        ({"token_ids": np.zeros(129, np.int32)}, None, "129 rows, at most 128"),
    ],
)
def test_what_a_peer_should_not_send_is_refused(bundled, changes, x, message):
    executor = bundled.executor()
    with pytest.raises(TransportError, match=message):
        executor.run(1, 1, one_row(**changes), np.zeros(1, np.int32), x)


@pytest.mark.parametrize(("num_blocks", "num_layers"), [(1, 1), (3, 5)])
def test_an_emulated_stage_takes_its_time_per_layer(bundled, num_blocks, num_layers):
    slept = []
    emulation = Emulation(
        layer_ns=3 * NS_PER_MS, now_ns=lambda: 0, sleep_s=slept.append
    )
    executor = StageExecutor(bundled.executables, emulation)
    for block in range(num_blocks):
        executor.set_block(block, bundled.store.publish(block))
    executor.run(0, num_blocks, one_row(), np.zeros(1, np.int32))
    layers = bundled.program.partition.blocks[:num_blocks]
    assert slept == [0.003 * sum(block.num_layers for block in layers)]
    assert num_layers == 1 or sum(b.num_layers for b in layers) == num_layers


def test_activations_are_host_arrays_of_the_rows(bundled):
    executor = bundled.executor()
    x = executor.run(0, 1, one_row(), np.zeros(1, np.int32))
    assert isinstance(x, np.ndarray)
    assert not isinstance(x, jax.Array)
    assert x.shape == (1, 64)
    assert x.dtype == executor.activation_dtype == np.float32
