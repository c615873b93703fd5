"""`jscale-scale N`: changes the number of workers, and watches until they serve."""

from absl import flags

from jscale.core.errors import ConfigError
from jscale.launch import mains
from jscale.server.client import Client
from jscale.server.scale_out import ScaleOut
from jscale.server.snapshot import status_line


def define_flags() -> None:
    """Where the gateway is, and how long to watch."""
    flags.DEFINE_string(
        "address", "127.0.0.1:8480", "HOST:PORT of a gateway, or several: A,B."
    )
    flags.DEFINE_boolean("wait", True, "Return when every worker serves by itself.")
    flags.DEFINE_float(
        "timeout_s", 600.0, "Seconds to wait: large models on slow links take minutes."
    )


def main(arguments: list[str]) -> None:
    """Asks for so many workers and prints what changes."""
    if len(arguments) != 1 or not arguments[0].isdigit():
        raise ConfigError(f"{' '.join(arguments)!r}: give the number of workers, 4 say")
    num_workers = int(arguments[0])
    with Client(flags.FLAGS.address) as client:
        before = client.scale_to(num_workers)
        print(f"{before} → {num_workers} workers")
        if not flags.FLAGS.wait:
            return
        last = ""
        scale_out = ScaleOut(client, num_workers)
        for status in scale_out.progress(timeout_s=flags.FLAGS.timeout_s):
            line = status_line(status)
            if line != last:
                print(line, flush=True)
            last = line


def run() -> None:
    """The command."""
    mains.run(define_flags, main)


if __name__ == "__main__":
    run()
