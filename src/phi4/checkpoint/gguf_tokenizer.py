"""The tokenizer inside a GGUF file, written as the files that the tokenizers library and transformers read."""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

from phi4.checkpoint.o200k import SPLIT_PATTERN
from phi4.checkpoint.tokenizer_files import (
    BYTE_LEVEL_SPLIT,
    PHI4_TOKENS,
    AddedToken,
    regex_split,
    save_tokenizer,
    tokenizer_json,
)
from phi4.errors import CheckpointError

_LLAMA3_PATTERN = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
_DIGITS_THEN_BYTES = {
    "type": "Sequence",
    "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL_SPLIT],
}

# `tokenizer.ggml.pre` -> how text is cut, and whether a piece that is a token as a whole is taken at once.
PRE_TOKENIZERS: Mapping[str, tuple[Mapping[str, Any], bool]] = {
    "default": (BYTE_LEVEL_SPLIT, False),
    "gpt-2": (BYTE_LEVEL_SPLIT, False),
    "smollm": (_DIGITS_THEN_BYTES, False),
    "gpt-4o": (regex_split(SPLIT_PATTERN), True),
    "llama-bpe": (regex_split(_LLAMA3_PATTERN), True),
}

# Tokens that end a turn where the chat template uses them, whatever the file says about eos.
_TURN_ENDS = ("<|im_end|>", "<|end|>", "<|eot_id|>")


class TokenType(IntEnum):
    """Values of `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def end_token_ids(metadata: Mapping[str, Any]) -> list[int]:
    """Returns the ids that end an answer: eos, the end-of-turn id, and the turn end of the chat template.

    Raises:
        CheckpointError: the file names none, or one that is not in its vocabulary.
    """
    tokens = _tokens(metadata)
    template = str(metadata.get("tokenizer.chat_template", ""))
    named = [_token_id(metadata, name, tokens) for name in ("eos", "eot")]
    turn_ends = [tokens.index(token) for token in _TURN_ENDS if token in template and token in tokens]
    ids = dict.fromkeys(token_id for token_id in (*named, *turn_ends) if token_id is not None)
    if not ids:
        raise CheckpointError("the GGUF file names no token that ends an answer (tokenizer.ggml.eos_token_id)")
    return list(ids)


def write_gguf_tokenizer(metadata: Mapping[str, Any], directory: Path, model_max_length: int) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json`, chat template included.

    Raises:
        CheckpointError: the tokenizer is not a byte-level BPE with a known way of cutting text.
    """
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if model != "gpt2":
        raise CheckpointError(f"the GGUF file's tokenizer is {model!r}; only byte-level BPE ('gpt2') can be imported")
    if pre not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise CheckpointError(f"the GGUF file's tokenizer cuts text as {pre!r}; known are {known}")
    tokens, types = _tokens(metadata), metadata.get("tokenizer.ggml.token_type", [])
    if not isinstance(types, list) or len(types) != len(tokens):
        raise CheckpointError(f"the GGUF file has {len(tokens)} tokens, but not as many token types")
    pre_tokenizer, ignore_merges = PRE_TOKENIZERS[pre]
    tokenizer = tokenizer_json(
        vocabulary={
            token: token_id
            for token_id, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind in (TokenType.NORMAL, TokenType.BYTE)
        },
        merges=[_merge(text) for text in metadata.get("tokenizer.ggml.merges", ())],
        added=[
            added_token(token_id, token, kind)
            for token_id, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind in (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.USER_DEFINED)
        ],
        pre_tokenizer=pre_tokenizer,
        ignore_merges=ignore_merges,
        post_processor=_bos_first(metadata, tokens),
    )
    save_tokenizer(directory, tokenizer, _tokenizer_config(metadata, tokens, model_max_length))


def added_token(token_id: int, content: str, kind: int) -> AddedToken:
    """Describes a control or user-defined token.

    GGUF files do not say which tokens swallow the white space behind them. Phi-4's are known, and recognised by
    their id and text together.
    """
    for token in PHI4_TOKENS:
        if (token.id, token.content) == (token_id, content):
            return token
    return AddedToken(token_id, content, special=kind != TokenType.USER_DEFINED)


def _tokens(metadata: Mapping[str, Any]) -> list[str]:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not tokens or not isinstance(tokens, list):
        raise CheckpointError("the GGUF file has no tokenizer (tokenizer.ggml.tokens)")
    return tokens


def _token_id(metadata: Mapping[str, Any], name: str, tokens: Sequence[str]) -> int | None:
    """Reads the id of a token with a role, such as "eos"; None if the file gives the role to no token."""
    token_id = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if token_id is None:
        return None
    if not isinstance(token_id, int) or not 0 <= token_id < len(tokens):
        raise CheckpointError(
            f"the GGUF file's tokenizer.ggml.{name}_token_id is {token_id!r}, but it has {len(tokens)} tokens"
        )
    return token_id


def _merge(text: str) -> tuple[str, str]:
    left, space, right = text.partition(" ")
    if not (left and space and right):
        raise CheckpointError(f"the GGUF file's merge {text!r} is not two pieces with a space between them")
    return left, right


def _bos_first(metadata: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, Any] | None:
    """A post-processor that puts the first token in front of a text, if the file asks for one."""
    bos_id = _token_id(metadata, "bos", tokens)
    if bos_id is None or not metadata.get("tokenizer.ggml.add_bos_token", False):
        return None
    bos = tokens[bos_id]
    special, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [special, text],
        "pair": [special, text, special, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
    }


def _tokenizer_config(metadata: Mapping[str, Any], tokens: Sequence[str], model_max_length: int) -> dict[str, Any]:
    ids = {
        "bos_token": _token_id(metadata, "bos", tokens),
        "eos_token": _token_id(metadata, "eos", tokens),
        "pad_token": _token_id(metadata, "padding", tokens),
        "unk_token": _token_id(metadata, "unknown", tokens),
    }
    template = metadata.get("tokenizer.chat_template")
    return {
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", False)),
        "add_prefix_space": False,
        **{name: tokens[token_id] for name, token_id in ids.items() if token_id is not None},
        **({} if template is None else {"chat_template": template}),
        "clean_up_tokenization_spaces": False,
        "model_max_length": model_max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
