"""One member of a multicast of a block store: python -m tests.rdma.member.

Prints its address, reads those of all, takes part, verifies every block, and prints the
digests of what lies in its arena; then it waits to be let go, as others may ask it for
chunks. A line of JSON each. Rank 0 is the source.
"""

import hashlib
import json
import queue
import sys

from jscale.core.ids import PlanId, WorkerId
from jscale.plan import multicast
from jscale.store.block_store import BlockStore, region_of
from jscale.store.manifest import Manifest
from jscale.transport.base import Hello
from jscale.transport.multicast import MulticastMember
from jscale.transport.rdma_options import RdmaOptions
from jscale.transport.registry import open_transport
from tests.transport.routed import Routed

PATIENCE_S = 60.0
PLAN = PlanId(1)


class Member(Routed):
    """Holds a block store, and connections to the other members."""

    def __init__(self, rank: int, scheme: str, devices: tuple[str, ...], path: str):
        super().__init__()
        self.name = WorkerId(f"w{rank}")
        self.ends = queue.Queue()
        self.store = BlockStore(Manifest.load(path), executables_size_bytes_max=4096)
        if rank == 0:
            for block in range(self.store.manifest.num_blocks):
                self.store.load(block, path)
        self.transport = open_transport(
            f"{scheme}://", Hello(self.name, b"secret"), rdma=RdmaOptions(devices)
        )
        self.store.arena.stay_in_place()
        self.transport.register(self.store.arena.host_memory)
        self.address = self.transport.listen(f"{scheme}://127.0.0.1:0", self).address

    def take_part(self, addresses: list[str], rank: int) -> None:
        """Connects to those before it, and returns when it has every chunk."""
        for address in addresses[:rank]:
            self.router.opened(self.transport.connect(address, self))
        names = [WorkerId(f"w{other}") for other in range(len(addresses))]
        plan = multicast(names[:1], names[1:], self.store.chunks.num_chunks)
        self.member = MulticastMember(PLAN, plan, self.name, self.store, self)
        self.router.add(self.member)
        self.member.start()
        outcome = self.ends.get(timeout=PATIENCE_S)
        assert outcome.num_missing == 0, outcome

    def digests(self, *, is_source: bool) -> list[str]:
        """SHA-256 of each block as it lies here, checked against the manifest's."""
        chunks, found = self.store.chunks, []
        for block in range(self.store.manifest.num_blocks):
            if not is_source:
                self.store.verify(block)
            region = region_of(block)
            start = chunks.region_offset_bytes(region)
            size_bytes = chunks.region_sizes_bytes[region]
            lying = self.store.arena.host_memory[start : start + size_bytes]
            found.append(hashlib.sha256(lying).hexdigest())
        return found

    def close(self) -> None:
        """Leaves, and gives everything back."""
        self.member.close()
        self.transport.close()
        self.store.close()

    def ended(self, outcome):
        self.ends.put(outcome)


def run(rank: int, scheme: str, devices: str, path: str) -> None:
    member = Member(rank, scheme, tuple(filter(None, devices.split(","))), path)
    print(json.dumps(member.address), flush=True)
    member.take_part(json.loads(sys.stdin.readline()), rank)
    print(json.dumps(member.digests(is_source=rank == 0)), flush=True)
    sys.stdin.readline()
    member.close()
    print(json.dumps("closed"), flush=True)


if __name__ == "__main__":
    run(int(sys.argv[1]), *sys.argv[2:])
