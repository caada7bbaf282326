"""Phi-4's tokenizer against golden vectors, and against merging by rank as tiktoken does it."""

import gzip
import json
from functools import cache
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from phi4.byte_level import byte_alphabet
from phi4.checkpoint.o200k import SPLIT_PATTERN, derive_merges, phi4_tokenizer, read_ranks
from phi4.checkpoint.tokenizer_files import PHI4_TOKENS
from phi4.errors import CheckpointError

# Facts sheet 2.4.
GOLDEN = {
    "Hello, world!": [13225, 11, 2375, 0],
    "What is the capital of France?": [4827, 382, 290, 9029, 328, 10128, 30],
    "<|user|>What is the capital of France?<|end|><|assistant|>": [
        200021,
        *[4827, 382, 290, 9029, 328, 10128, 30],
        *[200020, 200019],
    ],
    "Transcribe the audio clip into text.": [3248, 4981, 290, 11065, 19925, 1511, 2201, 13],
    "1234567": [7633, 19354, 22],
    "def f(x):\n    return x+1\n": [1314, 285, 4061, 1883, 271, 622, 1215, 10, 16, 198],
    "naïve café 日本語 🙂": [1503, 9954, 737, 30469, 17428, 40909, 26192],
    "<|system|>You are a helpful assistant.<|end|><|user|>Hi<|end|><|assistant|>": [
        *[200022, 3575, 553, 261, 10297, 29186, 13, 200020],
        *[200021, 12194, 200020, 200019],
    ],
}


@cache
def tokenizer(multimodal: bool = True) -> Tokenizer:
    return Tokenizer.from_file(str(phi4_tokenizer(multimodal) / "tokenizer.json"))


@cache
def ranks() -> dict[bytes, int]:
    vocabulary = json.loads((phi4_tokenizer(True) / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    byte_of = {letter: byte for byte, letter in enumerate(byte_alphabet())}
    return {bytes(byte_of[letter] for letter in token): rank for token, rank in vocabulary.items() if rank < 199_998}


def encode_by_rank(text: str) -> list[int]:
    """The neighbours whose joint token has the lowest rank are merged first, the leftmost of equals."""
    ids = []
    for piece in regex.findall(SPLIT_PATTERN, text):
        encoded = piece.encode()
        parts = [encoded] if encoded in ranks() else [bytes([byte]) for byte in encoded]
        while len(parts) > 1:
            joint = [ranks().get(parts[i] + parts[i + 1], 1 << 30) for i in range(len(parts) - 1)]
            if min(joint) == 1 << 30:
                break
            at = joint.index(min(joint))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        ids += [ranks()[part] for part in parts]
    return ids


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_vectors(text: str) -> None:
    for multimodal in (False, True):
        assert tokenizer(multimodal).encode(text).ids == GOLDEN[text]
        assert tokenizer(multimodal).decode(GOLDEN[text], skip_special_tokens=False) == text


# The expression that splits texts is run by two libraries here, each with a version of Unicode of its own: what is no
# character in one is a letter in the next, such as U+3D000, and U+0295 became a letter without case. Added tokens are
# found before texts are split, and stand in the sources that Hypothesis takes examples from.
@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=("Cs", "Cn"), exclude_characters="\u0295")).filter(
        lambda text: not any(token.content in text for token in PHI4_TOKENS)
    )
)
def test_any_text_has_the_ids_of_merging_by_rank(text: str) -> None:
    assert tokenizer().encode(text).ids == encode_by_rank(text)


@settings(deadline=None)
@given(st.text(alphabet="aAzZéß'sSdDlL 019.,/\n\r\t-_  日ـa\u0301", max_size=60))
def test_texts_full_of_splits_have_the_ids_of_merging_by_rank(text: str) -> None:
    assert tokenizer().encode(text).ids == encode_by_rank(text)


def test_every_added_token_has_its_id_and_its_manners() -> None:
    for token in PHI4_TOKENS:
        assert tokenizer().encode(f"{token.content}  \n x").ids[0] == token.id
        swallowed = tokenizer().encode(f"{token.content} \n x").ids == tokenizer().encode(f"{token.content}x").ids
        assert swallowed == token.rstrip
        visible = tokenizer().decode([token.id, 87]) == f"{token.content}x"
        assert visible == (not token.special)


def test_placeholders_are_tokens_of_the_multimodal_model_only() -> None:
    assert tokenizer(multimodal=True).encode("<|endoftext10|><|endoftext11|>").ids == [200010, 200011]
    assert len(tokenizer(multimodal=False).encode("<|endoftext10|>").ids) > 1


def test_ids_between_the_added_tokens_have_no_text() -> None:
    nameless = [199998, 200000, 200009, 200012, 200017, 200029, 200063]
    assert [tokenizer().id_to_token(token_id) for token_id in nameless] == [None] * 7
    assert tokenizer().get_vocab_size() == 199_998 + 14


def test_transformers_gives_the_same_ids_and_the_released_chat_layout() -> None:
    theirs = AutoTokenizer.from_pretrained(phi4_tokenizer(multimodal=True))
    text = "I'M 1234567 naïve, isn't it?\n\n  x //\n<|user|> \nHi<|end|>"
    assert theirs(text).input_ids == tokenizer().encode(text).ids
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (199999, 199999, 199999)
    messages = [{"role": "system", "content": "S", "tools": "TOOLS"}, {"role": "user", "content": "U"}]
    prompt = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|system|>S<|tool|>TOOLS<|/tool|><|end|><|user|>U<|end|><|assistant|>"
    assert theirs.apply_chat_template(messages[1:], tokenize=False) == "<|user|>U<|end|><|endoftext|>"


def test_merges_are_what_a_tokens_bytes_end_as() -> None:
    letters = {bytes([byte]): byte for byte in b"abc"}
    assert derive_merges({**letters, b"bc": 200, b"abc": 201}) == [(b"b", b"c"), (b"a", b"bc")]


def test_a_token_that_no_two_others_make_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="b'abc' of rank 200 is not made of two tokens"):
        derive_merges({**{bytes([byte]): byte for byte in b"abc"}, b"abc": 200})


def test_other_ranks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ranks.gz").write_bytes(gzip.compress(b"YQ== 0\n"))
    with pytest.raises(CheckpointError, match="not o200k_base"):
        read_ranks(tmp_path / "ranks.gz")
