"""What a gateway is told before it starts."""

import dataclasses

from jscale.cluster.config import CACHE_DIR
from jscale.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class GatewayConfig:
    """Where requests come from, where they go, and how long they may wait.

    Attributes:
      model_path: the model that the manager serves, for its tokenizer and bounds.
      manager_address: HOST:PORT of the manager; it may not be there yet.
      cluster_token: the secret that every process of the cluster shows.
      listen_address: HOST:PORT; port 0 takes a free one, told by `ready_file`.
      ready_file: written with the real address once it listens; None writes none.
      cache_dir: where converted checkpoints are.
      max_context: tokens of a sequence at most; None: as the manager does.
      max_queued: requests that wait for a replica at most; more are refused.
      unavailable_after_s: with no replica for so long, requests that wait fail.
      drain_timeout_s: how long running requests may go on after SIGTERM.
    """

    model_path: str
    manager_address: str
    cluster_token: str
    listen_address: str = "127.0.0.1:0"
    ready_file: str | None = None
    cache_dir: str = CACHE_DIR
    max_context: int | None = None
    max_queued: int = 1024
    unavailable_after_s: float = 60.0
    drain_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.model_path:
            raise ConfigError("--model is empty: give the path of a model")
        if not self.manager_address:
            raise ConfigError("--manager is empty: give HOST:PORT of the manager")
        for name in ("max_queued", "unavailable_after_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give more than 0")
        if self.drain_timeout_s < 0:
            raise ConfigError(
                f"drain_timeout_s is {self.drain_timeout_s}: give 0 or more"
            )
