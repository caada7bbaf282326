"""Guesses how an answer goes on where it repeats what stands before it: quoted text, code, lists."""

from collections.abc import Sequence

# So many tokens must have occurred before in the same order. Fewer find more, but mostly what is wrong.
NGRAM_TOKENS = 3


class PromptLookup:
    """Remembers, for one row, what followed each run of three tokens the last time that it occurred."""

    def __init__(self) -> None:
        self._num_indexed = 0
        self._continuations: dict[tuple[int, ...], int] = {}

    def propose(self, token_ids: Sequence[int], max_tokens: int) -> tuple[int, ...]:
        """The tokens that followed the last time, at most `max_tokens`; none if the end did not occur before.

        Args:
            token_ids: prompt and answer so far; they only ever grow from call to call.
            max_tokens: most tokens to propose.
        """
        # The end itself is not indexed yet: it would be found as its own predecessor.
        for start in range(self._num_indexed, len(token_ids) - NGRAM_TOKENS):
            self._continuations[tuple(token_ids[start : start + NGRAM_TOKENS])] = start + NGRAM_TOKENS
        self._num_indexed = max(self._num_indexed, len(token_ids) - NGRAM_TOKENS)
        place = self._continuations.get(tuple(token_ids[-NGRAM_TOKENS:]))
        return () if place is None else tuple(token_ids[place : place + max_tokens])
