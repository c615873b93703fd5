"""A user's mistake is one line on stderr and exit code 2, never a stack trace."""

import subprocess
import sys

import pytest

import jscale

SECRET = "0123456789abcdef"
MISTAKES = {
    "no such model": (
        ["gateway", "--model=/nowhere", "--cluster_token_file={token}"],
        "/nowhere: no such directory",
    ),
    "no token file": (
        ["manager", "--model=/nowhere", "--cluster_token_file=/nowhere/token"],
        "--cluster_token_file=/nowhere/token: No such file or directory",
    ),
    "a short token": (
        ["worker", "--worker=w0", "--cluster_token_file={short}"],
        "5 characters are too few to be a secret; make one with: openssl",
    ),
    "a flag without dashes": (
        ["serve", "--model=/nowhere", "port=3"],
        "'port=3' is no flag: see --help",
    ),
    "a port that is none": (
        [
            "gateway",
            f"--model={jscale.BUNDLED_MODEL}",
            "--cluster_token_file={token}",
            "--cache_dir={cache}",
            "--listen_address=nowhere",
        ],
        "address 'nowhere': expected HOST:PORT",
    ),
    "a port beyond all": (
        [
            "manager",
            f"--model={jscale.BUNDLED_MODEL}",
            "--cluster_token_file={token}",
            "--cache_dir={cache}",
            "--listen_address=127.0.0.1:99999",
        ],
        "expected HOST:PORT, with a port of 0 to 65535",
    ),
    "an address that nobody reaches": (
        [
            "worker",
            "--worker=w0",
            "--data_address=tcp://0.0.0.0:0",
            "--cluster_token_file={token}",
        ],
        "data_address is tcp://0.0.0.0:0: others connect to it; give the address",
    ),
    "two transports": (
        [
            "worker",
            "--worker=w0",
            "--data_address=tcp://127.0.0.1:0",
            "--transport=rdma",
            "--cluster_token_file={token}",
        ],
        "transport is rdma and data_address tcp://127.0.0.1:0: give HOST:PORT alone",
    ),
    "RDMA by a device that is not there": (
        [
            "worker",
            "--worker=w0",
            "--transport=rdma",
            "--rdma_devices=nowhere0",
            "--cluster_token_file={token}",
        ],
        "RDMA was asked for and cannot be used: ",
    ),
    "metrics where nobody can listen": (
        [
            "worker",
            "--worker=w0",
            "--metrics_port=70000",
            "--cluster_token_file={token}",
        ],
        "metrics_port is 70000: 127.0.0.1:70000 cannot be listened on",
    ),
    "a rate that is none": (
        [
            "worker",
            "--worker=w0",
            "--link_mbit_s=-3",
            "--cluster_token_file={token}",
        ],
        "link_mbit_s is -3.0: give a rate over 0",
    ),
    "as many as it likes": (
        [
            "manager",
            f"--model={jscale.BUNDLED_MODEL}",
            "--cluster_token_file={token}",
            "--autoscale=anticipating",
        ],
        "autoscale is anticipating and max_workers is not given: say how many",
    ),
    "nobody there": (
        ["generate", "--address=127.0.0.1:1", "Once"],
        "gateway 127.0.0.1:1: nobody answers there",
    ),
    "two prompts": (["generate", "Once", "upon"], "2 prompts given"),
    "no number": (["scale", "four"], "'four': give the number of workers, 4 say"),
    "no such trace": (["simulate", "--trace=azure"], "trace 'azure': choose one of"),
    "a trace that is not there": (
        ["simulate", "--trace=/nowhere/trace.csv"],
        "trace /nowhere/trace.csv: No such file or directory",
    ),
    "no workers": (["simulate", "--workers=0"], "0 workers: give at least 1"),
    "a model beyond all": (
        ["simulate", "--model=llama-3.1-405b"],
        "model llama-3.1-405b of 812 GB: the 2 H800 of a host of h800-400g hold 144 GB",
    ),
    "no such preset": (["simulate", "--preset=dgx"], "preset 'dgx': choose one of"),
    "no such system": (["simulate", "--system=vllm"], "system 'vllm': choose some of"),
    "one path": (["convert", "/nowhere"], "1 paths given: jscale-convert takes SRC"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(case, tmp_path):
    (command, *arguments), message = MISTAKES[case]
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "short").write_text("12345")
    places = {name: tmp_path / name for name in ("token", "short", "cache")}
    given = [argument.format(**places) for argument in arguments]
    ended = subprocess.run(
        [sys.executable, "-m", f"jscale.launch.{command}", *given],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2, ended.stderr
    assert message in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
