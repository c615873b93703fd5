"""`ib_write_bw` of perftest between two RDMA ports of this machine."""

import re
import resource
import subprocess
import time

from transport_ways import Sample, Watch, Way

PORT = 18515
START_S = 10.0
"""How long its server may take until it listens."""


class Perftest(Way):
    """One-sided writes of one buffer, again and again, which nobody checks.

    Its rate is that which it measures itself, from the first write to the last
    completion; its processor time is that of both processes, start included.
    """

    name = "ib_write_bw"

    def __init__(self, sender, receiver, size_bytes):
        """Between two `RdmaPort`s."""
        self._sender, self._receiver = sender, receiver
        self._size_bytes = size_bytes

    def move(self, chunk_size_bytes):
        """See `Way`."""
        num_writes = max(5, self._size_bytes // chunk_size_bytes)
        before_s = _children_seconds()
        with Watch() as watch:
            server = self._start(self._receiver, chunk_size_bytes, num_writes)
            try:
                said = self._ask(chunk_size_bytes, num_writes)
                server.communicate(timeout=START_S)
            finally:
                server.kill()
                server.wait()
        bytes_per_s = _average(said) * 1e9 / 8
        moved = num_writes * chunk_size_bytes
        cpu_s = _children_seconds() - before_s
        return Sample(moved, moved / bytes_per_s, cpu_s, 0.0, watch.machine_cpu_s)

    def _ask(self, chunk_size_bytes, num_writes):
        """What the client prints, once the server listens."""
        deadline_s = time.monotonic() + START_S
        host = self._receiver.gid.host
        while True:
            client = self._start(self._sender, chunk_size_bytes, num_writes, host)
            said, complained = client.communicate()
            if client.returncode == 0:
                return said
            if time.monotonic() > deadline_s:
                raise SystemExit(f"ib_write_bw: {complained or said}")
            time.sleep(0.1)

    def _start(self, port, chunk_size_bytes, num_writes, *host):
        command = ["ib_write_bw", "--report_gbits", "--CPU-freq", f"--port={PORT}"]
        command += [f"--ib-dev={port.device}", f"--ib-port={port.port}"]
        command += [f"--gid-index={port.gid_index}", f"--size={chunk_size_bytes}"]
        command += [f"--iters={num_writes}", *host]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


def _average(said):
    """The column of average Gbit/s in the one row of figures.

    #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]
    65536      1000             9.81               9.62   0.018
    """
    rows = re.findall(r"^\s*\d+\s+\d+\s+[\d.]+\s+([\d.]+)\s", said, re.MULTILINE)
    if len(rows) != 1:
        raise SystemExit(f"ib_write_bw said: {said}")
    return float(rows[0])


def _children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
