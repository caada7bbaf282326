"""Guesses are what followed the last time, and never more than asked for."""

from hypothesis import given
from hypothesis import strategies as st

from phi4.engine.prompt_lookup import NGRAM_TOKENS, PromptLookup


def last_continuation(token_ids: list[int], max_tokens: int) -> tuple[int, ...]:
    """The definition, by looking at every place."""
    end = token_ids[-NGRAM_TOKENS:]
    for start in range(len(token_ids) - NGRAM_TOKENS - 1, -1, -1):
        if token_ids[start : start + NGRAM_TOKENS] == end:
            return tuple(token_ids[start + NGRAM_TOKENS :][:max_tokens])
    return ()


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 39), st.integers(0, 5))
def test_a_guess_is_what_followed_the_last_time(token_ids: list[int], first: int, max_tokens: int) -> None:
    lookup = PromptLookup()
    for length in range(min(first, len(token_ids)), len(token_ids) + 1):
        assert lookup.propose(token_ids[:length], max_tokens) == last_continuation(token_ids[:length], max_tokens)
