"""Text to token ids and back: a byte-level BPE tokenizer read from a checkpoint's `tokenizer.json`."""

import codecs
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import tokenizers

from phi4.byte_level import byte_alphabet
from phi4.errors import ConfigError, InputError
from phi4.json_file import read_json
from phi4.processing.added_tokens import AddedToken, AddedTokens, read_added_tokens

BYTE_OF_CHARACTER = {character: byte for byte, character in enumerate(byte_alphabet())}


@dataclass(frozen=True)
class Tokenizer:
    """A byte-level BPE tokenizer that keeps text and added tokens apart.

    Attributes:
        plain: encodes text in which no added token is known.
        added: the added tokens.
        missing_bytes: bytes that the vocabulary cannot write; SmolLM2's, for one, lacks some control characters.
    """

    plain: tokenizers.Tokenizer
    added: AddedTokens
    missing_bytes: frozenset[int]

    @classmethod
    def load(cls, directory: Path) -> "Tokenizer":
        """Reads `tokenizer.json`, and `tokenizer_config.json` where there is one.

        Raises:
            ConfigError: a file is missing or damaged, or the tokenizer is not byte-level BPE.
        """
        path = directory / "tokenizer.json"
        config_path = directory / "tokenizer_config.json"
        raw = read_json(path)
        config = read_json(config_path) if config_path.exists() else {}
        model, decoder = raw.get("model"), raw.get("decoder")
        if not (isinstance(model, Mapping) and model.get("type") == "BPE"):
            raise ConfigError(f"{path} holds no BPE model; byte-level BPE is supported")
        if not (isinstance(decoder, Mapping) and decoder.get("type") == "ByteLevel"):
            raise ConfigError(f"{path} holds no ByteLevel decoder; byte-level BPE is supported")
        try:
            added = read_added_tokens(raw, config)
            vocabulary = _plain_vocabulary(model, added)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path} or {config_path.name} is damaged: {error!r}") from error
        plain = {**raw, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        plain["model"] = {**model, "vocab": vocabulary, "unk_token": None}
        try:
            backend = tokenizers.Tokenizer.from_str(json.dumps(plain))
        except Exception as error:  # the library raises nothing narrower
            raise ConfigError(f"{path} is not a usable tokenizer: {error}") from error
        missing = frozenset(byte for character, byte in BYTE_OF_CHARACTER.items() if character not in vocabulary)
        return cls(plain=backend, added=added, missing_bytes=missing)

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        """Turns text into token ids. No token is put in front or behind.

        Args:
            text: what to encode.
            allow_special: whether `<|user|>` and the like become the tokens that they name. Only for text that the
                program wrote itself: text from outside could otherwise pass for another speaker's.

        Raises:
            InputError: the text holds a lone surrogate, or a byte that the vocabulary lacks.
        """
        if not allow_special:
            return self._encode_plain(text)
        return self.encode_pieces(self.added.split(text))

    def encode_pieces(self, pieces: Iterable[str | AddedToken]) -> list[int]:
        """Turns plain strings and added tokens, in that order, into token ids; an added token inside a string is text.

        Raises:
            InputError: as in `encode`.
        """
        token_ids: list[int] = []
        for piece in pieces:
            token_ids.extend([piece.token_id] if isinstance(piece, AddedToken) else self._encode_plain(piece))
        return token_ids

    def _encode_plain(self, text: str) -> list[int]:
        try:
            encoded = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"the text is not valid Unicode: character {error.start} is the lone surrogate "
                f"U+{ord(text[error.start]):04X}, which is what invalid UTF-8 turns into; give the text as UTF-8"
            ) from error
        if self.missing_bytes:
            missing = self.missing_bytes.intersection(encoded)
            if missing:
                named = ", ".join(f"0x{byte:02X}" for byte in sorted(missing))
                raise InputError(
                    f"the text holds bytes that this model's vocabulary cannot write: {named}; "
                    "remove the control characters or rare symbols that need them"
                )
        ids: list[int] = self.plain.encode(text, add_special_tokens=False).ids
        return ids

    def spell(self, token_ids: Iterable[int]) -> list[int]:
        """Writes the same text letter by letter: the tokens of each character alone. Added tokens stay as they are.

        Args:
            token_ids: of whole characters, as `encode` makes them.
        """
        spelled: list[int] = []
        for is_added, run in groupby(token_ids, self.added.by_id.__contains__):
            if is_added:
                spelled += run
            else:
                spelled += [token for letter in self.decode(run) for token in self._encode_plain(letter)]
        return spelled

    def token_bytes(self, token_id: int) -> bytes:
        """What one token adds to a text, as bytes; nothing for an id without text."""
        added = self.added.by_id.get(token_id)
        if added is not None:
            return added.text.encode("utf-8")
        written = self.plain.id_to_token(token_id) or ""
        try:
            return bytes(BYTE_OF_CHARACTER[character] for character in written)
        except KeyError:
            return written.encode("utf-8")

    def decode(self, token_ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Turns token ids into text; bytes that are not UTF-8 become U+FFFD.

        Args:
            token_ids: ids of this tokenizer. Ids without text, of which the release has dozens, add nothing.
            skip_special: whether special tokens are left out. Tool tokens are not special and stay.
        """
        stream = TextStream(self, skip_special=skip_special)
        return "".join([*map(stream.push, token_ids), stream.flush()])


class TextStream:
    """Decodes one token at a time and never emits half a character.

    Everything that `push` returned, joined, with what `flush` returns behind it, equals `Tokenizer.decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Takes the next token and returns the characters that it completes, often none or several."""
        added = self._tokenizer.added.by_id.get(token_id)
        if added is not None and added.special and self._skip_special:
            return ""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """Ends the text: a character that was left unfinished becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)


def _plain_vocabulary(model: Mapping[str, Any], added: AddedTokens) -> dict[str, int]:
    """The vocabulary without the added tokens, so that no text can be encoded as one of them."""
    merged = {merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge) for merge in model["merges"]}
    reachable = sorted(text for text in added.by_text if text in merged or len(text) == 1)
    if reachable:
        raise ConfigError(f"the tokenizer lets plain text be encoded as the added tokens {reachable}")
    return {text: token_id for text, token_id in model["vocab"].items() if text not in added.by_text}
