"""The client, in its own thread, against a gateway with fake heads."""

import asyncio
import threading

import pytest

from jscale.core.errors import (
    OverloadedError,
    RequestError,
    UnavailableError,
)
from jscale.server.client import Client
from jscale.server.scale_out import ScaleOut, is_settled

PROMPT = (104, 105)


def in_thread(work, *arguments):
    return asyncio.get_running_loop().run_in_executor(None, work, *arguments)


async def ready(stage):
    await stage.start_manager()
    head = await stage.start_head("w0")
    await stage.start_gateway()
    await stage.manager.tell_replicas(head.replica())
    return head


def test_tokens_are_values_and_the_end_has_a_reason(stage, tools):
    def use(address):
        with Client(address) as client:
            client.wait_until_serving(10)
            generation = client.generate(PROMPT, max_tokens=4)
            assert generation.finish_reason is None
            tokens = list(generation)
            assert [token.id for token in tokens] == tools.continuation(PROMPT, 4)
            assert "".join(token.text for token in tokens).isalpha()
            assert {token.logprob for token in tokens} == {-0.25}
            assert generation.finish_reason == "length"
            assert generation.num_prompt_tokens == 2
            assert list(generation) == []

    async def play(stage):
        await ready(stage)
        await in_thread(use, stage.address)

    stage(play)


def test_text_and_ids_are_both_prompts(stage):
    def use(address):
        with Client(address) as client:
            of_text = [token.id for token in client.generate("hi", max_tokens=4)]
            of_ids = [token.id for token in client.generate(PROMPT, max_tokens=4)]
            assert of_text == of_ids

    async def play(stage):
        await ready(stage)
        await in_thread(use, stage.address)

    stage(play)


def test_refusals_are_the_errors_that_they_were(stage):
    def use(address):
        with Client(address) as client:
            with pytest.raises(RequestError, match="the prompt is empty"):
                next(client.generate(()))
            with pytest.raises(RequestError, match="stop_token_ids: the vocabulary"):
                next(client.generate(PROMPT, stop_token_ids=[512]))
            with pytest.raises(RequestError, match=f"seed={2**70}: it must be"):
                client.generate(PROMPT, seed=2**70)
            with pytest.raises(RequestError, match="cannot be written"):
                client.generate((2**70,))
            with pytest.raises(RequestError, match="cannot be written"):
                client.scale_to(2**70)
            with pytest.raises(UnavailableError, match="the manager at"):
                client.scale_to(2)
            assert client.abort("nothing") is False

    async def play(stage):
        await stage.start_gateway(manager_address="127.0.0.1:1")
        await in_thread(use, stage.address)

    stage(play)


def test_a_full_queue_and_no_worker_are_different_errors(stage):
    def use(address):
        told = []
        with Client(address) as client:
            for generation in [client.generate(PROMPT) for _ in range(2)]:
                with pytest.raises((OverloadedError, UnavailableError)) as error:
                    next(generation)
                told.append(error.type)
        assert set(told) == {OverloadedError, UnavailableError}

    async def play(stage):
        await stage.start_gateway(
            manager_address="127.0.0.1:1", max_queued=1, unavailable_after_s=0.2
        )
        await in_thread(use, stage.address)

    stage(play)


def test_a_gateway_that_is_not_there_is_one_clear_error():
    with Client("127.0.0.1:1") as client:
        with pytest.raises(UnavailableError, match="nobody answers there"):
            next(client.generate(PROMPT))
        with pytest.raises(UnavailableError, match="no answer in time"):
            client.wait_until_serving(0.05)


def test_a_host_that_does_not_exist_is_one_clear_error():
    with (
        Client("nowhere.invalid:1") as client,
        pytest.raises(UnavailableError, match="no such host: give HOST:PORT"),
    ):
        next(client.generate(PROMPT))


def test_abort_and_cancel_end_a_generation(stage):
    def use(address, head):
        with Client(address) as client:
            generation = client.generate(PROMPT, request_id="mine")
            next(generation)
            assert client.abort("mine")
            assert len(list(generation)) == 0
            assert generation.finish_reason == "cancelled"
            generation = client.generate(PROMPT)
            next(generation)
            generation.cancel()
            assert list(generation) == []

    async def play(stage):
        head = await ready(stage)
        head.tokens_at_once = 1
        await in_thread(use, stage.address, head)
        assert {(await head.cancels.get()).sequence for _ in range(2)}

    stage(play)


def test_scale_out_is_watched_until_every_worker_is_local(stage):
    seen = []
    two_seen = threading.Event()

    def use(address):
        with Client(address) as client:
            client.wait_until_serving(10)
            assert client.scale_to(2) == 1
            for status in ScaleOut(client, 2).progress(interval_ms=10, timeout_s=10):
                seen.append([worker.phase for worker in status.workers])
                if len(status.workers) == 2:
                    two_seen.set()
            assert is_settled(client.status(), 2)
            assert len(ScaleOut(client, 2).wait(timeout_s=10).workers) == 2

    async def play(stage):
        head = await ready(stage)
        using = in_thread(use, stage.address)
        await stage.manager.reports.get()
        other = await stage.start_head("w1")
        both = (head.replica(1), other.replica(2))
        await stage.manager.tell_replicas(*both, phase="PIPELINED")
        await in_thread(two_seen.wait)
        await stage.manager.tell_replicas(*both)
        await using

    stage(play)
    assert [len(phases) for phases in seen][-1] == 2
    assert len(seen) >= 2


def test_a_scale_out_ends_when_another_number_is_wanted(stage):
    first_seen = threading.Event()

    def use(address):
        with Client(address) as client:
            client.wait_until_serving(10)
            progress = ScaleOut(client, 1).progress(interval_ms=10)
            next(progress)
            first_seen.set()
            with pytest.raises(UnavailableError, match="2 workers are wanted now"):
                list(progress)

    async def play(stage):
        await stage.start_manager()
        heads = [await stage.start_head(name) for name in ("w0", "w1")]
        await stage.start_gateway()
        await stage.manager.tell_replicas(heads[0].replica(), phase="PIPELINED")
        using = in_thread(use, stage.address)
        await in_thread(first_seen.wait)
        replicas = [head.replica(index + 1) for index, head in enumerate(heads)]
        await stage.manager.tell_replicas(*replicas)
        await using

    stage(play)
