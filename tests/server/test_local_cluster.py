"""A local cluster that cannot start says why, and leaves nothing behind."""

import contextlib
import pathlib
import socket
import subprocess
import sys
import textwrap

import pytest

import jscale
from jscale.checkpoint.convert import convert
from jscale.core.errors import CheckpointError, ConfigError, UnavailableError

DAMAGES = {
    "missing": (None, "No such file or directory"),
    "truncated": (lambda data: data[:1000], "1000 bytes, the manifest says"),
    "corrupted": (
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        "is corrupted: block 1 of stories",
    ),
}


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """Executables are compiled once for all tests here."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def port():
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_in_use_is_one_clear_error(tmp_path, port):
    with pytest.raises(UnavailableError) as caught:
        jscale.LocalCluster(
            jscale.BUNDLED_MODEL,
            address=f"127.0.0.1:{port}",
            runtime_dir=str(tmp_path / "run"),
            cache_dir=str(tmp_path / "cache"),
        )
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in str(
        caught.value
    )
    secret = tmp_path / "run" / "cluster_token"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "run" / "manager.log").exists()


def test_a_model_that_is_not_there_starts_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="no such directory"):
        jscale.LocalCluster("/nowhere", runtime_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_block_is_one_clear_error_at_once(tmp_path, cache_dir, case):
    damage, message = DAMAGES[case]
    convert(jscale.BUNDLED_MODEL, tmp_path / "store", num_blocks=3)
    path = tmp_path / "store" / "block-00001.bin"
    data = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(data))
    with pytest.raises(UnavailableError) as caught:
        jscale.LocalCluster(
            str(tmp_path / "store"),
            runtime_dir=str(tmp_path / "run"),
            cache_dir=cache_dir,
        )
    said = str(caught.value)
    assert said.startswith("w0 could not load the model: ")
    assert str(path) in said
    assert message in said
    assert said.endswith("or copy the file from where it is whole")


def test_a_cluster_that_nobody_closed_ends_with_its_process(tmp_path, cache_dir):
    script = f"""
        import jscale
        cluster = jscale.LocalCluster(
            jscale.BUNDLED_MODEL,
            runtime_dir={str(tmp_path / "run")!r},
            cache_dir={cache_dir!r},
        )
        print(*(worker.pid for worker in cluster.workers.values()))
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0
    assert not pathlib.Path(f"/proc/{int(ended.stdout)}").exists()


def test_no_workers_are_no_cluster():
    with pytest.raises(ConfigError, match="num_workers is 0: give at least 1"):
        jscale.LocalCluster(jscale.BUNDLED_MODEL, num_workers=0)
