"""KV that was moved is the KV that was computed, bit for bit, where it should be."""

import numpy as np
import pytest

from jscale.core.errors import TransportError
from jscale.engine import kv_copy
from jscale.engine.bundle import bundle_digest, open_bundle
from jscale.engine.executables import ExecutableSet
from jscale.engine.kv_copy import kv_copy_specs, kv_piece_shape

PROMPT = tuple(range(3, 43))


def filled(rig, replica, **settings):
    """An executor whose pools hold the KV of a sequence."""
    model = rig("random", 2, **settings)
    local = replica(model)
    local.add("a", PROMPT, max_tokens=20)
    local.run()
    return model, local.executor


def pools(executor, block):
    return (np.asarray(each[block]) for each in (executor._k_pools, executor._v_pools))


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("pages", [(4,), (4, 5), (9, 4, 6, 5)], ids=str)
def test_pages_that_were_read_and_written_elsewhere_have_the_same_bits(
    rig, replica, compute_dtype, pages
):
    model, executor = filled(
        rig, replica, dtype="bfloat16", compute_dtype=compute_dtype
    )
    other = model.executor()
    assert len(pages) <= executor.kv_piece_pages(1)
    targets = [70 - page for page in pages]
    data = executor.read_kv(1, pages)
    size = executor.kv_bytes_per_token(1) * model.program.engine.page_tokens
    assert len(data) == len(pages) * size
    other.write_kv(1, targets, memoryview(data))
    for here, there in zip(pools(executor, 1), pools(other, 1), strict=True):
        assert here[:, list(pages)].any()
        np.testing.assert_array_equal(here[:, list(pages)], there[:, targets])
        untouched = np.delete(there, [0, *targets], axis=1)
        assert not untouched.any(), "nobody's page but the padding page"


def test_pages_are_copied_within_a_worker(rig, replica):
    _, executor = filled(rig, replica)
    executor.copy_kv(0, [4, 5], [60, 50])
    for pool in pools(executor, 0):
        assert pool[:, 4].any()
        np.testing.assert_array_equal(pool[:, [4, 5]], pool[:, [60, 50]])


def test_pages_of_another_size_are_refused_and_nothing_is_written(rig, replica):
    _, executor = filled(rig, replica)
    before = [pool.copy() for pool in pools(executor, 0)]
    data = memoryview(executor.read_kv(0, [4, 5]))
    for wrong in (data[:-4], data[: len(data) // 2], data[:0]):
        with pytest.raises(TransportError, match="of 2 pages of block 0 has"):
            executor.write_kv(0, [60, 61], wrong)
    for pool, old in zip(pools(executor, 0), before, strict=True):
        np.testing.assert_array_equal(pool, old)


def test_writes_donate_their_pools_also_when_shipped(rig, replica):
    model, executor = filled(rig, replica)
    data = model.executables.to_bundle()
    shipped = ExecutableSet(model.program)
    opened = open_bundle(data, sha256=bundle_digest(data))
    shipped.load(opened, kv_copy_specs(model.program))
    shipped.load(opened, model.program.stage_specs())
    other = model.executor(shipped)
    assert other.can_copy_kv
    before = [pool.unsafe_buffer_pointer() for pool in other._k_pools]
    other.write_kv(0, [8], memoryview(executor.read_kv(0, [4])))
    assert [pool.unsafe_buffer_pointer() for pool in other._k_pools] == before
    assert other.read_kv(0, [8]) == executor.read_kv(0, [4])


def test_a_worker_without_the_executables_says_so(rig):
    model = rig("random", 2)
    assert model.executor().can_copy_kv
    assert not model.executor(model.walking()).can_copy_kv


def test_pieces_are_bounded_and_never_without_a_page(rig, monkeypatch):
    program = rig("random", 2).program
    page_bytes = kv_copy.kv_bytes_per_token(program, 1) * program.engine.page_tokens
    for size in (1, page_bytes, 3 * page_bytes + 1, 1 << 30):
        monkeypatch.setattr(kv_copy, "PIECE_BYTES", size)
        two, layers, pages, *_ = kv_piece_shape(program, 1)
        assert (two, layers) == (2, 1)
        wanted = max(1, size // page_bytes)
        assert pages == min(wanted, program.engine.pages_per_sequence)
