"""`jscale-doctor`: what this machine offers to a worker."""

import json

from absl import flags
from rich.console import Console

from jscale.cluster.config import CACHE_DIR
from jscale.doctor.examine import DoctorConfig, examine
from jscale.doctor.findings import as_json
from jscale.doctor.screen import show
from jscale.launch import mains, transport_flags


def define_flags() -> None:
    """What a worker would be told, and how to tell what was found."""
    flags.DEFINE_string(
        "host", "", "Address that others would know it by; none: tries each of its own."
    )
    transport_flags.define()
    flags.DEFINE_string("cache_dir", CACHE_DIR, "Where converted models would go.")
    flags.DEFINE_boolean("json", False, "Print JSON, for programs.")


def main(arguments: list[str]) -> None:
    """Looks at everything, and tells it."""
    mains.expect_no_arguments(arguments)
    values = flags.FLAGS
    config = DoctorConfig(
        transport=values.transport,
        rdma=transport_flags.rdma_options(),
        host=values.host,
        cache_dir=values.cache_dir,
    )
    console = Console(stderr=True)
    with console.status("looking; a first look at accelerators takes some seconds"):
        sections = examine(config)
    if values.json:
        print(json.dumps(as_json(sections), indent=2, ensure_ascii=False))
    else:
        show(sections, Console())


def run() -> None:
    """The command."""
    mains.run(define_flags, main)


if __name__ == "__main__":
    run()
