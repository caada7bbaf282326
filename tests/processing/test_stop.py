"""Stop strings across the borders of pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4.errors import InputError
from phi4.processing.stop import StopScanner

texts = st.text(alphabet="ab<>", max_size=40)
stops = st.lists(st.text(alphabet="ab<>", min_size=1, max_size=4), max_size=3)


def scan(pieces: list[str], stop: list[str]) -> str:
    scanner = StopScanner(stop)
    out = []
    for piece in pieces:
        out.append(scanner.feed(piece))
        if scanner.stopped:
            return "".join(out)
    return "".join(out) + scanner.flush()


@given(texts, stops)
def test_pieces_of_one_character_give_the_text_before_the_stop_that_ends_first(text: str, stop: list[str]) -> None:
    ends = [text.find(s) + len(s) for s in stop if s in text]
    expected = text
    if ends:
        end = min(ends)
        expected = text[: min(end - len(s) for s in stop if text[:end].endswith(s))]
    assert scan(list(text), stop) == expected


@given(texts)
def test_without_stop_strings_every_piece_passes_at_once(text: str) -> None:
    scanner = StopScanner([])
    assert scanner.feed(text) == text


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    scanner = StopScanner(["</end>"])
    assert scanner.feed("answer <") == "answer "
    assert scanner.feed("b>") == "<b>"


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        StopScanner([""])
