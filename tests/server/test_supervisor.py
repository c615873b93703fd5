"""Servers that die are started again where they were, until they are stopped."""

import os
import signal
import time

import pytest

import jscale
from jscale.cluster.config import ManagerConfig
from jscale.core.errors import UnavailableError
from jscale.server.supervisor import Supervisor

PATIENCE_S = 60


@pytest.fixture
def supervisor(tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef")
    made = Supervisor(token_file=tmp_path / "token", log_dir=tmp_path)
    yield made
    made.stop()
    for process in made.processes().values():
        process.kill()
        process.reap()


def config(cache_dir, model=jscale.BUNDLED_MODEL):
    return ManagerConfig(model, "0123456789abcdef", cache_dir=str(cache_dir))


def start(supervisor, tmp_path):
    return supervisor.start("manager", config(tmp_path / "cache"), PATIENCE_S)


def test_a_server_that_is_killed_is_back_at_its_address(supervisor, tmp_path):
    address = start(supervisor, tmp_path)
    supervisor.watch()
    first = supervisor.processes()["manager"]
    os.kill(first.pid, signal.SIGKILL)
    ready_file = tmp_path / "manager.ready"
    deadline_s = time.monotonic() + PATIENCE_S
    while (second := supervisor.processes()["manager"]) is first:
        assert time.monotonic() < deadline_s
    assert second.read_when_ready(ready_file, PATIENCE_S) == address
    assert first.exit_code == -signal.SIGKILL
    supervisor.check()


def test_before_it_watches_an_end_is_an_error(supervisor, tmp_path):
    start(supervisor, tmp_path)
    process = supervisor.processes()["manager"]
    process.kill()
    process.reap()
    with pytest.raises(UnavailableError, match="manager ended with exit code -9"):
        supervisor.check()


def test_when_it_is_stopped_nothing_is_started(supervisor, tmp_path):
    start(supervisor, tmp_path)
    supervisor.watch()
    supervisor.stop()
    process = supervisor.processes()["manager"]
    process.kill()
    process.reap()
    assert supervisor.processes()["manager"] is process


def test_what_cannot_start_is_one_clear_error(supervisor, tmp_path):
    with pytest.raises(UnavailableError, match="no such directory"):
        supervisor.start("manager", config(tmp_path, "/nowhere"), PATIENCE_S)
