"""Tokenizer: the library's ids, text that stays text, streaming without half characters."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as BackendTokenizer

from phi4.errors import ConfigError, InputError
from phi4.processing.tokenizer import TextStream, Tokenizer
from processing.phi_tokenizer import PHI_TOKENS, phi_tokenizer_json, write_json

TOKEN_TEXTS = [text for text, _, _ in PHI_TOKENS]
FRAGMENTS = st.sampled_from([*TOKEN_TEXTS, "<|", "|>", "<|us", "er|>", " ", "\n", "\x1c", "\x85", "\u3000", "Hi", "<"])
MIXED_TEXT = st.lists(FRAGMENTS | st.text(max_size=5), max_size=8).map("".join)


@given(text=MIXED_TEXT)
def test_text_with_control_tokens_gives_the_ids_of_the_tokenizers_library(
    tokenizer: Tokenizer, reference_tokenizer: BackendTokenizer, text: str
) -> None:
    assert tokenizer.encode(text, allow_special=True) == reference_tokenizer.encode(text).ids


@given(text=MIXED_TEXT)
def test_plain_text_never_becomes_a_control_token_and_comes_back_unchanged(tokenizer: Tokenizer, text: str) -> None:
    token_ids = tokenizer.encode(text, allow_special=False)
    assert not set(token_ids) & set(tokenizer.added.by_id)
    assert tokenizer.decode(token_ids) == text


@given(text=MIXED_TEXT)
def test_spelling_keeps_the_text_and_gives_each_character_its_own_tokens(tokenizer: Tokenizer, text: str) -> None:
    token_ids = tokenizer.encode(text, allow_special=False)
    spelled = tokenizer.spell(token_ids)
    assert spelled == [token for letter in text for token in tokenizer.encode(letter, allow_special=False)]
    assert tokenizer.decode(spelled) == text


def test_spelling_keeps_added_tokens(tokenizer: Tokenizer) -> None:
    call = tokenizer.encode("<|tool_call|>[]<|/tool_call|><|end|>", allow_special=True)
    spelled = tokenizer.spell(call)
    assert [t for t in spelled if t in tokenizer.added.by_id] == [t for t in call if t in tokenizer.added.by_id]
    assert tokenizer.decode(spelled, skip_special=False) == "<|tool_call|>[]<|/tool_call|><|end|>"


def test_role_tokens_swallow_white_space_and_placeholders_do_not(tokenizer: Tokenizer) -> None:
    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, allow_special=True)

    assert encode("<|user|>\n Hi") == encode("<|user|>Hi")
    assert encode("<|endoftext10|> Hi") != encode("<|endoftext10|>Hi")


def test_tool_tokens_survive_decoding_and_special_tokens_do_not(tokenizer: Tokenizer) -> None:
    token_ids = tokenizer.encode("<|tool_call|>[]<|/tool_call|><|end|>", allow_special=True)
    assert tokenizer.decode(token_ids) == "<|tool_call|>[]<|/tool_call|>"
    assert tokenizer.decode(token_ids, skip_special=False) == "<|tool_call|>[]<|/tool_call|><|end|>"


@given(data=st.data(), skip_special=st.booleans())
def test_any_ids_decode_as_in_the_library_and_streamed_as_at_once(
    tokenizer: Tokenizer, reference_tokenizer: BackendTokenizer, data: st.DataObject, skip_special: bool
) -> None:
    token_ids = data.draw(st.lists(st.integers(0, reference_tokenizer.get_vocab_size() + 2), max_size=20))
    whole = tokenizer.decode(token_ids, skip_special=skip_special)
    assert whole == reference_tokenizer.decode(token_ids, skip_special_tokens=skip_special)
    stream = TextStream(tokenizer, skip_special=skip_special)
    assert "".join([*map(stream.push, token_ids), stream.flush()]) == whole


@given(text=st.text())
def test_streaming_valid_text_never_emits_a_broken_character(tokenizer: Tokenizer, text: str) -> None:
    stream = TextStream(tokenizer)
    pieces = [stream.push(token_id) for token_id in tokenizer.encode(text, allow_special=False)]
    assert "".join(pieces) == text
    assert stream.flush() == ""


def test_an_emoji_of_several_tokens_comes_out_whole(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer)
    pieces = [stream.push(token_id) for token_id in tokenizer.encode("🦜", allow_special=False)]
    assert len(pieces) > 1
    assert pieces[-1] == "🦜"
    assert not any(pieces[:-1])


def test_invalid_utf8_from_the_command_line_is_named(tokenizer: Tokenizer) -> None:
    text = b"caf\xe9".decode("utf-8", "surrogateescape")
    with pytest.raises(InputError, match=r"character 3 is the lone surrogate U\+DCE9"):
        tokenizer.encode(text, allow_special=True)


def test_flags_in_the_tokenizer_config_win_as_in_transformers(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    raw = phi_tokenizer_json()
    decoder = {str(entry["id"]): {**entry, "rstrip": True} for entry in raw["added_tokens"]}
    new_id = len(raw["model"]["vocab"])
    decoder[str(new_id)] = {**raw["added_tokens"][0], "content": "<|new|>", "lstrip": True}
    for entry in decoder.values():
        del entry["id"]
    for entry in raw["added_tokens"]:
        entry["rstrip"] = False
    write_json(tmp_path / "tokenizer.json", raw)
    write_json(tmp_path / "tokenizer_config.json", {"added_tokens_decoder": decoder})
    text = "<|user|> \n Hi \t<|new|> there<|endoftext10|> you"
    expected = PreTrainedTokenizerFast.from_pretrained(tmp_path)(text)["input_ids"]
    assert Tokenizer.load(tmp_path).encode(text, allow_special=True) == expected


def test_a_byte_outside_the_vocabulary_is_an_error_instead_of_lost_text(tmp_path: Path) -> None:
    raw = phi_tokenizer_json()
    del raw["model"]["vocab"]["\u0104"]  # how byte-level BPE writes the byte 0x04
    write_json(tmp_path / "tokenizer.json", raw)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("Hello", allow_special=False)
    with pytest.raises(InputError, match="0x04"):
        tokenizer.encode("Hel\x04lo", allow_special=False)


def test_truncation_and_begin_tokens_in_the_file_are_not_applied(tmp_path: Path, tokenizer: Tokenizer) -> None:
    raw = phi_tokenizer_json()
    raw["truncation"] = {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    write_json(tmp_path / "tokenizer.json", raw)
    loaded = Tokenizer.load(tmp_path).encode("Hello there", allow_special=False)
    assert loaded == tokenizer.encode("Hello there", allow_special=False)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model":')
    with pytest.raises(ConfigError, match="is not valid JSON"):
        Tokenizer.load(tmp_path)
    write_json(tmp_path / "tokenizer.json", {**phi_tokenizer_json(), "pre_tokenizer": {"type": "Unknown"}})
    with pytest.raises(ConfigError, match="not a usable tokenizer"):
        Tokenizer.load(tmp_path)
    write_json(tmp_path / "tokenizer.json", {**phi_tokenizer_json(), "added_tokens": [{"id": 3}]})
    with pytest.raises(ConfigError, match="is damaged: KeyError"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "damage", [{"model": [1]}, {"model": "BPE"}, {"decoder": [1]}, {"added_tokens": 3}, {"added_tokens": ["<|user|>"]}]
)
def test_values_of_the_wrong_type_are_configuration_errors(tmp_path: Path, damage: dict[str, Any]) -> None:
    write_json(tmp_path / "tokenizer.json", {**phi_tokenizer_json(), **damage})
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_other_kinds_of_tokenizer_are_refused(tmp_path: Path) -> None:
    raw = phi_tokenizer_json()
    write_json(tmp_path / "tokenizer.json", {**raw, "decoder": {"type": "Metaspace"}})
    with pytest.raises(ConfigError, match="byte-level BPE"):
        Tokenizer.load(tmp_path)


def test_an_added_token_that_plain_text_could_reach_is_refused(tmp_path: Path) -> None:
    raw = phi_tokenizer_json()
    raw["model"]["vocab"]["<|"] = len(raw["model"]["vocab"])
    raw["model"]["merges"].append(["<", "|"])
    raw["added_tokens"].append({**raw["added_tokens"][0], "content": "<|", "id": raw["model"]["vocab"]["<|"]})
    write_json(tmp_path / "tokenizer.json", raw)
    with pytest.raises(ConfigError, match="plain text"):
        Tokenizer.load(tmp_path)
