"""A request on its way: what is needed to go on with it anywhere."""

import dataclasses
from collections.abc import Collection

from jscale.cluster.gateway_messages import Replica
from jscale.core.ids import SequenceId
from jscale.engine.request import Request
from jscale.pipeline.messages import KvTicket


@dataclasses.dataclass
class LiveSequence:
    """Progress of one request as its gateway knows it; owned by the `Router`.

    Attributes:
      arrival: counts the requests of this gateway: who came first goes first, also
        when a replica gave it back.
      attempt: how often it was handed over.
      generated: the tokens that the client was given, in order.
      replica: where it runs; None while it waits.
      kv: where the replica that gave it back left its KV, for the next one.
      num_fruitless: hand-overs in a row that brought no token.
    """

    sequence: SequenceId
    request: Request
    arrival: int
    attempt: int = 0
    generated: list[int] = dataclasses.field(default_factory=list)
    replica: Replica | None = None
    kv: KvTicket | None = None
    num_fruitless: int = 0

    def finish_reason(self, eos_token_ids: Collection[int]) -> str | None:
        """Why nothing is left to generate; None if something is.

        Asked when the replica was lost after the last token and before it could say
        that this was the last.
        """
        sampling = self.request.sampling
        if self.generated and (
            self.generated[-1] in sampling.stop_token_ids
            or (self.generated[-1] in eos_token_ids and not sampling.ignore_eos)
        ):
            return "stop"
        return "length" if len(self.generated) >= sampling.max_tokens else None
