"""How busy a link is."""

import socket

from jscale.cluster.link_meter import LinkCount, LinkMeter
from jscale.transport.pacing import LinkPacer
from jscale.transport.rdma_devices import list_ports
from tests.transport.fake_sysfs import add_device, roce, soft_roce


def test_a_link_is_as_busy_as_what_crossed_it_in_each_direction() -> None:
    before = LinkCount(0, 1000, 500)
    after = LinkCount(2_000_000_000, 1000 + 60_000, 500 + 500_000)
    assert after.busy_since(before, 100_000) == (0.3, 1.0)
    assert before.busy_since(LinkCount(-1, 1000, 500), 100_000) == (0.0, 0.0)


def test_an_emulated_link_is_counted_where_it_is_emulated() -> None:
    pacer = LinkPacer(1000)
    meter = LinkMeter("tcp://127.0.0.1:1", rate_mbit_s=8.0, pacer=pacer)
    assert meter.rate_bytes_per_s == 1_000_000
    pacer.outgoing.delay_ns(300, 0)
    pacer.incoming.arrival_delay_ns(20, 0)
    assert meter.read(5) == LinkCount(5, 300, 20)


def test_a_link_of_which_no_rate_is_known_is_not_measured() -> None:
    for address in ("tcp://127.0.0.1:1", "tcp://no.such.host.invalid:1", "mem://w0"):
        meter = LinkMeter(address, rate_mbit_s=None, pacer=None)
        assert meter.rate_bytes_per_s == 0
        assert meter.read(0) is None


def test_what_goes_by_rdma_is_counted_at_the_ports(tmp_path) -> None:
    for number, rate in enumerate(("100 Gb/sec (4X EDR)", "25 Gb/sec (1X EDR)")):
        add_device(tmp_path, f"mlx5_{number}", roce("10.0.0.2", rate=rate))
        counters = tmp_path / f"class/infiniband/mlx5_{number}/ports/1/counters"
        counters.mkdir()
        (counters / "port_xmit_data").write_text(f"{1000 + number}\n")
        (counters / "port_rcv_data").write_text("10\n")
    meter = LinkMeter(
        "rdma://127.0.0.1:1",
        rate_mbit_s=None,
        pacer=None,
        ports=list_ports(tmp_path),
        sysfs=tmp_path,
    )
    assert meter.rate_bytes_per_s == 125e9 / 8
    assert meter.read(5) == LinkCount(5, 4 * 2001, 4 * 20)


def test_ports_that_do_not_count_are_not_measured(tmp_path) -> None:
    add_device(tmp_path, "rxe0", soft_roce("10.77.0.1", "node0"))
    ports = list_ports(tmp_path)
    meter = LinkMeter(
        "rdma://h:1", rate_mbit_s=None, pacer=None, ports=ports, sysfs=tmp_path
    )
    assert meter.read(5) is None


def test_the_kernel_counts_what_crosses_a_real_link() -> None:
    meter = LinkMeter("tcp://127.0.0.1:1", rate_mbit_s=1000, pacer=None)
    before = meter.read(7)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as sender,
        server.accept()[0] as receiver,
    ):
        sender.sendall(bytes(100_000))
        received = 0
        while received < 100_000:
            received += len(receiver.recv(1 << 16))
    after = meter.read(8)
    assert before is not None
    assert after is not None
    assert (before.now_ns, after.now_ns) == (7, 8)
    assert after.sent_bytes - before.sent_bytes >= 100_000
    assert after.received_bytes - before.received_bytes >= 100_000
