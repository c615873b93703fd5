"""Executables that travel run as those compiled here, or are refused with a reason."""

import dataclasses
import threading

import pytest

from jscale.core.errors import IntegrityError
from jscale.engine.bundle import bundle_digest, open_bundle, pack_bundle
from jscale.engine.bundle_cache import BundleCache
from jscale.engine.executables import ExecutableSet
from jscale.engine.fingerprint import (
    ExecutableMismatchError,
    check_fingerprint,
    fingerprint_digest,
    fingerprint_of,
)
from jscale.engine.kv_copy import kv_copy_specs

FACTS = {"jaxlib": "0.10.2", "platform": "cpu"}


@pytest.fixture(scope="module")
def small(rig):
    return rig("random", 2)


@pytest.fixture(scope="module")
def bundle(small):
    return small.executables.to_bundle()


def opened(data):
    return open_bundle(data, sha256=bundle_digest(data))


def test_executables_are_compiled_before_any_weight_exists(small):
    executables = ExecutableSet(small.program)
    specs = small.program.stage_specs()[:1]
    assert not executables.holds(specs)
    executables.compile(specs)
    assert executables.holds(specs)


def test_one_executable_serves_every_block_of_a_kind(rig):
    program = rig("random", 4).program
    names = [spec.name for spec in program.stage_specs()]
    assert names == ["1@16", "1+head@16", "embed+1@16"]
    assert [spec.name for spec in program.fused_specs()] == ["embed+1.1.1.1+head@16"]


def test_shipped_executables_run_as_compiled_ones(small, bundle, replica):
    results = []
    shipped = ExecutableSet(small.program)
    for specs in (small.program.stage_specs(), small.program.fused_specs()):
        shipped.load(opened(bundle), specs)
        local = replica(small, executor=small.executor(shipped))
        local.add("a", range(3, 30), max_tokens=20)
        results.append(local.run()["a"])
    here = replica(small)
    here.add("a", range(3, 30), max_tokens=20)
    assert here.run()["a"] == results[0] == results[1]


def test_executables_that_have_sorted_can_still_be_shipped(small, bundle, replica):
    local = replica(small)
    local.add("a", range(3, 30), temperature=1.0, top_k=20, top_p=0.9, max_tokens=2)
    local.run()
    assert small.executables.to_bundle() == bundle


def test_what_was_shipped_can_be_passed_on(small, bundle):
    shipped = ExecutableSet(small.program)
    program = small.program
    for specs in (
        program.stage_specs(),
        program.fused_specs(),
        kv_copy_specs(program),
    ):
        shipped.load(opened(bundle), specs)
    assert shipped.to_bundle() == bundle


def test_shipped_executables_donate_their_pools(small, bundle, replica):
    shipped = ExecutableSet(small.program)
    shipped.load(opened(bundle), small.program.fused_specs())
    executor = small.executor(shipped)
    local = replica(small, executor=executor)
    before = [pool.unsafe_buffer_pointer() for pool in executor._k_pools]
    local.add("a", range(3, 30), max_tokens=5)
    local.run()
    assert [pool.unsafe_buffer_pointer() for pool in executor._k_pools] == before


def test_executables_of_another_model_are_refused(small, rig, bundle):
    other = ExecutableSet(rig("random", 4).program)
    with pytest.raises(ExecutableMismatchError, match="partition is"):
        other.load(opened(bundle), other.program.stage_specs())


def test_executables_for_other_settings_are_refused(small, bundle):
    other = ExecutableSet(dataclasses.replace(small.program, dtype="bfloat16"))
    with pytest.raises(ExecutableMismatchError, match="dtype is float32 there"):
        other.load(opened(bundle), other.program.stage_specs())


def test_a_bundle_that_lacks_one_says_which(small):
    empty = pack_bundle(fingerprint_of(small.program), {})
    with pytest.raises(ExecutableMismatchError, match=r"2\+head@16 is not among"):
        ExecutableSet(small.program).load(opened(empty), small.program.stage_specs())


def test_what_jax_cannot_load_is_refused(small):
    name = small.program.stage_specs()[0].name
    broken = pack_bundle(fingerprint_of(small.program), {name: b"not an executable"})
    with pytest.raises(ExecutableMismatchError, match="cannot be loaded"):
        ExecutableSet(small.program).load(opened(broken), small.program.stage_specs())


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({**FACTS, "jaxlib": "0.10.1"}, "jaxlib is 0.10.1 there and 0.10.2 here"),
        ({"jaxlib": "0.10.2"}, r"platform is \(unknown\) there and cpu here"),
        ({**FACTS, "new": "x"}, r"new is x there and \(unknown\) here"),
    ],
)
def test_a_mismatch_names_the_fact(found, message):
    with pytest.raises(ExecutableMismatchError, match=message):
        check_fingerprint(found=found, wanted=FACTS)


def test_a_fingerprint_knows_the_machine_and_the_code(small):
    facts = fingerprint_of(small.program)
    assert facts["CPU features"]
    assert facts["code"]
    assert facts == fingerprint_of(small.program)
    assert len(fingerprint_digest(facts)) == 32


def test_entries_come_out_as_they_went_in():
    data = pack_bundle(FACTS, {"b": b"bytes" * 100, "a": b""})
    bundle = opened(data)
    assert bundle.fingerprint == FACTS
    assert (bundle.serialized("a"), bundle.serialized("b")) == (b"", b"bytes" * 100)
    assert bundle.serialized("c") is None


def test_the_same_entries_make_the_same_bytes():
    first = pack_bundle(FACTS, {"a": b"1", "b": b"2"})
    assert first == pack_bundle(FACTS, {"b": b"2", "a": b"1"})


def test_a_damaged_bundle_is_refused():
    data = bytearray(pack_bundle(FACTS, {"a": b"bytes"}))
    digest = bundle_digest(data)
    data[-1] ^= 1
    with pytest.raises(IntegrityError, match=f"expected {digest}; compiling them here"):
        open_bundle(bytes(data), sha256=digest)


@pytest.mark.parametrize("data", [b"", b"jscalex1", b"x" * 40])
def test_bytes_that_are_no_bundle_are_refused(data):
    with pytest.raises(IntegrityError, match="compiling them here"):
        opened(data)


def test_a_truncated_bundle_is_refused():
    with pytest.raises(IntegrityError, match="not what the header tells"):
        opened(pack_bundle(FACTS, {"a": b"bytes"})[:-1])


def test_the_cache_finds_what_it_kept(tmp_path):
    cache = BundleCache(tmp_path / "cache")
    assert cache.find("f1") is None
    cache.keep("f1", b"bundle")
    assert BundleCache(tmp_path / "cache").find("f1") == b"bundle"
    assert cache.find("f2") is None


def test_of_several_that_start_together_one_makes_the_bundle(tmp_path):
    caches = [BundleCache(tmp_path), BundleCache(tmp_path)]
    is_coming = threading.Event()
    found = []

    def second():
        is_coming.set()
        with caches[1].alone("f1"):
            found.append(caches[1].find("f1"))

    thread = threading.Thread(target=second)
    with caches[0].alone("f1"):
        thread.start()
        is_coming.wait()
        with caches[1].alone("f2"):  # Another bundle is nobody's hindrance.
            caches[0].keep("f1", b"bundle")
    thread.join()
    assert found == [b"bundle"]


def test_who_waits_for_another_process_may_close(tmp_path):
    caches = [BundleCache(tmp_path), BundleCache(tmp_path)]
    answers = []

    def second():
        with caches[1].alone("f1") as may_compile:
            answers.append(may_compile)

    thread = threading.Thread(target=second, daemon=True)
    with caches[0].alone("f1") as may_compile:
        assert may_compile
        thread.start()
        caches[1].close()
        thread.join(timeout=20)
        assert answers == [False]


def test_a_damaged_cache_entry_is_passed_by(tmp_path):
    cache = BundleCache(tmp_path)
    cache.keep("f1", b"bundle")
    (path,) = (tmp_path / "executables").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert cache.find("f1") is None


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = BundleCache(tmp_path / "file")
    with cache.alone("f1"):
        cache.keep("f1", b"bundle")
    assert cache.find("f1") is None
