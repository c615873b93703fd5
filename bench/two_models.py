"""Two models scaling at once over the same links: how long each takes, against alone.

Each model has a manager, a gateway and a worker on every host; on one host, another for
each model, the worker has the model already. Hosts are those of a net-lab, whose links
the workers of both models share:

    net-lab --nodes 4 --rate 200mbit -- python bench/two_models.py
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import jscale
from jscale.checkpoint.random_model import config_of_size, write_random_model
from jscale.core.units import MIB

MODELS = ("a", "b")
PYTHON = (sys.executable, "-m")


def main() -> None:
    """Each model alone, then both at once, as often as asked."""
    options = _parse_options()
    if options.watch:
        print(json.dumps(_watch(options.watch, options.num_workers)))
        return
    with tempfile.TemporaryDirectory() as directory:
        _write_models(pathlib.Path(directory), options)
        rows = []
        for repeat in range(options.repeats + 1):
            alone = [_run(directory, options, (model,))[model] for model in MODELS]
            both = _run(directory, options, MODELS)
            if repeat == 0:
                continue  # The first compiles; executables are cached from then on.
            row = {"alone_s": alone, "at_once_s": [both[model] for model in MODELS]}
            rows.append(row)
            ratios = [b / a for a, b in zip(alone, row["at_once_s"], strict=True)]
            print(
                "alone {:.2f}, {:.2f} s; at once {:.2f}, {:.2f} s: x {:.2f}, {:.2f}"
                "".format(*alone, *row["at_once_s"], *ratios),
                flush=True,
            )
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


def _write_models(directory: pathlib.Path, options: argparse.Namespace) -> None:
    config = config_of_size(options.size_mib * MIB, num_layers=8, vocab_size=512)
    tokenizer = pathlib.Path(jscale.BUNDLED_MODEL) / "tokenizer.json"
    for model in MODELS:
        write_random_model(
            str(directory / model), config, num_blocks=8, tokenizer_file=tokenizer
        )
    (directory / "token").write_text("bench" * 8)
    (directory / "token").chmod(0o600)


def _run(
    directory: str, options: argparse.Namespace, models: tuple[str, ...]
) -> dict[str, float]:
    """Seconds from a model's first byte to its last worker, for each of the models."""
    hosts = os.environ["NET_LAB_IPS"].split(",")
    with contextlib.ExitStack() as stack:
        for number, model in enumerate(models):
            _start_servers(stack, directory, hosts[0], model, number)
            others = [host for host in range(len(hosts)) if host != number]
            for host in others:
                _start_worker(stack, directory, hosts, host, model, number, options)
        # Targets wait for their source, so that all are served by one multicast.
        time.sleep(options.settle_s)
        for number, model in enumerate(models):
            _start_worker(stack, directory, hosts, number, model, number, options)
        watching = {
            model: subprocess.Popen(
                [
                    *("on-node", "0", sys.executable, __file__),
                    f"--watch={hosts[0]}:{8480 + number}",
                    f"--num_workers={len(hosts)}",
                ],
                stdout=subprocess.PIPE,
            )
            for number, model in enumerate(models)
        }
        return {model: json.loads(p.communicate()[0]) for model, p in watching.items()}


def _start_servers(
    stack: contextlib.ExitStack, directory: str, host: str, model: str, number: int
) -> None:
    common = (
        f"--model={directory}/{model}",
        f"--cluster_token_file={directory}/token",
    )
    manager = (f"--listen_address={host}:{8470 + number}", "--num_workers=0")
    gateway = (
        f"--listen_address={host}:{8480 + number}",
        f"--manager={host}:{8470 + number}",
    )
    stack.enter_context(_process(0, "jscale.launch.manager", *common, *manager))
    stack.enter_context(_process(0, "jscale.launch.gateway", *common, *gateway))


def _start_worker(
    stack: contextlib.ExitStack,
    directory: str,
    hosts: list[str],
    host: int,
    model: str,
    number: int,
    options: argparse.Namespace,
) -> None:
    has_model = host == number
    flags = (
        f"--worker={model}{host}",
        f"--manager={hosts[0]}:{8470 + number}",
        f"--cluster_token_file={directory}/token",
        f"--cache_dir={directory}/cache",
        f"--data_address=tcp://{hosts[host]}:0",
        f"--serve_address={hosts[host]}:0",
        f"--nic_mbit_s={options.link_mbit_s}",
        f"--{'' if has_model else 'no'}can_load_from_disk",
    )
    stack.enter_context(_process(host, "jscale.launch.worker", *flags))


@contextlib.contextmanager
def _process(host: int, module: str, *flags: str) -> Iterator[None]:
    command = ["on-node", str(host), *PYTHON, module, *flags]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


def _watch(address: str, num_workers: int) -> float:
    """Seconds from the first byte that a worker received until all are whole."""
    first_s = None
    with jscale.Client(address) as client:
        for status in client.watch(interval_ms=20, timeout_s=300):
            received = [worker for worker in status.workers if worker.received_bytes]
            if received and first_s is None:
                first_s = time.monotonic()
            num_blocks = len(status.block_sizes_bytes)
            whole = [w for w in status.workers if len(w.blocks) == num_blocks > 0]
            if first_s is not None and len(whole) == num_workers:
                return time.monotonic() - first_s
    raise RuntimeError("the gateway ended")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    rate = os.environ.get("NET_LAB_RATE", "200mbit").removesuffix("mbit")
    parser.add_argument("--size_mib", type=int, default=64)
    parser.add_argument("--link_mbit_s", type=float, default=float(rate))
    parser.add_argument("--settle_s", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json")
    parser.add_argument("--watch", help="of one of our gateways; prints the seconds")
    parser.add_argument("--num_workers", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
