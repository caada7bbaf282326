"""What an answer is held to: only tokens that some grammar allows."""

from typing import Protocol

import torch


class Constraint(Protocol):
    """Follows one answer token by token. It knows ids; whoever made it knows the strings behind them."""

    def allowed(self) -> torch.Tensor | None:
        """The tokens that may come next: bool, True = allowed, [vocabulary], at least one of them; None for all.

        Raises:
            Phi4Error: there are none, or the grammar is too complex; it ends the request.
        """
        ...

    def advance(self, token_id: int) -> None:
        """Takes the token that was chosen; it was allowed."""
        ...
