import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jscale.cluster.metrics import MetricsServer, WorkerCollector
from jscale.cluster.traffic import CountedChunks, Traffic
from jscale.core.errors import ConfigError
from jscale.store.arena import ArenaSizes
from jscale.store.device_arena import DeviceArena
from jscale.store.device_memory import DeviceMemoryError
from jscale.store.emulated_memory import EmulatedMemory
from jscale.store.host_arena import HostArena
from jscale.transport.chunk_memory import ChunkMemory

SIZES = ArenaSizes(blocks_bytes=16384, host_bytes=4096, chunk_bytes=4096)


def scraped(collector):
    """Every sample: name -> (labels, value)."""
    server = MetricsServer(collector, "127.0.0.1", 0)
    try:
        with urllib.request.urlopen(server.address) as answer:
            text = answer.read().decode()
    finally:
        server.close()
    return {
        sample.name: (sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_comes_and_goes_is_counted():
    traffic = Traffic()
    store = CountedChunks(ChunkMemory(10_000, 4096), traffic, lambda error: None)
    for chunk in (0, 2):
        assert store.slot(chunk) is not None
        store.landed(chunk)
    assert store.slot(0) is None
    store.slot(1)
    store.failed(1)
    store.chunk_bytes(2)
    store.chunk_bytes(2)
    assert (traffic.num_received, traffic.received_bytes) == (2, 4096 + 1808)
    assert (traffic.num_sent, traffic.sent_bytes) == (2, 2 * 1808)
    assert traffic.num_failed == 1
    assert store.held_chunks() == b"\x05"


def test_a_device_that_fails_is_told_and_the_connection_sees_it():
    class Broken(ChunkMemory):
        def slot(self, chunk):
            raise DeviceMemoryError("the GPU fell off the bus")

        chunk_bytes = slot

    told = []
    store = CountedChunks(Broken(8192, 4096), Traffic(), told.append)
    for use in (store.slot, store.chunk_bytes):
        with pytest.raises(DeviceMemoryError):
            use(0)
    assert [str(error) for error in told] == ["the GPU fell off the bus"] * 2


def test_every_number_is_told_with_its_path():
    traffic = Traffic()
    traffic.received(1000)
    traffic.sent(300)
    traffic.failed()
    arena = DeviceArena(EmulatedMemory(), SIZES, slots_in=1, slots_out=1)
    slots = [arena.host_slot(0, 4096), arena.host_slot(4096, 4096)]
    told = scraped(WorkerCollector("w0", traffic, lambda: (arena, "staged: no NIC")))
    about = {"worker": "w0", "path": "staged", "reason": "no NIC"}
    assert told["jscale_data_path_info"] == (about, 1)
    assert told["jscale_received_bytes_total"] == ({"path": "staged"}, 1000)
    assert told["jscale_received_chunks_total"] == ({"path": "staged"}, 1)
    assert told["jscale_sent_bytes_total"] == ({"path": "staged"}, 300)
    assert told["jscale_failed_chunks_total"] == ({"path": "staged"}, 1)
    assert told["jscale_staging_spares_total"] == ({"path": "staged"}, 1)
    assert told["jscale_registered_bytes"] == ({}, 3 * 4096)
    del slots
    for offset_bytes in (0, 4096):
        arena.failed(offset_bytes)
    arena.close()


def test_memory_of_the_device_is_registered_where_the_transport_reaches_it():
    arena = DeviceArena(EmulatedMemory(), SIZES, slots_in=1, slots_out=1)
    arena.reach_directly()
    told = scraped(WorkerCollector("w0", Traffic(), lambda: (arena, "dmabuf")))
    assert told["jscale_registered_bytes"] == ({}, 3 * 4096 + 16384)
    arena.close()


def test_memory_that_could_not_be_registered_is_not():
    arena = HostArena(SIZES)
    why = "copied: memory may not be locked"
    told = scraped(WorkerCollector("w0", Traffic(), lambda: (arena, why)))
    assert told["jscale_registered_bytes"] == ({}, 0)
    arena.close()


def test_a_worker_without_a_model_has_numbers_too():
    told = scraped(WorkerCollector("w0", Traffic(), lambda: None))
    assert told["jscale_registered_bytes"] == ({}, 0)
    assert told["jscale_received_bytes_total"] == ({"path": ""}, 0)


def test_a_port_that_cannot_be_is_a_clear_error():
    collector = WorkerCollector("w0", Traffic(), lambda: None)
    with pytest.raises(ConfigError, match="metrics_port is 70000"):
        MetricsServer(collector, "127.0.0.1", 70000)


def test_an_address_of_ipv6_is_listened_on():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    collector = WorkerCollector("w0", Traffic(), lambda: None)
    server = MetricsServer(collector, "[::1]", 0)
    with urllib.request.urlopen(server.address) as answer:
        assert b"jscale_registered_bytes" in answer.read()
    server.close()


def test_a_port_in_use_is_a_clear_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"metrics_port is {port}"):
            MetricsServer(
                WorkerCollector("w0", Traffic(), lambda: None), "127.0.0.1", port
            )
