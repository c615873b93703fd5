"""`jscale-serve` ends as it is told to: what runs finishes first, unless it may not."""

import pathlib
import signal
import subprocess
import sys

import pytest

import jscale
from jscale.core.errors import UnavailableError

NUM_TOKENS = 80


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """Executables are compiled once for all tests here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def serving(cache_dir):
    """`jscale-serve` with layers so slow that a request takes four seconds."""
    arguments = [
        f"--model={jscale.BUNDLED_MODEL}",
        "--port=0",
        "--emulate_layer_us=10000",
        f"--cache_dir={cache_dir}",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "jscale.launch.serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        yield process
        process.kill()


def test_sigterm_lets_a_running_request_finish(serving):
    address, logs = ready(serving)
    with jscale.Client(address) as client:
        tokens = client.generate("Once", max_tokens=NUM_TOKENS, ignore_eos=True)
        next(tokens)
        serving.send_signal(signal.SIGTERM)
        assert len(list(tokens)) == NUM_TOKENS - 1
    assert serving.wait(60) == 0
    assert serving.stdout.read() == ""
    assert not logs.exists()


def test_a_second_interrupt_waits_for_nothing(serving):
    address, logs = ready(serving)
    with jscale.Client(address, resume_timeout_s=0) as client:
        tokens = client.generate("Once", max_tokens=NUM_TOKENS, ignore_eos=True)
        next(tokens)
        serving.send_signal(signal.SIGINT)
        wait_until_refused(client)
        serving.send_signal(signal.SIGINT)
        with pytest.raises(UnavailableError):
            list(tokens)
    assert serving.wait(60) == 128 + signal.SIGINT
    assert "Traceback" not in serving.stdout.read()
    assert not logs.exists()


def ready(process):
    """Where it serves, and where its logs are, once it says so."""
    lines = []
    for line in process.stdout:
        lines.append(line.split())
        if line.startswith("logs: "):
            return lines[-2][3], pathlib.Path(lines[-1][1])
    raise AssertionError(lines)


def wait_until_refused(client):
    for _ in range(1000):
        try:
            next(client.generate("Once", max_tokens=1))
        except UnavailableError:
            return
    raise AssertionError("it goes on taking requests")
