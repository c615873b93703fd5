"""How long until the last of N members holds the model, against size / rate.

One process per member. Alone it starts them all on loopback, with the link rate
emulated in the transport; with `--members` and `--rank` (or in a net-lab, which sets
NET_LAB_IPS and NET_LAB_NODE) it is one member, on links that have the rate:

    python bench/multicast.py --num_members=2,4
    net-lab --nodes 8 --rate 400mbit -- python bench/multicast.py
    net-lab --nodes 8 --rate 400mbit -- python bench/multicast.py --kill=3@0.5

With `--kill`, `--join` or `--slow` every multicast is run undisturbed too, in turn.
"""

import argparse
import dataclasses
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time

from multicast_case import UNDISTURBED, Case, Result
from multicast_lab import restart_when_killed, run_on_nodes, set_rate
from multicast_leader import Leader
from multicast_member import MemberProcess

from jscale.core.chunks import chunk_size_for
from jscale.core.units import MIB, mbit_to_bytes_per_s

GLOO = "gloo"
MEMBERS_MAX = 8


def main() -> int:
    """Runs one member, or all of them; the exit status."""
    options = _parse_options()
    if not options.members and "NET_LAB_IPS" in os.environ:
        return run_on_nodes()
    if not options.members:
        return _run_on_loopback(options)
    if options.kill and options.rank == options.kill[0] and not options.is_child:
        return restart_when_killed()
    return _run_member(options)


def _run_member(options: argparse.Namespace) -> int:
    """Takes part in every case; rank 0 leads and reports."""
    addresses = options.members.split(",")
    with MemberProcess(
        addresses,
        options.rank,
        port=options.port,
        size_bytes=options.size_mib * MIB,
        link_rate_bytes_per_s=_rate(options) if options.emulate else None,
        is_restarted=options.is_restarted,
    ) as process:
        if options.rank != 0:
            process.follow()
            return 0

        def pace(rank: int, bytes_per_s: float) -> None:
            process.tell(rank, "pace", {"bytes_per_s": bytes_per_s})

        leader = Leader(
            process,
            rate_bytes_per_s=_rate(options),
            set_rate=pace if options.emulate else set_rate,
        )
        rows = []
        print(_HEAD, flush=True)
        for case in _cases(options, len(addresses)):
            rows += _measure(options, leader, case, addresses)
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump(rows, file, indent=1)
    return 0


def _measure(
    options: argparse.Namespace, leader: Leader, case: Case, addresses: list[str]
) -> list[dict[str, str | int | float]]:
    """Runs a case, and those of its kind with faults, in turn."""
    rows, ratios = [], {}
    if _faulty(options, case):
        leader.run(case)  # Not counted: connections and memory are new.
    for _ in range(options.repeats):
        if case.plan == GLOO:
            plain = leader.run_gloo(case, addresses, options.port)
        else:
            plain = leader.run(case)
        results = [(case, plain)]
        if case.plan != GLOO:
            results += [(each, leader.run(each)) for each in _faulty(options, case)]
        for each, result in results:
            ratio = result.others_seconds / plain.seconds
            ratios.setdefault(each.label, []).append(ratio)
            row = _row(options, each, result) | {"ratio_to_undisturbed": ratio}
            print(_line(row), flush=True)
            rows.append(row)
    fastest = min(float(row["seconds"]) for row in rows if row["what"] == UNDISTURBED)
    for label in [label for label in ratios if label != UNDISTURBED]:
        found = [float(r["others_seconds"]) for r in rows if r["what"] == label]
        least, middle, most = (
            seconds / fastest
            for seconds in (min(found), statistics.median(found), max(found))
        )
        print(
            f"{case.plan} {label}: the others took {middle:.3f} ({least:.3f} to "
            f"{most:.3f}) x the fastest undisturbed run"
        )
    return rows


def _faulty(options: argparse.Namespace, case: Case) -> list[Case]:
    """The same with what goes wrong."""
    cases = []
    if options.kill and options.kill[0] < case.num_members:
        cases.append(dataclasses.replace(case, kill=options.kill))
    if options.join is not None and case.num_members < len(options.members.split(",")):
        more = case.num_members + 1
        cases.append(dataclasses.replace(case, join=options.join, num_members=more))
    if options.slow and options.slow[0] < case.num_members:
        slow = (options.slow[0], mbit_to_bytes_per_s(options.slow[1]))
        cases += [
            dataclasses.replace(case, slow=slow, is_slow_known=is_known)
            for is_known in (True, False)
        ]
    return cases


def _cases(options: argparse.Namespace, num_addresses: int) -> list[Case]:
    size_bytes = options.size_mib * MIB
    chunk_size_bytes = options.chunk_kib * 1024 or chunk_size_for(size_bytes)
    plans = [plan for plan in options.plans.split(",") if _can_run(plan, options)]
    counts = [int(count) for count in options.num_members.split(",")]
    return [
        Case(plan, count, size_bytes, chunk_size_bytes, options.sources)
        for count in counts
        if options.sources < count <= num_addresses
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
        "what": case.label,
        "num_members": case.num_members,
        "num_sources": case.num_sources,
        "size_bytes": case.size_bytes,
        "rate_bytes_per_s": rate,
        "seconds": result.seconds,
        "others_seconds": result.others_seconds,
        "own_seconds": result.own_seconds,
        "coverage_seconds": result.coverage_seconds,
        "num_plans": result.num_plans,
        "ratio_to_bound": result.seconds / (case.size_bytes / rate),
        "chunk_size_bytes": case.chunk_size_bytes,
        "peak_memory_bytes": result.peak_memory_bytes,
        "link": "emulated" if options.emulate else "real",
    }


_HEAD = (
    "plan      what                 k    N  seconds  x size/rate  together  others  own"
    "  plans  peak memory - model (MiB)"
)


def _line(row: dict[str, str | int | float]) -> str:
    over = (int(row["peak_memory_bytes"]) - int(row["size_bytes"])) / MIB
    return (
        f"{row['plan']:<9} {row['what']:<19} {row['num_sources']:>2} "
        f"{row['num_members']:>4} {row['seconds']:>8.3f} "
        f"{row['ratio_to_bound']:>12.3f} "
        f"{row['coverage_seconds'] / row['seconds']:>9.2f} "
        f"{row['ratio_to_undisturbed']:>7.3f} {row['own_seconds']:>4.2f} "
        f"{row['num_plans']:>6} {over:>9.1f}"
    )


def _rate(options: argparse.Namespace) -> float:
    return mbit_to_bytes_per_s(options.link_mbit_s)


def _run_on_loopback(options: argparse.Namespace) -> int:
    """Starts every member as a process of this machine."""
    counts = [int(count) for count in options.num_members.split(",")]
    num_processes = max(counts) + (options.join is not None)
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
    add("--num_members", default=every, help="sources included")
    add("--sources", type=int, default=1, help="so many hold the model at the start")
    add("--kill", type=_member_at, metavar="MEMBER@SHARE", help="kill -9 it then")
    add("--join", type=float, help="one more joins when others hold this share")
    add("--slow", type=_member_at, metavar="MEMBER@MBIT_S", help="its link is slow")
    add("--size_mib", type=int, default=64, help="the model")
    add("--chunk_kib", type=int, default=0, help="0: as core/chunks.py has it")
    add("--link_mbit_s", type=float, default=float(rate[1]) if rate else 400.0)
    add("--repeats", type=int, default=3)
    add("--json", default="", help="where rank 0 writes the rows")
    add("--members", default=os.environ.get("NET_LAB_IPS", "") if node else "")
    add("--rank", type=int, default=int(node or 0))
    add("--port", type=int, default=47_100, help="rank k listens at port + k")
    add("--emulate", action="store_true", help="shape the links in the transport")
    add("--is_child", action="store_true", help="the member that may be killed")
    add("--is_restarted", action="store_true", help="it was")
    return parser.parse_args()


def _member_at(text: str) -> tuple[int, float]:
    """`3@0.5` as (3, 0.5); a `w` before and `mbit` after do no harm."""
    found = re.fullmatch(r"w?(\d+)@([\d.]+)(mbit)?", text)
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError("give a member but 0, as in 3@0.5")
    return int(found[1]), float(found[2])


if __name__ == "__main__":
    sys.exit(main())
