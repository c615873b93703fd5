"""Writes tokenizer.json of a llama2.c tokenizer: `python make_tokenizer.py FOLDER`.

llama2.c merges, again and again, the two neighbours whose union has the best score.
That is byte-pair encoding whose merges are ranked by the score of what they make, so
the merges follow from the vocabulary: every way to split a piece into two others.
"""

import json
import pathlib
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any

SPACE = "▁"
"""What stands for a space inside pieces (SentencePiece's mark, U+2581)."""

BOS, EOS, FIRST_BYTE = 1, 2, 3
SPECIAL = ("<unk>", "<s>", "</s>")


def read_pieces(path: pathlib.Path) -> Sequence[tuple[str, float]]:
    """Text and score of each token of a llama2.c tokenizer, by id."""
    data = path.read_bytes()
    pieces, offset = [], 4
    while offset < len(data):
        score, length = struct.unpack_from("<fi", data, offset)
        offset += 8
        pieces.append((data[offset : offset + length].decode(), score))
        offset += length
    return pieces


def tokenizer_of(pieces: Sequence[tuple[str, float]]) -> Mapping[str, Any]:
    """The contents of tokenizer.json, in the form of Llama 2's."""
    names = [text.replace(" ", SPACE) for text, _ in pieces]
    names[: len(SPECIAL)] = SPECIAL
    ids = {name: index for index, name in enumerate(names)}
    assert len(ids) == len(pieces), "every piece is there once"
    assert names[FIRST_BYTE] == "<0x00>"
    whole = {name: pieces[index][1] for name, index in ids.items() if _merges(name)}
    merges = [
        (name[:cut], name[cut:])
        for name in sorted(whole, key=lambda name: (-whole[name], ids[name]))
        for cut in range(1, len(name))
        if name[:cut] in ids and name[cut:] in ids
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(index, name) for index, name in enumerate(SPECIAL)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [_special("<s>"), _sequence("A", 0)],
            "pair": [
                _special("<s>"),
                _sequence("A", 0),
                _special("<s>", 1),
                _sequence("B", 1),
            ],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": ids,
            "merges": [list(pair) for pair in merges],
        },
    }


TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 512,
}


def _merges(name: str) -> bool:
    """Whether a token is made by merging: byte and special tokens are not."""
    is_byte = len(name) == 6 and name.startswith("<0x") and name.endswith(">")
    return len(name) > 1 and not is_byte and name not in SPECIAL


def _added(index: int, name: str) -> Mapping[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    return {"id": index, "content": name, **flags, "normalized": False, "special": True}


def _special(name: str, type_id: int = 0) -> Mapping[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": type_id}}


def _sequence(name: str, type_id: int) -> Mapping[str, Any]:
    return {"Sequence": {"id": name, "type_id": type_id}}


def _write(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, ensure_ascii=False, indent=1)
    path.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    _write(folder / "tokenizer.json", tokenizer_of(read_pieces(folder / "tok512.bin")))
    _write(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
