"""Streams of text are right for tokens that are no whole characters."""

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from jscale.core.errors import CheckpointError
from jscale.server.tokenizer import PENDING_TOKENS_MAX, Detokenizer, Tokenizer

BOS = 1
TEXT = "Once upon a time, 你好 🦊🦊 née — said the fox.\n\n end"


def byte_fallback_tokenizer() -> tokenizers.Tokenizer:
    """As Llama 2: words begin with ▁, other characters are bytes <0xXX>."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [*"▁abcdefghijklmnopqrstuvwxyzO,.", "▁t", "▁ti", "▁tim", "▁time", "▁f"]
    vocab = {word: index for index, word in enumerate(words + pieces)}
    merges = [("▁", "t"), ("▁t", "i"), ("▁ti", "m"), ("▁tim", "e"), ("▁", "f")]
    model = models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True)
    made = tokenizers.Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    return made


def byte_level_tokenizer() -> tokenizers.Tokenizer:
    """As Llama 3: every token is some bytes, here one."""
    vocab = {
        letter: index
        for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    made = tokenizers.Tokenizer(models.BPE(vocab, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


@pytest.fixture(params=[byte_fallback_tokenizer, byte_level_tokenizer])
def tokenizer(request, tmp_path):
    path = tmp_path / "tokenizer.json"
    request.param().save(str(path))
    return Tokenizer(path)


def stream(tokenizer: Tokenizer, prompt_ids, token_ids) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt_ids)
    last = len(token_ids) - 1
    return [
        detokenizer.add(token, is_last=index == last)
        for index, token in enumerate(token_ids)
    ]


def test_a_streamed_text_is_the_text(tokenizer):
    token_ids = tokenizer.encode(TEXT)
    assert "".join(stream(tokenizer, (), token_ids)) == TEXT


def test_a_streamed_text_goes_on_after_any_prompt(tokenizer):
    token_ids = tokenizer.encode(TEXT)
    for cut in range(2, len(token_ids) - 1):
        before = tokenizer.decode(token_ids[:cut])
        texts = stream(tokenizer, token_ids[:cut], token_ids[cut:])
        if "\ufffd" not in before:
            assert before + "".join(texts) == TEXT, cut


def test_no_part_of_a_character_is_ever_streamed(tokenizer):
    texts = stream(tokenizer, (), tokenizer.encode(TEXT))
    assert "\ufffd" not in "".join(texts)
    assert "🦊" in texts


def test_a_text_that_ends_within_a_character_says_so_at_its_end(tokenizer):
    texts = stream(tokenizer, (), tokenizer.encode("a🦊")[:-1])
    assert texts[-1].endswith("\ufffd")
    assert "\ufffd" not in "".join(texts[:-1])


def test_bytes_that_are_no_text_do_not_hold_back_forever(tokenizer):
    fox = tokenizer.encode("a🦊")[-1]
    texts = stream(tokenizer, (), [fox] * (PENDING_TOKENS_MAX + 1))
    assert texts[PENDING_TOKENS_MAX - 1]


def test_special_tokens_have_no_text(tmp_path):
    path = tmp_path / "tokenizer.json"
    byte_fallback_tokenizer().save(str(path))
    tokenizer = Tokenizer(path)
    token_ids = tokenizer.encode("a time")
    assert token_ids[0] == BOS
    assert stream(tokenizer, (), token_ids)[0] == ""
    assert "".join(stream(tokenizer, (BOS,), token_ids[1:])) == "a time"


def test_a_file_that_is_no_tokenizer_is_one_clear_error(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: .*expected a Hugging"):
        Tokenizer(path)
    path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"expected a Hugging"):
        Tokenizer(path)
