import itertools
import json
import pathlib
import runpy

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from jscale.checkpoint.testing import BUNDLED_DIRECTORY as MODEL

HERE = pathlib.Path(__file__).parent

SCRIPT = runpy.run_path(str(MODEL.parent / "make_tokenizer.py"))
PIECES = SCRIPT["read_pieces"](MODEL / "tok512.bin")
IDS = {text: index for index, (text, _) in enumerate(PIECES)}
PARAGRAPHS = (HERE / "fairytales.txt").read_text(encoding="utf-8").split("\n\n")


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))


@pytest.fixture(scope="module")
def oracle():
    return json.loads((MODEL / "greedy_expected.json").read_text())


def reference_encode(text):
    """What llama2.c's run.c does: merge the best pair until there is none."""
    ids = [1]
    for character in f" {text}" if text else "":
        if character in IDS:
            ids.append(IDS[character])
        else:
            ids += [byte + 3 for byte in character.encode()]
    while True:
        best = None
        for place, (left, right) in enumerate(itertools.pairwise(ids)):
            merged = IDS.get(PIECES[left][0] + PIECES[right][0])
            if merged is None:
                continue
            if best is None or PIECES[merged][1] > PIECES[best[1]][1]:
                best = place, merged
        if best is None:
            return ids
        ids[best[0] : best[0] + 2] = [best[1]]


def test_the_committed_file_is_what_the_script_makes(tokenizer):
    made = json.loads(json.dumps(SCRIPT["tokenizer_of"](PIECES)))
    assert json.loads((MODEL / "tokenizer.json").read_text()) == made
    assert tokenizer.get_vocab_size() == len(PIECES) == 512


def test_it_decodes_the_oracle(tokenizer, oracle):
    assert len(oracle["greedy_token_ids"]) == 300
    assert tokenizer.decode(oracle["greedy_token_ids"]) == oracle["text"]


def test_it_encodes_the_oracle(tokenizer, oracle):
    assert tokenizer.encode(oracle["text"]).ids == [1, *oracle["greedy_token_ids"]]


@pytest.mark.parametrize("index", range(len(PARAGRAPHS)))
def test_it_encodes_fairytales_as_llama2_c_does(tokenizer, index):
    text = PARAGRAPHS[index]
    ids = tokenizer.encode(text).ids
    assert ids == reference_encode(text)
    assert tokenizer.decode(ids) == text


# U+2581 stands for a space in every Llama 2 tokenizer, and so comes back as one.
_TEXT = st.text().filter(lambda text: "▁" not in text)


@given(text=_TEXT | st.text(alphabet="the andwOncsS.,'\n <0x>", max_size=60))
def test_it_encodes_any_text_as_llama2_c_does(tokenizer, text):
    if not any(special in text for special in ("<unk>", "<s>", "</s>")):
        ids = tokenizer.encode(text).ids
        assert ids == reference_encode(text)
        assert tokenizer.decode(ids) == text


def test_bytes_without_a_token_fall_back(tokenizer):
    assert tokenizer.encode("🙂").ids[2:] == [byte + 3 for byte in "🙂".encode()]


def test_special_tokens_are_the_ones_of_the_model(tokenizer):
    assert [tokenizer.id_to_token(i) for i in range(3)] == ["<unk>", "<s>", "</s>"]
    assert tokenizer.encode("", add_special_tokens=False).ids == []
