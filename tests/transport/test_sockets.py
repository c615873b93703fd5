import itertools

import pytest

from jscale.transport.sockets import send_all


class Stubborn:
    """A socket that takes so many bytes at a time."""

    def __init__(self, at_once):
        self.at_once = at_once
        self.taken = b""
        self.num_calls = 0

    def sendmsg(self, parts):
        taken = b"".join(parts)[: self.at_once]
        self.taken += taken
        self.num_calls += 1
        return len(taken)


@pytest.mark.parametrize("at_once", range(1, 12))
def test_all_parts_are_sent_in_order_however_little_is_taken_at_once(at_once):
    for sizes in itertools.product(range(4), repeat=3):
        letters = iter(b"abcdefghijkl")
        parts = [bytes(itertools.islice(letters, size)) for size in sizes]
        sock = Stubborn(at_once)
        send_all(sock, [memoryview(part) for part in parts])
        assert sock.taken == b"".join(parts)
        assert sock.num_calls == -(-sum(sizes) // at_once)
