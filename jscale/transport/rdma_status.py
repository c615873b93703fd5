"""What a completion's status means, and how long until an unanswered one comes. Pure.

Source: InfiniBand Architecture Specification, volume 1, 11.6.2 (status) and 9.7.6.1.3
(local ACK timeout): a queue pair tries `RETRIES` times more, each time after
4.096 µs · 2^t; devices may take up to four times as long.
"""

SUCCESS = 0
FLUSHED = 5
"""Not the cause: something before it failed."""

RETRIES = 6
"""The specification allows 7; soft-RoCE takes that for ever, and a loss never comes."""

RNR_RETRIES = 6
RNR_TIMER = 20
"""10.24 ms. Credit is there so that no receive queue is ever empty; one that is for
the 60 ms of six retries has a fault that no waiting cures."""

_ACK_UNIT_S = 4.096e-6
_ACK_TIMEOUT_MAX = 31

_MEANINGS = {
    1: "local length error: it sent more than a receive buffer holds",
    2: "local queue pair error",
    4: "local protection error: the memory is not registered, or was unmapped",
    FLUSHED: "flushed: the queue pair was stopped",
    7: "bad response",
    8: "local access error",
    9: "invalid request: it refuses what we sent",
    10: "remote access error: a wrong key, or bytes outside of the memory it opens",
    11: "remote operation error: its queue pair failed",
    12: "retries exceeded: its NIC does not answer; check the process there, the link "
    "(rdma link), and that both use GIDs of one network",
    13: "its receive queue is exhausted",
    19: "fatal error of the device",
    20: "response timeout",
    21: "general error of the device",
}


def explain(status: int) -> str:
    """A completion's status in words, with its number in verbs (enum ibv_wc_status)."""
    return f"{_MEANINGS.get(status, 'work completion error')} (status {status})"


def ack_timeout(retry_s: float) -> int:
    """The exponent t with which all retries together take at most `retry_s`.

    >>> ack_timeout(2.0)
    16
    """
    for exponent in range(_ACK_TIMEOUT_MAX, 1, -1):
        if (RETRIES + 1) * _ACK_UNIT_S * 2**exponent <= retry_s:
            return exponent
    return 1
