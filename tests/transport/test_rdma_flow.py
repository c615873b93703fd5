"""Credit: nothing overruns and nobody waits for ever, whatever happens first."""

import collections
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jscale.core.errors import TransportError
from jscale.transport.rdma_flow import FlowLimits, SendQueue, StreamCredit


class StreamOfTwo:
    """One direction of a stream: what is on its way, and in which receive buffers."""

    def __init__(self, limit):
        self.limit = limit
        self.sender, self.receiver = StreamCredit(limit), StreamCredit(limit)
        self.on_their_way = collections.deque()
        self.in_inbox = collections.deque()
        self.returns = collections.deque()
        self.num_sent = 0
        self.read = []

    @property
    def steps(self):
        """What can happen next."""
        return [
            step
            for step, is_possible in (
                (self.send, self.sender.may_send),
                (self.arrive, self.on_their_way),
                (self.take, self.in_inbox),
                (self.give_back, self.returns),
            )
            if is_possible
        ]

    def send(self):
        self.sender.sent()
        self.on_their_way.append(self.num_sent)
        self.num_sent += 1
        assert len(self.on_their_way) + len(self.in_inbox) <= self.limit

    def arrive(self):
        self.receiver.came()
        self.in_inbox.append(self.on_their_way.popleft())

    def take(self):
        self.read.append(self.in_inbox.popleft())
        if number := self.receiver.taken():
            self.returns.append(number)
        assert len(self.returns) <= 3

    def give_back(self):
        self.sender.granted(self.returns.popleft())


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_whatever_happens_first_a_stream_neither_overruns_nor_stops(limit):
    for choices in itertools.product(range(4), repeat=7):
        stream = StreamOfTwo(limit)
        for choice in choices:
            steps = stream.steps
            assert steps, "nothing can happen any more"
            steps[choice % len(steps)]()


@given(st.integers(1, 40), st.lists(st.integers(0, 3), max_size=300))
def test_a_stream_of_any_width_keeps_its_order(limit, choices):
    stream = StreamOfTwo(limit)
    for choice in choices:
        stream.steps[choice % len(stream.steps)]()
    while stream.num_sent < 500 or len(stream.read) < 500:
        steps = [step for step in stream.steps if step != stream.send]
        (steps[0] if steps else stream.send)()
    assert stream.read == list(range(len(stream.read)))


def test_more_than_the_credit_is_refused():
    credit = StreamCredit(2)
    credit.came()
    credit.came()
    with pytest.raises(TransportError, match="without credit"):
        credit.came()


@pytest.mark.parametrize("number", [0, 2])
def test_credit_that_was_never_ours_is_refused(number):
    credit = StreamCredit(2)
    credit.sent()
    with pytest.raises(TransportError, match=f"credit for {number} SENDs, 1 were sent"):
        credit.granted(number)


def test_a_promise_of_buffers_is_the_sum_of_what_may_come():
    limits = FlowLimits(stream=16, offers=8)
    assert limits.words == 11
    assert limits.stream_rail_buffers == 16 + 8 + 11


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("wishes", list(itertools.product([False, True], repeat=5)))
def test_each_request_is_done_with_when_a_later_one_is_signalled(every, wishes):
    queue = SendQueue(depth=8, signal_every=every)
    done = []
    for index, wish in enumerate(wishes):
        number, is_signalled = queue.post(index, is_signalled=wish)
        assert number == index
        assert is_signalled or queue.is_silent
        assert is_signalled >= wish
        if is_signalled:
            done += queue.completed(number)
            assert not queue.is_silent
            assert done == list(range(index + 1))
        assert len(queue) < every


@pytest.mark.parametrize("number", [0, 3])
def test_a_completion_of_nothing_is_refused(number):
    queue = SendQueue(depth=8, signal_every=1)
    for item in "abc":
        queue.post(item, is_signalled=True)
    queue.completed(0)
    with pytest.raises(TransportError, match="not posted"):
        queue.completed(number)
