"""The words that datatrove's rules and MinHash see, found in a fraction of the time.

datatrove asks spaCy for the words of each document in a memory zone of its own, at whose end spaCy forgets all that it
met, so every word of every document is taken apart anew. Here it remembers, and begins anew when that becomes much.
"""

from typing import Any

from datatrove.utils.word_tokenizers import SpaCyTokenizer, strip_strings

# Different words that are remembered: about 100 MB.
MAX_WORDS = 200_000

_datatroves_words = SpaCyTokenizer.word_tokenize


def remember_words() -> None:
    """Lets datatrove find words that way in this process; the words stay the same."""
    SpaCyTokenizer.word_tokenize = _words


def _words(self: Any, text: str) -> list[str]:
    from spacy.tokenizer import Tokenizer

    if type(self.tokenizer.tokenizer) is not Tokenizer:
        # Languages that are not written with spaces have tokenizers of their own.
        return list(_datatroves_words(self, text))
    if len(self.tokenizer.vocab) > MAX_WORDS:
        # datatrove makes another one when it is asked for.
        self._tokenizer = None
    # The name of an attribute of spaCy's, on which it fails where it met it before; then datatrove takes it out, too.
    tokens = self.tokenizer.tokenizer(text.replace("IS_ALPHA", ""))
    return list(strip_strings([token.text for token in tokens]))
