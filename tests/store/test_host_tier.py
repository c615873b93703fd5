"""Copies in host memory: whole or not at all, bounded, shared, and never trusted."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading

import msgspec
import pytest

from jscale.core.errors import ConfigError, IntegrityError
from jscale.store import disk
from jscale.store.block_reader import BlockReader
from jscale.store.block_store import BlockStore
from jscale.store.host_tier import HostTier, HostTierConfig
from jscale.store.manifest import Manifest, manifest_fingerprint

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path):
    """Not the directory of the model: a memory file system in earnest."""
    return tmp_path / "shm"


@pytest.fixture
def tier(folder):
    return HostTier(HostTierConfig(str(folder), 1))


def another(manifest, name):
    """A manifest of another model, as large."""
    return msgspec.structs.replace(manifest, model_name=name)


def print_of(manifest):
    return manifest_fingerprint(manifest.to_bytes())


def in_pieces(blocks):
    return lambda index: [
        memoryview(blocks[index][i : i + 5000]) for i in (0, 5000, 10000)
    ]


def test_a_model_that_is_kept_is_a_block_store_with_its_bytes(
    tier, folder, manifest, blocks
):
    assert tier.models() == ()
    assert tier.keep(manifest, in_pieces(blocks))
    name = print_of(manifest)
    assert tier.models() == (name,)
    assert Manifest.load(folder / name) == manifest
    for entry, data in zip(manifest.blocks, blocks, strict=True):
        assert tier.file(name, entry.file).read_bytes() == data
    assert (folder.stat().st_mode & 0o777) == 0o700


def test_what_a_worker_holds_is_kept_and_the_next_loads_from_there(
    tier, directory, manifest, blocks
):
    first = BlockStore(manifest, chunk_size_bytes=4096)
    for block in range(manifest.num_blocks):
        first.load(block, directory)
    assert tier.keep(manifest, first.block_bytes)
    first.close()
    name = print_of(manifest)
    places = {i: [tier.file(name, e.file)] for i, e in enumerate(manifest.blocks)}
    second = BlockStore(manifest, chunk_size_bytes=4096)
    BlockReader(second.chunks, places, second).run()
    for block in range(manifest.num_blocks):
        second.verify(block)
        assert b"".join(second.block_bytes(block)) == blocks[block]
    second.close()
    assert tier.measure_bytes_per_s(name) > 0
    assert tier.measure_bytes_per_s("0" * 32) == 0


def test_a_copy_that_was_damaged_is_noticed_and_dropped(tier, manifest, blocks):
    tier.keep(manifest, in_pieces(blocks))
    name = print_of(manifest)
    path = tier.file(name, manifest.blocks[1].file)
    path.write_bytes(bytes(len(blocks[1])))
    store = BlockStore(manifest, chunk_size_bytes=4096)
    reader = BlockReader(store.chunks, {1: [path]}, store)
    reader.run()
    with pytest.raises(IntegrityError):
        store.verify(1)
    store.close()
    tier.drop(reader.file_of(1))
    assert not path.exists()
    assert tier.models() == ()
    # What is left of it is completed, and what was right is not written again.
    untouched = tier.file(name, manifest.blocks[0].file).stat().st_ino
    assert tier.keep(manifest, in_pieces(blocks))
    assert tier.file(name, manifest.blocks[0].file).stat().st_ino == untouched
    assert path.read_bytes() == blocks[1]


def test_only_its_own_files_are_dropped(tier, directory, manifest):
    tier.drop(directory / manifest.blocks[0].file)
    assert (directory / manifest.blocks[0].file).exists()


def use_in_order(folder, manifests):
    """Sets when each was used last, as clocks of file systems are coarse."""
    for number, each in enumerate(manifests):
        os.utime(folder / print_of(each), ns=(number, number))


def test_the_longest_unused_go_when_there_is_no_room(folder, manifest, blocks):
    """1 MiB takes 28 copies of this model of 36 KiB."""
    tier = HostTier(HostTierConfig(str(folder), 1))
    models = [another(manifest, f"m{number}") for number in range(28)]
    for each in models:
        assert tier.keep(each, in_pieces(blocks))
    use_in_order(folder, models)
    tier.used(print_of(models[0]))
    assert tier.models()[-1] == print_of(models[0])
    late = another(manifest, "late")
    assert tier.keep(late, in_pieces(blocks))
    gone = {print_of(m) for m in models} - set(tier.models())
    assert gone == {print_of(models[1])}
    assert not (folder / print_of(models[1])).exists()
    used = sum(p.stat().st_size for p in folder.glob("*/block-*"))
    assert used <= MIB


def test_what_others_have_in_the_directory_is_left_alone(folder, manifest, blocks):
    tier = HostTier(HostTierConfig(str(folder), 1))
    theirs = folder / "model-on-disk"
    theirs.mkdir(parents=True)
    files = [
        theirs / name for name in ("block-00000.bin", "a.partial", "manifest.json")
    ]
    for file in files:
        file.write_bytes(bytes(4096))
    os.utime(theirs, ns=(0, 0))
    for number in range(29):
        assert tier.keep(another(manifest, f"m{number}"), in_pieces(blocks))
    assert all(file.exists() for file in files)
    assert theirs.name not in tier.models()


def test_a_model_that_does_not_fit_is_not_kept_and_evicts_nobody(folder, manifest):
    tier = HostTier(HostTierConfig(str(folder), 1))
    small = another(manifest, "small")
    assert tier.keep(small, lambda index: [memoryview(bytes(12288))])
    big = msgspec.structs.replace(manifest, blocks=tuple(huge(manifest)))
    assert not tier.keep(big, lambda index: pytest.fail("nothing is to be read"))
    assert tier.models() == (print_of(small),)


def huge(manifest):
    for entry in manifest.blocks:
        layout = msgspec.structs.replace(entry, file=entry.file).layout
        layout = type(layout)(layout.block, layout.tensors, 512 * 1024)
        yield msgspec.structs.replace(entry, layout=layout)


def test_who_reads_a_file_keeps_it_though_it_is_evicted(tier, folder, manifest, blocks):
    tier.keep(manifest, in_pieces(blocks))
    path = tier.file(print_of(manifest), manifest.blocks[2].file)
    with path.open("rb") as file:
        for number in range(28):
            assert tier.keep(another(manifest, f"m{number}"), in_pieces(blocks))
        assert not path.exists()
        assert file.read() == blocks[2]


def test_one_process_at_a_time_writes(folder, manifest, blocks):
    tiers = [HostTier(HostTierConfig(str(folder), 1)) for _ in range(2)]
    is_writing, may_go_on = threading.Event(), threading.Event()

    def slowly(index):
        is_writing.set()
        may_go_on.wait(20)
        return [memoryview(blocks[index])]

    first = threading.Thread(target=tiers[0].keep, args=(manifest, slowly))
    first.start()
    is_writing.wait(20)
    written = []

    def counted(index):
        written.append(index)
        return [memoryview(blocks[index])]

    second = threading.Thread(target=tiers[1].keep, args=(manifest, counted))
    second.start()
    may_go_on.set()
    for thread in (first, second):
        thread.join()
    assert written == []
    assert tiers[1].models() == (print_of(manifest),)


def test_closing_ends_a_write_and_the_wait_for_one(folder, manifest, blocks):
    tiers = [HostTier(HostTierConfig(str(folder), 1)) for _ in range(2)]
    is_writing, may_go_on = threading.Event(), threading.Event()
    kept = {}

    def slowly(index):
        is_writing.set()
        may_go_on.wait(20)
        return [memoryview(blocks[index])]

    def keep(number, block_bytes):
        kept[number] = tiers[number].keep(manifest, block_bytes)

    threads = [
        threading.Thread(target=keep, args=(number, slowly)) for number in range(2)
    ]
    threads[0].start()
    is_writing.wait(20)
    threads[1].start()
    tiers[1].close()
    threads[1].join()
    tiers[0].close()
    may_go_on.set()
    threads[0].join()
    assert kept == {0: False, 1: False}
    assert tiers[0].models() == ()


def test_kill_9_in_mid_write_leaves_nothing_wrong(folder, manifest, blocks, directory):
    """The second block is half-written when the process dies."""
    script = f"""
        import os, signal
        from jscale.store.host_tier import HostTier, HostTierConfig
        from jscale.store.manifest import Manifest

        def pieces(index):
            with open({str(directory)!r} + f"/block-0000{{index}}.bin", "rb") as file:
                yield memoryview(file.read(6000))
                if index == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield memoryview(file.read())

        HostTier(HostTierConfig({str(folder)!r}, 1)).keep(
            Manifest.load({str(directory)!r}), pieces
        )
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert ended.returncode == -signal.SIGKILL
    tier = HostTier(HostTierConfig(str(folder), 1))
    name = print_of(manifest)
    assert tier.models() == ()
    assert tier.file(name, manifest.blocks[0].file).read_bytes() == blocks[0]
    assert not tier.file(name, manifest.blocks[1].file).exists()
    assert list(folder.glob("*/*.partial"))
    assert tier.keep(manifest, in_pieces(blocks))
    assert tier.models() == (name,)
    assert not list(folder.glob("*/*.partial"))
    assert all(
        tier.file(name, entry.file).read_bytes() == data
        for entry, data in zip(manifest.blocks, blocks, strict=True)
    )


def test_a_tier_that_cannot_be_written_costs_only_time(tmp_path, manifest, blocks):
    (tmp_path / "file").write_bytes(b"")
    tier = HostTier(HostTierConfig(str(tmp_path / "file"), 1))
    assert not tier.keep(manifest, in_pieces(blocks))
    assert tier.models() == ()


def test_a_file_system_that_is_full_is_left_as_it_was(tier, folder, manifest, blocks):
    def full(index):
        yield memoryview(blocks[0])
        raise OSError(errno.ENOSPC, "No space left on device")

    other = another(manifest, "other")
    assert tier.keep(other, in_pieces(blocks))
    assert not tier.keep(manifest, full)
    assert tier.models() == (print_of(other),)
    assert not (folder / print_of(manifest)).exists()


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="host_tier_mib is -1"):
        HostTierConfig(capacity_mib=-1)
    with pytest.raises(ConfigError, match="host_tier_dir is empty"):
        HostTierConfig(directory="")


def test_the_manifest_comes_last(tier, manifest, blocks):
    seen = []

    def watched(index):
        seen.append(tier.models())
        return in_pieces(blocks)(index)

    tier.keep(manifest, watched)
    assert seen == [(), (), ()]
    assert disk.MANIFEST_FILE == "manifest.json"
