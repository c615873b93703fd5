"""Links of a net-lab that change while the benchmark runs, and members that restart."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from multiprocessing.connection import Client, Listener

CONTROL = "JSCALE_BENCH_CONTROL"
"""Where rank 0, in a network namespace, asks the machine itself to shape a link."""


def run_on_nodes() -> int:
    """Runs this benchmark on every node of the net-lab; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "control")
        with Listener(path, "AF_UNIX") as listener:
            threading.Thread(target=_serve, args=(listener,), daemon=True).start()
            command = ["on-nodes", sys.executable, *sys.argv]
            environment = os.environ | {CONTROL: path}
            return subprocess.run(command, env=environment, check=False).returncode


def set_rate(rank: int, bytes_per_s: float) -> None:
    """Shapes the link of a node, from any other."""
    with Client(os.environ[CONTROL], "AF_UNIX") as connection:
        connection.send((rank, bytes_per_s))
        if connection.recv():
            raise OSError(f"the link of node {rank} could not be shaped")


def _serve(listener: Listener) -> None:
    """Until the listener is closed."""
    with contextlib.suppress(OSError):
        while True:
            with contextlib.suppress(EOFError), listener.accept() as connection:
                rank, bytes_per_s = connection.recv()
                rate = f"{round(8 * bytes_per_s)}bit"
                done = subprocess.run(["set-rate", str(rank), rate], check=False)
                connection.send(done.returncode)


def restart_when_killed() -> int:
    """Runs a member in a process of its own, anew when that is killed."""
    restarted: list[str] = []
    while True:
        command = [sys.executable, *sys.argv, "--is_child", *restarted]
        process = subprocess.Popen(command)
        try:
            status = process.wait()
        finally:
            process.kill()
        if status != -signal.SIGKILL:
            return abs(status)
        restarted = ["--is_restarted"]
