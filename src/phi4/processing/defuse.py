"""Marks text from outside so that no control token can come about in it when a chat template prints it.

A template prints control tokens and messages into one string, in which a message that says `<|end|>` could not be told
from the template's own token. So a marker, a character that no text holds, is put into message text wherever a token
could be made of it, alone or together with what stands around it. Tokens are then looked for in the marked string,
and the markers are taken out of the text between them before it is encoded: the text itself is never changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from phi4.errors import InputError

# Code points that Unicode reserves for a program's own use; texts have no reason to hold them.
NONCHARACTERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))


def choose_marker(texts: Iterable[str]) -> str:
    """Picks a character that occurs in none of the texts.

    Raises:
        InputError: the texts hold every one of Unicode's 32 noncharacters from U+FDD0 on.
    """
    used = set().union(*texts)
    for marker in NONCHARACTERS:
        if marker not in used:
            return marker
    raise InputError("the conversation holds all noncharacters U+FDD0 to U+FDEF; remove at least one of them")


@dataclass(frozen=True)
class Defuser:
    """Puts markers into text from outside.

    Attributes:
        token_texts: how the control tokens are written.
        marker: a character that occurs in no text of the conversation.
    """

    token_texts: Sequence[str]
    marker: str

    @cached_property
    def _marked_first_characters(self) -> dict[int, str]:
        return {ord(text[0]): text[0] + self.marker for text in self.token_texts}

    def text(self, text: str) -> str:
        """Marks `text` so that no control token in the rendered template can hold any of its characters.

        A token that begins inside the text is broken after its first character. A token that begins before the text
        needs the text to go on in the token's middle, and is broken in front of the text. The marker in front stands
        behind leading white space, because templates trim messages.
        """
        core = text.strip()
        if not core:
            return text
        before, _, after = text.partition(core)
        front = self.marker if self._continues_a_token(core) else ""
        return before + front + core.translate(self._marked_first_characters) + after

    def value(self, value: Any) -> Any:
        """Marks all strings of a JSON value except object keys that are identifiers, which templates look up.

        An identifier in which a token occurs is marked nevertheless, and a template that looks it up finds nothing.
        """
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {self._key(key): self.value(member) for key, member in value.items()}
            case list() | tuple():
                return [self.value(member) for member in value]
            case _:
                return value

    def remove(self, text: str) -> str:
        """Takes the markers out again."""
        return text.replace(self.marker, "")

    def _key(self, key: str) -> str:
        is_harmless = key.isidentifier() and not any(token in key for token in self.token_texts)
        return key if is_harmless else self.text(key)

    def _continues_a_token(self, core: str) -> bool:
        tails = (token[start:] for token in self.token_texts for start in range(1, len(token)))
        return any(core.startswith(tail) or tail.startswith(core) for tail in tails)
