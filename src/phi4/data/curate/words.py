"""The words that datatrove's rules and MinHash see, found in a fraction of the time.

datatrove asks spaCy for the words of each document in a memory zone of its own, at whose end spaCy forgets all that it
met, so every word of every document is taken apart anew. Here it remembers, and begins anew when that becomes much.

What stands without a space is taken apart sign by sign, in a time that grows with the square of its length: 31,000
brackets in a row would take minutes. Here very long rows are cut first.
"""

import re
from typing import Any

from datatrove.utils.word_tokenizers import SpaCyTokenizer, strip_strings

# Different words that are remembered: about 100 MB.
MAX_WORDS = 200_000
# Signs in a row that are taken apart at once; of letters and signs together, ten times as many.
MAX_SIGNS = 100
_LONG_ROW = re.compile(rf"[^\w\s]{{{MAX_SIGNS}}}(?=[^\w\s])|\S{{{10 * MAX_SIGNS}}}(?=\S)")

_datatroves_words = SpaCyTokenizer.word_tokenize


def remember_words() -> None:
    """Lets datatrove find words that way in this process; the words stay the same, but for very long rows."""
    SpaCyTokenizer.word_tokenize = _words


def _words(self: Any, text: str) -> list[str]:
    from spacy.tokenizer import Tokenizer

    if type(self.tokenizer.tokenizer) is not Tokenizer:
        # Languages that are not written with spaces have tokenizers of their own.
        return list(_datatroves_words(self, text))
    if len(self.tokenizer.vocab) > MAX_WORDS:
        # datatrove makes another one when it is asked for.
        self._tokenizer = None
    if max(map(len, text.split()), default=0) > MAX_SIGNS:
        text = _LONG_ROW.sub(r"\g<0> ", text)
    # The name of an attribute of spaCy's, on which it fails where it met it before; then datatrove takes it out, too.
    tokens = self.tokenizer.tokenizer(text.replace("IS_ALPHA", ""))
    return list(strip_strings([token.text for token in tokens]))
