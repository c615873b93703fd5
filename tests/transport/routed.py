"""What hands all that concerns plans to a `PlanRouter`, for members in tests."""

from jscale.core.errors import PeerLostError
from jscale.transport.base import Handler
from jscale.transport.multicast import MulticastObserver
from jscale.transport.plan_router import PlanRouter


class Routed(Handler, MulticastObserver):
    """A member's handler and observer; subclasses say what they want to know."""

    def __init__(self):
        self.router = PlanRouter()

    def opened(self, connection):
        self.router.opened(connection)

    def landing(self, plan):
        return self.router.landing(plan)

    def message(self, connection, header, payload):
        raise AssertionError("nobody sends messages here")

    def announced(self, connection, plan, held):
        self.router.announced(connection, plan, held)

    def asked(self, connection, plan, chunk):
        self.router.asked(connection, plan, chunk)

    def lost(self, connection, error: PeerLostError):
        self.router.lost(connection)

    def chunk_landed(self, plan, chunk, region):
        pass

    def peer_lost(self, plan, peer):
        pass
