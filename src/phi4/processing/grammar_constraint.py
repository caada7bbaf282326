"""One answer on its way through a grammar."""

import llguidance
import numpy as np
import torch

from phi4.errors import InputError


class GrammarConstraint:
    """Follows one answer through a grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    @property
    def is_satisfied(self) -> bool:
        """Whether the answer may end here."""
        satisfied: bool = self._matcher.is_accepting()
        return satisfied

    def allowed(self) -> torch.Tensor:
        """The tokens that may come next, bool, [vocabulary]; end tokens where the grammar is satisfied.

        Raises:
            InputError: the grammar became too complex on the way.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        mask = np.unpackbits(bits, count=self._vocab_size, bitorder="little").astype(bool)
        return torch.from_numpy(mask)

    def advance(self, token_id: int) -> None:
        """Takes the next token of the answer."""
        self._matcher.consume_token(token_id)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            reason, _, _ = self._matcher.get_error().partition("\n<state>")
            raise InputError(f"the answer cannot follow its grammar any further: {reason}")
