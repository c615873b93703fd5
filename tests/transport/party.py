"""Workers with a transport and chunks each, which take part in multicasts."""

import queue

from jscale.core.ids import PlanId, WorkerId
from jscale.plan import multicast
from jscale.transport.chunk_memory import ChunkMemory
from jscale.transport.multicast import MulticastMember
from tests.transport.routed import Routed

PATIENCE_S = 20.0
CHUNK_SIZE_BYTES = 4096
NUM_CHUNKS = 24
PLAN = PlanId(3)


class Peer(Routed):
    """One worker: its transport, its memory, and what it was told."""

    def __init__(self, net, name, **options):
        super().__init__()
        self.name = WorkerId(name)
        self.accepted = queue.Queue()
        self.memory = ChunkMemory(NUM_CHUNKS * CHUNK_SIZE_BYTES, CHUNK_SIZE_BYTES)
        self.transport = net.open(name, **options)
        self.transport.register(self.memory.pin())
        self.address = self.transport.listen(net.any_address, self).address
        self.outcomes = queue.Queue()
        self.landed_chunks = []
        self.regions = []
        self.peers_lost = queue.Queue()
        self.on_chunk = lambda chunk: None
        self.member = None

    def connect(self, other):
        """Returns when both sides have the connection."""
        self.router.opened(self.transport.connect(other.address, self))
        assert other.accepted.get(timeout=PATIENCE_S) == self.name

    def join(self, plan, plan_id=PLAN, **options):
        self.member = MulticastMember(
            plan_id, plan, self.name, self.memory, self, **options
        )
        self.router.add(self.member)
        self.member.start()

    def follow(self, plan, plan_id):
        self.router.follow(self.member, plan_id, plan)

    def outcome(self):
        return self.outcomes.get(timeout=PATIENCE_S)

    def opened(self, connection):
        self.router.opened(connection)
        self.accepted.put(connection.peer)

    def chunk_landed(self, plan, chunk, region):
        self.landed_chunks.append(chunk)
        if region is not None:
            self.regions.append(region)
        self.on_chunk(chunk)

    def peer_lost(self, plan, peer):
        self.peers_lost.put(peer)

    def ended(self, outcome):
        self.outcomes.put(outcome)


def plan_for(peers, kind="binomial"):
    names = [peer.name for peer in peers]
    return multicast(names[:1], names[1:], NUM_CHUNKS, kind=kind)
