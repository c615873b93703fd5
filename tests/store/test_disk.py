import errno
import io

import numpy as np
import pytest

from jscale.core.errors import CheckpointError
from jscale.store import disk
from jscale.store.block_file import BlockFile


def read(directory, entry):
    into = bytearray(entry.layout.size_bytes)
    file = BlockFile(directory / entry.file, len(into))
    file.read(0, [memoryview(into)])
    file.close()
    return bytes(into)


def test_a_block_reads_back_as_it_was_written(tmp_path, manifest, blocks):
    for entry, data in zip(manifest.blocks, blocks, strict=True):
        tensors = [
            [data[t.offset_bytes : t.offset_bytes + t.size_bytes]]
            for t in entry.layout.tensors
        ]
        assert disk.write_block(tmp_path, entry.layout, tensors) == entry
        assert read(tmp_path, entry) == data
        assert disk.is_intact(tmp_path, entry)


def test_a_tensor_may_come_in_pieces_of_any_type(tmp_path, manifest):
    layout = manifest.blocks[0].layout
    kernel = np.arange(3000, dtype=np.float32).reshape(2, 30, 50)
    scale = np.arange(14, dtype=np.uint16)
    whole = disk.write_block(tmp_path / "a", layout, [[kernel], [scale]])
    pieces = disk.write_block(tmp_path / "b", layout, [list(kernel), [scale]])
    assert whole == pieces
    assert read(tmp_path / "b", pieces)[:12000] == kernel.tobytes()


def test_an_interrupted_write_leaves_no_block(tmp_path, manifest):
    def tensors():
        yield [bytes(12000)]
        raise KeyboardInterrupt

    entry = manifest.blocks[0]
    with pytest.raises(KeyboardInterrupt):
        disk.write_block(tmp_path, entry.layout, tensors())
    assert not (tmp_path / entry.file).exists()


def test_a_missing_block_file_is_a_clear_error(directory, manifest):
    (directory / "block-00001.bin").unlink()
    with pytest.raises(CheckpointError, match=r"block-00001.bin: No such file"):
        read(directory, manifest.blocks[1])


@pytest.mark.parametrize("size_bytes", [0, 12287, 12289])
def test_a_block_file_of_the_wrong_size_is_a_clear_error(
    directory, manifest, blocks, size_bytes
):
    (directory / "block-00001.bin").write_bytes((blocks[1] + b"\0")[:size_bytes])
    with pytest.raises(CheckpointError, match=f"{size_bytes} bytes, the manifest says"):
        read(directory, manifest.blocks[1])
    assert not disk.is_intact(directory, manifest.blocks[1])


def test_a_changed_byte_is_noticed(directory, manifest):
    path = directory / "block-00001.bin"
    data = bytearray(path.read_bytes())
    data[77] ^= 1
    path.write_bytes(data)
    assert not disk.is_intact(directory, manifest.blocks[1])


def test_a_full_disk_is_a_clear_error(directory, manifest):
    def full():
        yield memoryview(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left"):
        disk.write_atomically(directory / "manifest.json", full())
    assert (directory / "manifest.json").read_bytes() == manifest.to_bytes()


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    class Slow(io.FileIO):
        def write(self, data):
            return super().write(data[:3])

    def open_slowly(path, mode, buffering):
        return Slow(path, mode)

    monkeypatch.setattr("pathlib.Path.open", open_slowly)
    disk.write_atomically(tmp_path / "x", [memoryview(b"0123456789")])
    monkeypatch.undo()
    assert (tmp_path / "x").read_bytes() == b"0123456789"
