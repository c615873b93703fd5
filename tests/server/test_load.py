"""The load finds every wrong token, and tells what is lost from what is wrong."""

import dataclasses
import threading

import pytest

from jscale.core.errors import UnavailableError
from jscale.server.load import Load

PROMPT = (1,)
RIGHT = (5, 6, 7)


@dataclasses.dataclass
class FakeToken:
    id: int
    text: str = "x"


class FakeClient:
    """Answers every request alike; lets `answered` be waited for."""

    def __init__(self, token_ids, error=None):
        self.asked = []
        self.answered = threading.Event()
        self._token_ids = token_ids
        self._error = error

    def generate(self, prompt, **settings):
        self.asked.append((prompt, settings))
        yield from map(FakeToken, self._token_ids)
        self.answered.set()
        if self._error is not None:
            raise self._error


def finished(client, **settings):
    load = Load(client, {PROMPT: RIGHT}, num_clients=1, **settings)
    load.start()
    assert client.answered.wait(10)
    load.stop()
    return load.finished[0]


CASES = {
    "right": ((5, 6, 7), None, "", False, False),
    "wrong": ((5, 9, 7), None, "token 1 is 9, a single worker gave 6", False, True),
    "short": ((5, 6), None, "2 tokens, a single worker gave 3", False, True),
    "lost": ((5, 6), "it is gone", "it is gone", True, False),
    "wrong, then lost": ((9,), "it is gone", "token 0 is 9", True, True),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_client_got_is_compared(case):
    token_ids, error, fault, is_lost, is_wrong = CASES[case]
    ended = finished(FakeClient(token_ids, error and UnavailableError(error)))
    assert ended.fault.startswith(fault)
    assert bool(ended.fault) == bool(fault)
    assert (ended.is_lost, ended.is_wrong) == (is_lost, is_wrong)
    assert ended.num_tokens == len(token_ids)
    assert 0 <= ended.longest_gap_ns <= ended.finished_ns - ended.sent_ns


def test_clients_ask_for_as_many_tokens_as_they_know_and_sample_as_they_are_told():
    client = FakeClient(RIGHT)
    finished(client, sampling={"temperature": 0.5, "seed": 3})
    prompt, settings = client.asked[0]
    assert prompt == PROMPT
    assert settings == {
        "max_tokens": len(RIGHT),
        "ignore_eos": True,
        "temperature": 0.5,
        "seed": 3,
    }
