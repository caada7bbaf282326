"""Writes `tokenizer.json` and `tokenizer_config.json` of byte-level BPE tokenizers, Phi-4's among them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from phi4.byte_level import byte_alphabet
from phi4.checkpoint.directories import write_json


@dataclass(frozen=True)
class AddedToken:
    """A token that is looked for in the text before any other is.

    Attributes:
        id: its row in the embedding.
        content: its text.
        rstrip: whether it swallows the white space that follows it.
        special: whether decoding may leave it out; the tool tokens are not special (facts sheet 2.1).
    """

    id: int
    content: str
    rstrip: bool = False
    special: bool = True


PLACEHOLDERS = ("<|endoftext10|>", "<|endoftext11|>")

# Facts sheet 2.1. The two placeholders belong to the multimodal tokenizer only.
PHI4_TOKENS = (
    AddedToken(199999, "<|endoftext|>"),
    AddedToken(200010, "<|endoftext10|>"),
    AddedToken(200011, "<|endoftext11|>"),
    AddedToken(200018, "<|endofprompt|>"),
    AddedToken(200019, "<|assistant|>", rstrip=True),
    AddedToken(200020, "<|end|>", rstrip=True),
    AddedToken(200021, "<|user|>", rstrip=True),
    AddedToken(200022, "<|system|>", rstrip=True),
    AddedToken(200023, "<|tool|>", rstrip=True, special=False),
    AddedToken(200024, "<|/tool|>", rstrip=True, special=False),
    AddedToken(200025, "<|tool_call|>", rstrip=True, special=False),
    AddedToken(200026, "<|/tool_call|>", rstrip=True, special=False),
    AddedToken(200027, "<|tool_response|>", rstrip=True, special=False),
    AddedToken(200028, "<|tag|>", rstrip=True),
)

BYTE_LEVEL_SPLIT = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_BYTE_LEVEL_MAP = {**BYTE_LEVEL_SPLIT, "use_regex": False}


def regex_split(pattern: str) -> dict[str, Any]:
    """A pre-tokenizer that cuts text at a pattern's matches, then spells the pieces in bytes."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _BYTE_LEVEL_MAP]}


def tokenizer_json(
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    added: Sequence[AddedToken],
    pre_tokenizer: Mapping[str, Any],
    ignore_merges: bool = False,
    post_processor: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Puts the parts of a byte-level BPE tokenizer together in the tokenizers library's format.

    Args:
        vocabulary: id of every token, spelt in the byte alphabet.
        merges: pairs that are joined, the earliest first.
        added: tokens that are looked for in the text first; they enter the vocabulary too, which is what lets their
            ids have gaps.
        pre_tokenizer: how text is cut into the pieces inside which merging happens.
        ignore_merges: whether a piece that is a token as a whole is taken at once.
        post_processor: adds tokens around the text, such as a first one.
    """
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token.id,
                "content": token.content,
                "single_word": False,
                "lstrip": False,
                "rstrip": token.rstrip,
                "normalized": False,
                "special": token.special,
            }
            for token in added
        ],
        "normalizer": None,
        "pre_tokenizer": dict(pre_tokenizer),
        "post_processor": None if post_processor is None else dict(post_processor),
        "decoder": _BYTE_LEVEL_MAP,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": {**vocabulary, **{token.content: token.id for token in added}},
            "merges": [list(pair) for pair in merges],
        },
    }


def phi4_tokenizer_config(added: Sequence[AddedToken], model_max_length: int) -> dict[str, Any]:
    """Returns the release's `tokenizer_config.json` with its chat template (facts sheet 2.1 and 3.1).

    One value is not the release's: its tokenizer_class, GPT2TokenizerFast, makes transformers 5 put GPT-2's splitting
    in the place of the one in tokenizer.json, which gives other ids.
    """
    end = "<|endoftext|>"
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(token.id): {
                "content": token.content,
                "lstrip": False,
                "normalized": False,
                "rstrip": token.rstrip,
                "single_word": False,
                "special": token.special,
            }
            for token in added
        },
        "bos_token": end,
        "chat_template": template("phi4"),
        "clean_up_tokenization_spaces": False,
        "eos_token": end,
        "model_max_length": model_max_length,
        "pad_token": end,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": end,
    }


def save_tokenizer(directory: Path, tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Writes `tokenizer.json`, on one line because it can hold a million of them, and `tokenizer_config.json`."""
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    write_json(directory / "tokenizer_config.json", config)


def template(name: str) -> str:
    """Reads a chat template that comes with the package."""
    return (resources.files("phi4.checkpoint") / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def write_tiny_tokenizer(directory: Path) -> None:
    """Writes the tokenizer of the `tiny` preset: 256 bytes, then Phi-4's added tokens at the ids from 256 on."""
    vocabulary = {letter: byte for byte, letter in enumerate(byte_alphabet())}
    added = [
        AddedToken(token_id, token.content, token.rstrip, token.special)
        for token_id, token in enumerate(PHI4_TOKENS, start=256)
    ]
    tokenizer = tokenizer_json(vocabulary, [], added, BYTE_LEVEL_SPLIT)
    save_tokenizer(directory, tokenizer, phi4_tokenizer_config(added, model_max_length=131072))
