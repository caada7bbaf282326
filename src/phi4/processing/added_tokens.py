"""Tokens that stand in the text under a name of their own, such as `<|user|>`, and where they occur."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from phi4.errors import ConfigError

# What Unicode calls White_Space, which is what the tokenizers library strips; str.isspace() knows four more.
WHITE_SPACE = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


@dataclass(frozen=True)
class AddedToken:
    """One added token.

    Attributes:
        token_id: its id.
        text: how it is written.
        special: whether decoding may leave it out; the tool tokens of the release are not special.
        lstrip: whether it swallows the white space before it.
        rstrip: whether it swallows the white space after it, as the role tokens of the release do (facts sheet 2.1).
    """

    token_id: int
    text: str
    special: bool
    lstrip: bool
    rstrip: bool


@dataclass(frozen=True)
class AddedTokens:
    """All added tokens of a tokenizer."""

    tokens: tuple[AddedToken, ...]

    @cached_property
    def by_id(self) -> dict[int, AddedToken]:
        """The tokens by their ids."""
        return {token.token_id: token for token in self.tokens}

    @cached_property
    def by_text(self) -> dict[str, AddedToken]:
        """The tokens by how they are written."""
        return {token.text: token for token in self.tokens}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.by_text, key=len, reverse=True)
        # An empty alternation would match everywhere; (?!) matches nowhere.
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def split(self, text: str) -> list[str | AddedToken]:
        """Cuts `text` into added tokens and the strings between them, exactly as the tokenizers library does.

        The leftmost token wins, of those the longest. White space that a token swallows is gone from the result.
        """
        pieces: list[str | AddedToken] = []
        position = 0
        for match in self._pattern.finditer(text):
            token = self.by_text[match[0]]
            section, end = text[position : match.start()], match.end()
            if token.lstrip:
                section = section.rstrip(WHITE_SPACE)
            while token.rstrip and end < len(text) and text[end] in WHITE_SPACE:
                end += 1
            if section:
                pieces.append(section)
            pieces.append(token)
            position = end
        if position < len(text):
            pieces.append(text[position:])
        return pieces


def read_added_tokens(tokenizer: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> AddedTokens:
    """Reads the added tokens of `tokenizer.json`, which `tokenizer_config.json` may change or add to.

    Raises:
        ConfigError: a token asks for matching that is not supported here.
    """
    entries = {entry["content"]: entry for entry in tokenizer.get("added_tokens") or []}
    for token_id, entry in (tokenizer_config.get("added_tokens_decoder") or {}).items():
        entries[entry["content"]] = {**entry, "id": int(token_id)}
    has_normalizer = tokenizer.get("normalizer") is not None
    return AddedTokens(tuple(_read_added_token(entry, has_normalizer) for entry in _by_id(entries.values())))


def _by_id(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(entries, key=lambda entry: int(entry["id"]))


def _read_added_token(entry: Mapping[str, Any], has_normalizer: bool) -> AddedToken:
    text = entry["content"]
    if not text:
        raise ConfigError(f"the added token {entry['id']} of the tokenizer has no text")
    if entry.get("single_word"):
        raise ConfigError(f"the added token {text!r} asks for single_word matching, which is not supported")
    if entry.get("normalized") and has_normalizer:
        raise ConfigError(f"the added token {text!r} asks for matching in normalised text, which is not supported")
    return AddedToken(
        token_id=int(entry["id"]),
        text=text,
        special=bool(entry.get("special")),
        lstrip=bool(entry.get("lstrip")),
        rstrip=bool(entry.get("rstrip")),
    )
