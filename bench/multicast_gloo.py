"""One rank of a `torch.distributed` gloo broadcast, for comparison."""

import argparse
import json
import os
import socket
import time

from multicast_memory import peak_memory_bytes


def main() -> None:
    """Broadcasts once and prints the seconds, barrier to barrier."""
    parser = argparse.ArgumentParser()
    for name in ("host", "address"):
        parser.add_argument(f"--{name}")
    for name in ("port", "rank", "num_members", "size_bytes"):
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args()
    os.environ["GLOO_SOCKET_IFNAME"] = _interface_of(options.address)

    import torch
    from torch import distributed

    distributed.init_process_group(
        "gloo",
        init_method=f"tcp://{options.host}:{options.port}",
        rank=options.rank,
        world_size=options.num_members,
    )
    data = torch.zeros(options.size_bytes, dtype=torch.uint8)
    distributed.broadcast(torch.zeros(1), src=0)
    distributed.barrier()
    started_s = time.monotonic()
    distributed.broadcast(data, src=0)
    distributed.barrier()
    seconds = time.monotonic() - started_s
    print(json.dumps({"seconds": seconds, "peak_memory_bytes": peak_memory_bytes()}))
    distributed.destroy_process_group()


def _interface_of(address: str) -> str:
    """The network interface that gloo must use to be reached at the address."""
    if address.startswith("127."):
        return "lo"
    names = [name for _, name in socket.if_nameindex() if name != "lo"]
    return names[0]


if __name__ == "__main__":
    main()
