"""Processes of a local cluster end when they should, and say why if they do not."""

import os
import select
import signal
import subprocess
import sys
import textwrap

import pytest

from jscale.cluster.config import WorkerConfig
from jscale.core.errors import UnavailableError
from jscale.server.child_process import ChildProcess, flags_of


def test_a_config_becomes_flags_and_its_secret_does_not(tmp_path):
    config = WorkerConfig("w3", "127.0.0.1:9", "very secret", link_mbit_s=2.5)
    flags = flags_of(config, tmp_path / "token")
    assert f"--cluster_token_file={tmp_path / 'token'}" in flags
    assert {"--worker=w3", "--manager=127.0.0.1:9", "--link_mbit_s=2.5"} <= set(flags)
    assert "--ships_executables=True" in flags
    assert "very secret" not in " ".join(flags)


def test_a_process_that_fails_says_why(tmp_path):
    flags = ["--model=/nowhere", "--cluster_token_file=/nowhere/token"]
    process = ChildProcess("gateway", "jscale.launch.gateway", flags, tmp_path / "log")
    with pytest.raises(UnavailableError, match="code 2: gateway: --cluster_token_file"):
        process.read_when_ready(tmp_path / "ready", timeout_s=60)
    process.reap()


def test_a_process_that_is_not_ready_in_time_is_one_clear_error(tmp_path):
    process = sleeper(tmp_path)
    with pytest.raises(UnavailableError, match="is not ready after 0 s"):
        process.read_when_ready(tmp_path / "ready", timeout_s=0)
    process.kill()
    process.reap()
    assert process.exit_code == -signal.SIGKILL


def test_a_process_that_does_not_go_is_killed(tmp_path):
    process = sleeper(tmp_path)
    process.reap(timeout_s=0)
    assert process.exit_code == -signal.SIGKILL


def test_children_end_when_their_parent_is_killed(tmp_path):
    """The parent gets SIGKILL: it has no chance to tell its child."""
    (tmp_path / "token").write_text("0123456789abcdef")
    script = f"""
        import pathlib, time
        from jscale.cluster.config import WorkerConfig
        from jscale.server.child_process import ChildProcess, flags_of
        here = pathlib.Path({str(tmp_path)!r})
        config = WorkerConfig("w0", "127.0.0.1:1", "0123456789abcdef")
        flags = flags_of(config, here / "token")
        process = ChildProcess("w0", "jscale.launch.worker", flags, here / "log")
        print(process.pid, flush=True)
        time.sleep(1000)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE
    )
    with parent:
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        # A pidfd becomes readable when its process ends, whoever its parent is.
        ended, _, _ = select.select([child], [], [], 60)
        assert ended
    finally:
        os.close(child)


def sleeper(tmp_path) -> ChildProcess:
    (tmp_path / "token").write_text("0123456789abcdef")
    config = WorkerConfig("w0", "127.0.0.1:1", "0123456789abcdef")
    flags = flags_of(config, tmp_path / "token")
    return ChildProcess("w0", "jscale.launch.worker", flags, tmp_path / "log")
