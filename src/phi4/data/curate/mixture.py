"""How much of each collection is taken: shares of a budget of tokens, and which documents fill them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Taken:
    """What is taken of one collection.

    Attributes:
        collection: its name.
        share: of the mixture's weights, 0 to 1; None without a mixture.
        tokens_there: before.
        tokens_taken: after.
        documents_there: before.
        documents_taken: after.
    """

    collection: str
    share: float | None
    tokens_there: int
    tokens_taken: int
    documents_there: int
    documents_taken: int


def token_limits(there: Mapping[str, int], mixture: Mapping[str, float], budget: int | None) -> dict[str, float]:
    """Says how many tokens of each collection may be taken.

    What a collection lacks of its share of a budget goes to the others by their weights. Nothing is taken twice.

    Args:
        there: tokens of each collection.
        mixture: weights; empty for those of what is there.
        budget: tokens in all; None for as many as hold the mixture exactly.
    """
    weights = {name: float(mixture.get(name, 0.0) if mixture else tokens) for name, tokens in there.items()}
    total = sum(weights.values())
    if budget is None:
        if not mixture:
            return {name: float(tokens) for name, tokens in there.items()}
        budget = int(min(tokens * total / weights[name] for name, tokens in there.items()))
    limits: dict[str, float] = {}
    left, open_names = float(budget), set(there)
    while open_names:
        total = sum(weights[name] for name in open_names)
        shares = {name: left * weights[name] / total if total else 0.0 for name in open_names}
        short = {name for name in open_names if there[name] < shares[name]}
        for name in short or open_names:
            limits[name] = min(float(there[name]), shares[name])
        left -= sum(limits[name] for name in short)
        open_names = open_names - short if short else set()
    return limits


def choose(order: np.ndarray, tokens: np.ndarray, limit: float) -> np.ndarray:
    """Chooses documents by an order that has nothing to do with their contents, until the next one would not fit.

    Args:
        order: uint64, [documents]: hashes of their ids.
        tokens: int64, [documents].
        limit: tokens at most.

    Returns:
        bool, [documents].
    """
    ranking = np.lexsort((np.arange(len(order)), order))
    chosen = np.zeros(len(order), dtype=bool)
    chosen[ranking] = np.cumsum(tokens[ranking]) <= limit
    return chosen
