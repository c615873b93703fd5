"""Requests and settings: what cannot be served is refused in words."""

import subprocess
import sys

import msgspec
import pytest

from jscale.core.errors import ConfigError, OverloadedError, RequestError
from jscale.core.ids import SequenceId
from jscale.engine.config import EngineConfig
from jscale.engine.pages import PagePool, page_map
from jscale.engine.request import Request, SamplingParams


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.1}, "temperature=-0.1: it must be from 0.0 to 100.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_k": -1}, "top_k=-1"),
        ({"top_k": 2**31}, "top_k=2147483648"),
        ({"top_p": 0.0}, "top_p=0.0: it must be over 0 and at most 1"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"top_p": float("nan")}, "top_p=nan"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"stop_token_ids": (-3,)}, "stop token id=-3"),
        ({"stop_token_ids": tuple(range(65))}, "number of stop_token_ids=65"),
    ],
)
def test_absurd_sampling_values_are_refused(changes, message):
    with pytest.raises(RequestError, match=message):
        SamplingParams(**changes)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ((), "the prompt is empty"),
        ((1, 2, 99), "unknown token id 99 at position 2"),
        ((1, -1), "unknown token id -1 at position 1"),
        ((1,) * 8, "has 8 tokens and the context holds 8: shorten it to at most 7"),
    ],
)
def test_prompts_that_cannot_be_served_are_refused(prompt, message):
    request = Request(SequenceId("a"), prompt)
    with pytest.raises(RequestError, match=message):
        request.check(vocab_size=50, max_context=8)


def test_a_request_survives_the_wire():
    request = Request(
        SequenceId("a"), (1, 2), SamplingParams(temperature=0.5, stop_token_ids=(3,))
    )
    data = msgspec.msgpack.encode(request)
    assert msgspec.msgpack.decode(data, type=Request) == request


def test_absurd_values_are_refused_on_the_other_side_of_the_wire_too():
    data = msgspec.msgpack.encode({"id": "a", "prompt_ids": [1]})
    good = msgspec.msgpack.decode(data, type=Request)
    assert good.sampling == SamplingParams()
    bad = msgspec.msgpack.encode({"temperature": -1.0})
    with pytest.raises(RequestError, match="temperature=-1"):
        msgspec.msgpack.decode(bad, type=SamplingParams)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_buckets": ()}, "row_buckets="),
        ({"row_buckets": (128, 16)}, "increasing multiples of 16"),
        ({"row_buckets": (8,)}, "increasing multiples of 16"),
        ({"page_tokens": 0}, "page_tokens=0: it must be at least 1"),
        ({"max_sequences": 500}, "at most the largest row bucket, 128"),
        ({"num_pages": 7}, "at least 8, one sequence of max_context=512 tokens"),
        ({"max_waiting": -1}, "max_waiting=-1"),
        ({"compute_dtype": "int8"}, "one of float32, bfloat16"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        EngineConfig(**changes)


def test_the_smallest_bucket_that_fits_is_taken():
    config = EngineConfig(row_buckets=(16, 64, 128))
    assert [config.bucket_for(rows) for rows in (1, 16, 17, 128)] == [16, 16, 64, 128]


def test_pages_are_leased_once():
    pool = PagePool(5)
    first, second = pool.lease(2), pool.lease(3)
    assert sorted(first + second) == [1, 2, 3, 4, 5]
    with pytest.raises(OverloadedError, match="1 KV pages wanted, 0 of 5 are free"):
        pool.lease(1)
    pool.release(first)
    assert pool.num_free == 2
    assert page_map(second).tolist() == [0, *second]


def test_gateways_need_no_jax():
    modules = "request, config, scheduler, batch, pages, sequence"
    code = (
        f"import sys; from jscale.engine import {modules}; print('jax' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True
    )
    assert found.stdout.strip() == b"False"
