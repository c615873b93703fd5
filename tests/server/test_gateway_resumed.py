"""A request that another gateway began, on real gRPC with fake heads."""

import asyncio

import pytest

from jscale.core.ids import SequenceId
from jscale.proto.v1 import jscale_pb2 as pb
from jscale.server.decisions import Deliver, End
from jscale.server.request_stream import RequestStream
from jscale.server.requests import read_request
from tests.server.test_gateway import PROMPT, ask, collect, ready

MAX_TOKENS = 5


@pytest.mark.parametrize("count", range(MAX_TOKENS + 1))
def test_it_goes_on_after_the_tokens_that_its_client_has(stage, tools, count):
    ids = tools.continuation(PROMPT, MAX_TOKENS)

    async def play(stage):
        (head,) = await ready(stage, "w0")
        request = ask(MAX_TOKENS, generated_ids=ids[:count])
        tokens, reason = await collect(stage.stub.Generate(request))
        assert [token.id for token in tokens] == ids[count:]
        assert [token.index for token in tokens] == [*range(count, MAX_TOKENS)]
        assert "".join(token.text for token in tokens) == bytes(ids[count:]).decode()
        assert reason == pb.FINISH_REASON_LENGTH
        if count < MAX_TOKENS:
            submit = await head.submits.get()
            assert submit.generated == tuple(ids[:count])
            assert submit.request.sampling.max_tokens == MAX_TOKENS

    stage(play)


def test_what_still_runs_of_it_ends(stage, tools):
    async def play(stage):
        (head,) = await ready(stage, "w0")
        head.tokens_at_once = 2
        first = stage.stub.Generate(ask(MAX_TOKENS, request_id="mine"))
        begun = (await anext(aiter(first))).tokens
        head.tokens_at_once = MAX_TOKENS
        ids = [token.id for token in begun]
        again = ask(MAX_TOKENS, request_id="mine", generated_ids=ids)
        tokens, _ = await collect(stage.stub.Generate(again))
        whole = tools.continuation(PROMPT, MAX_TOKENS)
        assert [token.id for token in [*begun, *tokens]] == whole
        rest, reason = await collect(first)
        assert reason == pb.FINISH_REASON_CANCELLED
        assert len(begun) + len(rest) == 2

    stage(play)


@pytest.mark.parametrize("text", ["naïve 🦊🦊 fox", "你好, world"])
def test_text_goes_on_within_a_character(facts, text):
    """Every byte is a token here, so that most breaks are within a character."""
    ids = list(facts.tokenizer.encode(text))
    whole = asyncio.run(texts_after(0, ids, facts))
    assert "".join(whole) == text
    for count in range(len(ids)):
        assert asyncio.run(texts_after(count, ids, facts)) == whole[count:]


async def texts_after(count, ids, facts):
    """The texts of the later tokens, at a gateway that was told of the first."""
    asked = pb.GenerateRequest(token_ids=PROMPT)
    asked.sampling.max_tokens = len(ids)
    stream = RequestStream(
        SequenceId("s"),
        read_request(asked, facts, "s"),
        tokenizer=facts.tokenizer,
        eos_token_ids=facts.eos_token_ids,
        arrived_ns=0,
        generated=ids[:count],
    )
    for index in range(count, len(ids)):
        stream.put(Deliver(stream.sequence, index, ids[index], -1.0))
    stream.put(End(stream.sequence, "length"))
    responses = [response async for response in stream.responses()]
    return [token.text for response in responses for token in response.tokens]
