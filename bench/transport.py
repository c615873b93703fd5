"""What transports carry, and what that costs the processors, against bare means.

Two processes on processors of their own, as two machines have. One sends the chunks of
its memory to the other, which has them where they belong, checked; the same bytes by
bare sockets, which check nothing, by bare sockets with the same checksums, and by
`ib_write_bw` on the same devices where there is RDMA; and copied within a process. All
in turn, again and again, so that what else the machine does falls on all alike.

    python bench/transport.py
    python bench/transport.py --chunk_kib=256 --repeats=31 --json=out.json
    python bench/transport.py --sender=10.77.0.1 --receiver=10.77.0.2   # with RDMA
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import statistics

from transport_perftest import Perftest
from transport_ways import Copy, Sample, Sender, Way

from jscale.core.errors import JscaleError
from jscale.core.units import KIB, MIB
from jscale.transport.choice import TransportChoice, choose_transport

BARE = {
    "mem": "memcpy",
    "checked": "sockets",
    "tcp": "sockets",
    "rdma": "ib_write_bw",
}
"""What each transport is compared with."""

CHUNKS_KIB = (64, 256, 1024, 4096, 8192)

QUIET = 0.2
"""Processors that others may use. The system counts in hundredths of a second, which
are a tenth of a sample."""


@dataclasses.dataclass(frozen=True)
class Case:
    """All samples of one way with one size of chunks."""

    way: str
    chunk_size_bytes: int
    samples: list[Sample]

    @property
    def rates(self):
        """GB/s of each sample."""
        return [sample.bytes_per_s / 1e9 for sample in self.samples]

    def cpu_s_per_gib(self, side):
        """Median processor time for a GiB; side: sender or receiver."""
        return statistics.median(
            getattr(sample, f"{side}_cpu_s") * (1 << 30) / sample.size_bytes
            for sample in self.samples
        )


def main():
    arguments = parsed()
    choices = choose(arguments)
    size_bytes = arguments.mib * MIB
    ways: list[Way] = [Copy(size_bytes)]
    with Sender(
        choices,
        size_bytes,
        pins=not arguments.no_pin,
        checks=not arguments.no_checksums,
    ) as sender:
        ways += sender.ways
        if choices[0].scheme == "rdma":
            ways.append(Perftest(choices[0].ports[0], choices[1].ports[0], size_bytes))
        ways = [way for way in ways if way.name not in arguments.without.split(",")]
        cases = [
            case
            for chunk_kib in map(int, arguments.chunk_kib.split(","))
            for case in measure(ways, chunk_kib * KIB, arguments)
        ]
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(as_json(cases, choices)))


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = ",".join(map(str, CHUNKS_KIB))
    parser.add_argument("--chunk_kib", default=sizes, help="sizes of chunks, KiB")
    parser.add_argument("--mib", type=int, default=256, help="MiB of one sample")
    parser.add_argument("--repeats", type=int, default=15, help="samples of each way")
    parser.add_argument(
        "--patience",
        type=int,
        default=4,
        help="times as many turns as are wanted, until the quietest have to do",
    )
    parser.add_argument("--sender", default="127.0.0.1", help="its address")
    parser.add_argument("--receiver", default="127.0.0.1", help="its address")
    parser.add_argument("--transport", default="auto", help="auto, tcp or rdma")
    parser.add_argument("--without", default="", help="ways to leave out: mem,memcpy")
    parser.add_argument(
        "--no_pin", action="store_true", help="processes may share processors"
    )
    parser.add_argument(
        "--no_checksums", action="store_true", help="leave them out: what do they cost?"
    )
    parser.add_argument("--json", help="file for the figures")
    return parser.parse_args()


def choose(arguments) -> tuple[TransportChoice, TransportChoice]:
    """What data goes by, for sender and receiver."""
    try:
        found = tuple(
            choose_transport(f"{host}:0", arguments.transport)
            for host in (arguments.sender, arguments.receiver)
        )
    except JscaleError as error:
        raise SystemExit(f"transport: {error}") from error
    print(f"{found[0].scheme}: {found[0].reason}", flush=True)
    return found


def measure(ways, chunk_size_bytes, arguments):
    """A case of each way, measured in turn, and printed.

    While others use the processors it goes on, and keeps the quietest turns.
    """
    for way in ways:
        way.move(chunk_size_bytes)  # Pages, windows and caches are warm from now on.
    turns, repeats = [], arguments.repeats
    while len(turns) < arguments.patience * repeats:
        first = len(turns) % len(ways)  # Each comes after each other way in turn.
        order = ways[first:] + ways[:first]
        turns.append({way.name: way.move(chunk_size_bytes) for way in order})
        if sum(disturbance(turn) <= QUIET for turn in turns) == repeats:
            break
    turns.sort(key=disturbance)
    num_turns, turns = len(turns), turns[:repeats]
    print(
        f"\nchunks of {chunk_size_bytes // KIB} KiB, {repeats} of {num_turns} turns; "
        f"others used up to {disturbance(turns[-1]):.1f} processors meanwhile"
    )
    samples = {way.name: [turn[way.name] for turn in turns] for way in ways}
    cases = {
        name: Case(name, chunk_size_bytes, taken) for name, taken in samples.items()
    }
    for case in cases.values():
        print(line(case, cases.get(BARE.get(case.way, ""))), flush=True)
    return list(cases.values())


def disturbance(turn):
    """How many processors others used, in the most disturbed sample of a turn."""
    return max(sample.others for sample in turn.values())


def line(case, bare):
    """One way: rate, spread, processor time, and the ratio to its bare means."""
    low, median, high = quartiles(case.rates)
    text = (
        f"  {case.way:12} {median:6.3g} GB/s ({low:.3g} to {high:.3g})  CPU s/GiB: "
        f"{case.cpu_s_per_gib('sender'):.2f} sent, "
        f"{case.cpu_s_per_gib('receiver'):.2f} received"
    )
    if bare is None:
        return text
    low, median, high = quartiles(ratios(case, bare))
    return f"{text}  {median:.0%} of {bare.way} ({low:.0%} to {high:.0%})"


def ratios(case, bare):
    """Rate over rate, of samples that were taken one after the other."""
    return [one / other for one, other in zip(case.rates, bare.rates, strict=True)]


def quartiles(values):
    """The middle half, and its middle."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    return statistics.quantiles(values, n=4, method="inclusive")


def as_json(cases, choices):
    """Everything that was measured, and where."""
    by_name = {(case.way, case.chunk_size_bytes): case for case in cases}
    return {
        "machine": {
            "processors": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "transport": [dataclasses.asdict(choice) for choice in choices],
        "cases": [
            {
                "way": case.way,
                "chunk_size_bytes": case.chunk_size_bytes,
                "gb_per_s": statistics.median(case.rates),
                "quartiles_gb_per_s": quartiles(case.rates),
                "sender_cpu_s_per_gib": case.cpu_s_per_gib("sender"),
                "receiver_cpu_s_per_gib": case.cpu_s_per_gib("receiver"),
                "of_bare": statistics.median(ratios(case, bare)) if bare else None,
                "samples": [dataclasses.asdict(sample) for sample in case.samples],
            }
            for case in cases
            for bare in [by_name.get((BARE.get(case.way), case.chunk_size_bytes))]
        ],
    }


if __name__ == "__main__":
    main()
