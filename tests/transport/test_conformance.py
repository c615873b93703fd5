"""What every transport must do, for each scheme."""

import random
import threading

import pytest

from jscale.core.errors import ConfigError, PeerLostError, TransportError
from jscale.core.spans import DeviceSpan
from jscale.core.units import KIB, MIB
from jscale.transport.framing import MESSAGE_SIZE_BYTES_MAX
from jscale.transport.pacing import LinkPacer
from jscale.transport.registry import open_transport
from jscale.transport.schemes import scheme_of


def test_both_sides_know_each_other(net):
    (connection, _), (back, _) = net.pair()
    assert (connection.peer, back.peer) == ("b", "a")


def test_messages_keep_their_order_and_their_bytes(net):
    (connection, near), (back, far) = net.pair()
    for number in range(50):
        connection.send_message(b"%d" % number, bytes([number]) * number)
        back.send_message(b"back", b"")
    for number in range(50):
        header, payload = far.next("message")
        assert (header, bytes(payload)) == (b"%d" % number, bytes([number]) * number)
        assert near.next("message")[0] == b"back"


def test_a_payload_may_be_changed_once_it_is_sent(net):
    (connection, _), (_, far) = net.pair()
    payload = bytearray(b"before" * 1000)
    connection.send_message(b"", payload)
    payload[:] = b"after!" * 1000
    connection.send_message(b"", payload)
    assert bytes(far.next("message")[1]) == b"before" * 1000
    assert bytes(far.next("message")[1]) == b"after!" * 1000


def test_a_payload_of_many_dimensions_arrives_as_its_bytes(net):
    (connection, _), (_, far) = net.pair()
    payload = memoryview(bytes(range(24))).cast("B", (2, 3, 4))
    connection.send_message(b"", payload)
    assert bytes(far.next("message")[1]) == bytes(range(24))


def test_a_received_payload_belongs_to_the_handler(net):
    (connection, _), (_, far) = net.pair()
    connection.send_message(b"", b"one")
    connection.send_message(b"", b"two")
    first, second = far.next("message")[1], far.next("message")[1]
    first[:] = b"111"
    assert bytes(second) == b"two"


def test_a_chunk_lands_in_its_slot(net):
    (connection, _), (_, far) = net.pair()
    far.landings[7] = shelf = net.shelf(far)
    for chunk in (2, 0):
        connection.write_chunk(7, chunk, memoryview(bytes([chunk + 1]) * 1000))
        assert far.next("landed") == chunk
        assert shelf.bytes_of(chunk) == bytes([chunk + 1]) * 1000
    assert shelf.bytes_of(1) == bytes(1000)


def test_a_chunk_that_is_not_needed_is_dropped(net):
    (connection, _), (_, far) = net.pair()
    far.landings[7] = shelf = net.shelf(far)
    shelf.unwanted = {1}
    chunk = memoryview(b"x" * 1000)
    connection.write_chunk(7, 1, chunk)
    connection.write_chunk(8, 0, memoryview(b"y" * 200_000))
    connection.write_chunk(7, 2, chunk)
    assert far.next("landed") == 2
    assert shelf.bytes_of(1) == bytes(1000)


@pytest.mark.parametrize("size_bytes", [1, 256 * KIB - 1, 256 * KIB, 600_001, 8 * MIB])
def test_a_chunk_of_any_size_lands_whole_or_fails(net, lying_checksum, size_bytes):
    (connection, _), (_, far) = net.pair(checksum=lying_checksum(1))
    far.landings[7] = shelf = net.shelf(far, num_chunks=2, chunk_size_bytes=size_bytes)
    chunk = random.Random(size_bytes).randbytes(size_bytes)
    connection.write_chunk(7, 1, memoryview(chunk))
    assert far.next("landed") == 1
    assert shelf.bytes_of(1) == chunk
    if size_bytes > 500:  # It lies about large ones only.
        connection.write_chunk(7, 0, memoryview(chunk))
        assert far.next("failed") == 0


def test_a_damaged_chunk_fails_and_the_next_one_lands(net, lying_checksum):
    (connection, _), (_, far) = net.pair(checksum=lying_checksum(0))
    far.landings[7] = net.shelf(far)
    for _ in range(2):
        connection.write_chunk(7, 3, memoryview(b"x" * 1000))
    assert far.next("failed") == 3
    assert far.next("landed") == 3


def test_a_damaged_message_ends_the_connection(net, lying_checksum):
    (connection, near), (_, far) = net.pair(checksum=lying_checksum(0))
    connection.send_message(b"", b"x" * 1000)
    assert "crc32c" in str(far.next("lost"))
    near.next("lost")


def test_a_chunk_of_the_wrong_size_ends_the_connection(net):
    (connection, near), (_, far) = net.pair()
    far.landings[7] = net.shelf(far)
    connection.write_chunk(7, 1, memoryview(b"x" * 999))
    assert far.next("failed") == 1
    assert "999 bytes, expected 1000" in str(far.next("lost"))
    near.next("lost")


def test_announcements_and_questions_arrive(net):
    (connection, near), (back, far) = net.pair()
    connection.announce(7, b"\x05")
    back.ask(7, 2)
    assert far.next("announced") == (7, b"\x05")
    assert near.next("asked") == (7, 2)


def test_what_was_sent_before_a_close_arrives_before_the_loss(net):
    (connection, _), (_, far) = net.pair()
    connection.send_message(b"last", b"x" * 100_000)
    connection.close()
    assert far.next("message")[0] == b"last"
    assert "connection to a" in str(far.next("lost"))


def test_a_loss_is_told_once_and_only_to_the_other_side(net):
    (connection, near), (back, far) = net.pair()
    connection.close()
    connection.close()
    far.next("lost")
    for side in (connection, back):
        with pytest.raises(PeerLostError, match="connection to"):
            side.send_message(b"too late")
    net.close()
    assert near.events.empty()
    assert far.events.empty()


def test_a_peer_that_takes_nothing_is_lost(net):
    (connection, near), (_, far) = net.pair(timeout_s=0.2)
    far.hold.clear()
    chunk = memoryview(bytes(1 << 20))
    connection.send_message(b"stop here")
    with pytest.raises(PeerLostError, match="nothing for too long"):
        any(connection.write_chunk(7, 0, chunk) for _ in range(100))
    assert "nothing for too long" in str(near.next("lost"))
    far.hold.set()


def test_closing_wakes_who_is_sending(net):
    (connection, _), (_, far) = net.pair(timeout_s=60.0)
    far.hold.clear()
    errors = []

    def send():
        try:
            while True:
                connection.write_chunk(7, 0, memoryview(bytes(1 << 20)))
        except PeerLostError as error:
            errors.append(str(error))

    connection.send_message(b"stop here")
    thread = threading.Thread(target=send)
    thread.start()
    connection.close()
    thread.join(timeout=10)
    far.hold.set()
    assert errors
    assert "this side closed it" in errors[0]


def test_closing_wakes_who_waits_for_the_emulated_link(net):
    (connection, _), _ = net.pair(link=LinkPacer(1.0))

    def send():
        with pytest.raises(PeerLostError):
            connection.send_message(b"slow")

    thread = threading.Thread(target=send)
    thread.start()
    connection.close()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_frames_cross_an_emulated_link(net):
    (connection, _), (_, far) = net.pair(link=LinkPacer(1e7))
    far.landings[7] = net.shelf(far)
    for chunk in range(4):
        connection.write_chunk(7, chunk, memoryview(b"x" * 1000))
        assert far.next("landed") == chunk


def test_a_connection_can_be_closed_by_what_it_calls(net):
    (connection, near), (_, far) = net.pair()
    far.message = lambda closing, *_: closing.close()
    connection.send_message(b"close")
    near.next("lost")


def test_frames_of_several_threads_stay_whole(net):
    (connection, _), (_, far) = net.pair()
    far.landings[7] = shelf = net.shelf(far, chunk_size_bytes=100_000)

    def talk(number):
        for _ in range(25):
            connection.send_message(b"%d" % number, bytes([number]) * 5000)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for chunk in range(4):
        connection.write_chunk(7, chunk, memoryview(bytes([chunk]) * 100_000))
    for thread in threads:
        thread.join()
    connection.send_message(b"end")
    landed = []
    while (event := far.events.get(timeout=10))[1] != b"end":
        if event[0] == "landed":
            landed.append(event[1])
            assert shelf.bytes_of(event[1]) == bytes([event[1]]) * 100_000
        else:
            assert bytes(event[2]) == bytes([int(event[1])]) * 5000
    assert landed == [0, 1, 2, 3]


def test_too_large_a_message_is_refused_and_harms_nothing(net):
    (connection, _), (_, far) = net.pair()
    with pytest.raises(TransportError, match="send it in pieces"):
        connection.send_message(b"", bytes(MESSAGE_SIZE_BYTES_MAX + 1))
    with pytest.raises(TransportError, match="header"):
        connection.send_message(bytes(1 << 16))
    connection.send_message(b"fine")
    assert far.next("message")[0] == b"fine"


def test_another_token_is_refused(net):
    listener = net.open("b").listen(net.any_address, net.recorder())
    stranger = net.open("a", token=b"other")
    with pytest.raises(TransportError, match="another cluster token"):
        stranger.connect(listener.address, net.recorder())


def test_an_address_in_use_is_refused(net):
    address = net.open("a").listen(net.any_address, net.recorder()).address
    with pytest.raises(TransportError, match=f"cannot listen on {address}"):
        net.open("b").listen(address, net.recorder())


def test_an_address_where_nobody_listens_is_refused(net):
    transport = net.open("a")
    listener = transport.listen(net.any_address, net.recorder())
    listener.close()
    listener.close()
    with pytest.raises(TransportError, match="is it running"):
        transport.connect(listener.address, net.recorder())


def test_connections_outlive_their_listener(net):
    far = net.recorder()
    listener = net.open("b").listen(net.any_address, far)
    connection = net.open("a").connect(listener.address, net.recorder())
    far.next("opened")
    listener.close()
    connection.send_message(b"still here")
    assert far.next("message")[0] == b"still here"


def test_a_closed_transport_makes_no_connections(net):
    listener = net.open("b").listen(net.any_address, net.recorder())
    transport = net.open("a")
    transport.close()
    with pytest.raises(TransportError, match="closed"):
        transport.connect(listener.address, net.recorder())


def test_a_malformed_address_is_refused(net):
    transport = net.open("a")
    for address in (f"{net.scheme}://", "elsewhere"):
        with pytest.raises(TransportError, match="is not of the form"):
            transport.listen(address, net.recorder())


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ConfigError, match="use mem://… or tcp://…"):
        scheme_of("carrier-pigeon://roof")
    with pytest.raises(ConfigError, match="no known scheme"):
        open_transport("127.0.0.1:80", None)


class AcceleratorMemory(DeviceSpan):
    """Bytes that are only copied, as those of an accelerator's memory are."""

    def __init__(self, nbytes):
        self.data = bytearray(nbytes)

    @property
    def address(self):
        return 0

    @property
    def nbytes(self):
        return len(self.data)

    def read(self):
        return memoryview(bytes(self.data))

    def write(self, data):
        self.data[:] = data


def test_chunks_go_from_and_to_memory_that_only_copies_reach(net):
    (connection, _), (_, far) = net.pair()
    far.landings[7] = shelf = net.shelf(far)
    source, target = AcceleratorMemory(1000), AcceleratorMemory(1000)
    source.data[:] = bytes(range(250)) * 4
    shelf.slot = lambda *_: target
    connection.write_chunk(7, 1, source)
    assert far.next("landed") == 1
    assert target.data == source.data


def test_host_memory_is_all_that_most_transports_reach(net):
    with pytest.raises(TransportError, match="reach"):
        net.open("a").register_device(AcceleratorMemory(1000), lambda: -1)
