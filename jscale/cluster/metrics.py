"""A worker's numbers for Prometheus, read when somebody asks for them."""

import threading
from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIServer

import prometheus_client
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from jscale.cluster.data_path import COPIED
from jscale.cluster.traffic import Traffic
from jscale.core.errors import ConfigError
from jscale.store.arena import Arena, StagingCounts


class WorkerCollector(Collector):
    """What of a worker is worth watching; looked up when it is asked for."""

    def __init__(
        self,
        worker: str,
        traffic: Traffic,
        find_arena: Callable[[], tuple[Arena, str] | None],
    ) -> None:
        """`find_arena` gives the arena and its data path once there is a model."""
        self._worker, self._traffic, self._find_arena = worker, traffic, find_arena

    def collect(self) -> Iterator[Metric]:
        """All families, as they are now."""
        arena, data_path = self._find_arena() or (None, "")
        path, _, reason = data_path.partition(": ")
        staging = arena.staging if arena else StagingCounts()
        about = InfoMetricFamily("jscale_data_path", "How chunks come to the blocks.")
        about.add_metric([], {"worker": self._worker, "path": path, "reason": reason})
        yield about
        registered = GaugeMetricFamily(
            "jscale_registered_bytes", "Memory that the transport was told of."
        )
        told_bytes = _registered_bytes(arena) if arena and path != COPIED else 0
        registered.add_metric([], told_bytes)
        yield registered
        traffic = self._traffic
        for name, text, value in (
            ("received_chunks", "Chunks from peers.", traffic.num_received),
            ("received_bytes", "Bytes of these.", traffic.received_bytes),
            ("sent_chunks", "Chunks given to connections.", traffic.num_sent),
            ("sent_bytes", "Bytes of these.", traffic.sent_bytes),
            (
                "failed_chunks",
                "Chunks that came damaged (CRC32C) or were cut off.",
                traffic.num_failed,
            ),
            (
                "staging_waits",
                "Slots of pinned memory that a copy had to be waited for.",
                staging.num_waits,
            ),
            (
                "staging_spares",
                "Slots of ordinary memory, as all others were held.",
                staging.num_spares,
            ),
        ):
            counter = CounterMetricFamily(f"jscale_{name}", text, labels=("path",))
            counter.add_metric([path], value)
            yield counter


def _registered_bytes(arena: Arena) -> int:
    device = arena.device_memory if arena.is_direct else None
    return arena.host_memory.nbytes + (device.nbytes if device else 0)


class MetricsServer:
    """`http://HOST:PORT/metrics`, from a thread of its own, until `close`."""

    def __init__(self, collector: Collector, host: str, port: int) -> None:
        """Port 0 takes a free one.

        Raises:
          ConfigError: the address cannot be listened on.
        """
        registry = prometheus_client.CollectorRegistry()
        registry.register(collector)
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            self._server, self._thread = prometheus_client.start_http_server(
                port, host.strip("[]"), registry
            )
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"metrics_port is {port}: {host}:{port} cannot be listened on "
                f"({error}); give another, or 0 for a free one"
            ) from error
        self.address = f"http://{host}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Ends the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
