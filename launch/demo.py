"""`make demo`: one worker becomes four while it serves, in this terminal."""

import sys

from absl import flags, logging
from rich.console import Console

import jscale
from jscale.cluster.config import CACHE_DIR
from jscale.launch import mains
from jscale.server.demo import DemoConfig, run_demo


def define_flags() -> None:
    """One flag for each field of `DemoConfig`."""
    flags.DEFINE_string("model", jscale.BUNDLED_MODEL, "Model to serve: a directory.")
    flags.DEFINE_string("cache_dir", CACHE_DIR, "Where converted models are kept.")
    flags.DEFINE_integer("num_workers", 4, "Workers at the end; one at the start.")
    flags.DEFINE_integer(
        "num_clients",
        56,
        "Clients, each with a request in flight: over one's capacity.",
    )
    flags.DEFINE_float("seconds", 6.0, "Steady serving before the scale-out and after.")
    flags.DEFINE_float("scale_timeout_s", 120.0, "Seconds the scale-out may take.")
    flags.DEFINE_integer("max_tokens", 96, "Tokens of a story: two seconds or so.")
    flags.DEFINE_float(
        "link_mbit_s",
        3.0,
        "Emulated rate of a worker's link, Mbit/s: slow enough to watch blocks arrive.",
    )
    flags.DEFINE_integer(
        "emulate_layer_us",
        6000,
        "Microseconds that a layer takes at least, by waiting: on two cores, four "
        "workers then behave as four accelerators would.",
    )


def main(arguments: list[str]) -> None:
    """Plays, sums up, and exits 0 only if every token was right."""
    mains.expect_no_arguments(arguments)
    logging.set_verbosity(logging.ERROR)
    config = mains.config_from_flags(DemoConfig)
    report = run_demo(config)
    console = Console()
    console.print(report.render())
    emulated = (
        f"{config.link_mbit_s:g} Mbit/s links, {config.emulate_layer_us} us layers"
    )
    console.print(
        f"[dim]emulated: {emulated}; the figures show the shape, not the speed[/dim]",
        highlight=False,
    )
    if not report.is_right:
        sys.exit(1)


def run() -> None:
    """The command."""
    mains.run(define_flags, main)


if __name__ == "__main__":
    run()
