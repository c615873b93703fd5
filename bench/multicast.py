"""How long until the last of N members holds the model, against size / rate.

One process per member. Alone it starts them all on loopback, with the link rate
emulated in the transport; with `--members` and `--rank` (or in a net-lab, which sets
NET_LAB_IPS and NET_LAB_NODE) it is one member, on links that have the rate:

    python bench/multicast.py --num_members=2,4
    net-lab --nodes 8 --rate 400mbit -- on-nodes python bench/multicast.py
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import time

from multicast_member import Case, MemberProcess, Result

from jscale.core.chunks import chunk_size_for
from jscale.core.units import MIB, mbit_to_bytes_per_s

GLOO = "gloo"
MEMBERS_MAX = 8


def main() -> int:
    """Runs one member, or all of them; the exit status."""
    options = _parse_options()
    if options.members:
        return _run_member(options)
    return _run_on_loopback(options)


def _run_member(options: argparse.Namespace) -> int:
    """Takes part in every case; rank 0 leads and reports."""
    addresses = options.members.split(",")
    with MemberProcess(
        addresses,
        options.rank,
        port=options.port,
        size_bytes=options.size_mib * MIB,
        link_rate_bytes_per_s=_rate(options) if options.emulate else None,
    ) as member:
        if options.rank != 0:
            member.follow()
            return 0
        rows = []
        print(_HEAD, flush=True)
        for case in _cases(options, len(addresses)):
            for _ in range(options.repeats):
                row = _row(options, case, member.lead(case))
                print(_line(row), flush=True)
                rows.append(row)
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump(rows, file, indent=1)
    return 0


def _cases(options: argparse.Namespace, num_addresses: int) -> list[Case]:
    size_bytes = options.size_mib * MIB
    chunk_size_bytes = options.chunk_kib * 1024 or chunk_size_for(size_bytes)
    plans = [plan for plan in options.plans.split(",") if _can_run(plan, options)]
    counts = [int(count) for count in options.num_members.split(",")]
    return [
        Case(plan, count, size_bytes, chunk_size_bytes)
        for count in counts
        if 2 <= count <= num_addresses
        for plan in plans
    ]


def _can_run(plan: str, options: argparse.Namespace) -> bool:
    if plan != GLOO:
        return True
    if options.emulate:
        print(f"{GLOO}: left out, it knows nothing of an emulated rate: use net-lab")
        return False
    probe = [sys.executable, "-c", "import torch.distributed"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        print(f"{GLOO}: left out, torch cannot be imported")
        return False
    return True


def _row(
    options: argparse.Namespace, case: Case, result: Result
) -> dict[str, str | int | float]:
    rate = _rate(options)
    return {
        "plan": case.plan,
        "num_members": case.num_members,
        "size_bytes": case.size_bytes,
        "rate_bytes_per_s": rate,
        "seconds": result.seconds,
        "ratio_to_bound": result.seconds / (case.size_bytes / rate),
        "chunk_size_bytes": case.chunk_size_bytes,
        "peak_memory_bytes": result.peak_memory_bytes,
        "link": "emulated" if options.emulate else "real",
    }


_HEAD = "plan       members   seconds   x size/rate   peak memory - model (MiB)"


def _line(row: dict[str, str | int | float]) -> str:
    over = (int(row["peak_memory_bytes"]) - int(row["size_bytes"])) / MIB
    return (
        f"{row['plan']:<10} {row['num_members']:>7} {row['seconds']:>9.3f}"
        f" {row['ratio_to_bound']:>13.3f} {over:>19.1f}"
    )


def _rate(options: argparse.Namespace) -> float:
    return mbit_to_bytes_per_s(options.link_mbit_s)


def _run_on_loopback(options: argparse.Namespace) -> int:
    """Starts every member as a process of this machine."""
    counts = [int(count) for count in options.num_members.split(",")]
    num_processes = max(counts)
    command = [
        sys.executable,
        *sys.argv,
        f"--members={','.join(['127.0.0.1'] * num_processes)}",
        f"--port={_free_port()}",
        "--emulate",
    ]
    processes = [
        subprocess.Popen([*command, f"--rank={rank}"]) for rank in range(num_processes)
    ]
    try:
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):
                break
            time.sleep(0.05)
    finally:
        for process in processes:
            process.terminate()
    return max(abs(process.wait()) for process in processes)


def _free_port() -> int:
    """The first of a run of ports that is free, as far as one can know."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return min(port, 65_000)


def _parse_options() -> argparse.Namespace:
    node = os.environ.get("NET_LAB_NODE")
    rate = re.fullmatch(r"(\d+)mbit", os.environ.get("NET_LAB_RATE", ""))
    every = ",".join(str(count) for count in range(2, MEMBERS_MAX + 1))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--plans", default="binomial,chain,tree,gloo", help="which, in this order")
    add("--num_members", default=every, help="source included")
    add("--size_mib", type=int, default=64, help="the model")
    add("--chunk_kib", type=int, default=0, help="0: as core/chunks.py has it")
    add("--link_mbit_s", type=float, default=float(rate[1]) if rate else 400.0)
    add("--repeats", type=int, default=3)
    add("--json", default="", help="where rank 0 writes the rows")
    add("--members", default=os.environ.get("NET_LAB_IPS", "") if node else "")
    add("--rank", type=int, default=int(node or 0))
    add("--port", type=int, default=47_100, help="rank k listens at port + k")
    add("--emulate", action="store_true", help="shape the links in the transport")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
