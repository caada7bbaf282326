"""Loss and accuracy on records that are held out for watching the training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from phi4.data.example import Example
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.objectives import ObjectiveLoss

# Examples of one forward pass.
BATCH_EXAMPLES = 16


@dataclass(frozen=True)
class Score:
    """Means over the terms of an objective.

    Attributes:
        loss: mean loss.
        accuracy: share of terms that are predicted exactly: of tokens for answers, of whole texts for the others.
    """

    loss: float
    accuracy: float


@torch.no_grad()
def validate(
    model: Phi4Multimodal, objectives: Mapping[str, ObjectiveLoss], examples: Mapping[str, Sequence[Example]]
) -> dict[str, Score]:
    """Scores each source's examples with its objective; a source without any is left out."""
    model.eval()
    scores = {}
    for source, own in examples.items():
        total, correct, count = 0.0, 0, 0
        for start in range(0, len(own), BATCH_EXAMPLES):
            batch = own[start : start + BATCH_EXAMPLES]
            loss = objectives[source](model, batch)
            total += float(loss.total)
            correct += loss.correct
            count += objectives[source].count(batch)
        if count:
            scores[source] = Score(total / count, correct / count)
    return scores
