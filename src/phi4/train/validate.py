"""Loss and accuracy on records that are held out for watching the training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from phi4.data.example import Example
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.objectives import ObjectiveLoss

# Most examples of one forward pass.
BATCH_EXAMPLES = 16


@dataclass(frozen=True)
class ValidScore:
    """Means over the terms of an objective.

    Attributes:
        loss: mean loss.
        accuracy: share of terms that are predicted exactly: of tokens for answers, of whole texts for the others.
    """

    loss: float
    accuracy: float


@torch.no_grad()
def validate(
    model: Phi4Mini | Phi4Multimodal,
    objectives: Mapping[str, ObjectiveLoss],
    examples: Mapping[str, Sequence[Example]],
    tokens_per_row: int,
) -> dict[str, ValidScore]:
    """Scores each source's examples with its objective; a source without any is left out.

    Args:
        model: left in evaluation mode.
        objectives: of each source.
        examples: of each source.
        tokens_per_row: no forward pass is longer, unless one example is, so that none needs more than training does.
    """
    model.eval()
    scores = {}
    for source, own in examples.items():
        total, correct, count = 0.0, 0, 0
        for batch in cut_batches(own, tokens_per_row):
            loss = objectives[source](model, batch)
            total += float(loss.total)
            correct += loss.correct
            count += objectives[source].count(batch)
        if count:
            scores[source] = ValidScore(total / count, correct / count)
    return scores


def cut_batches(examples: Sequence[Example], tokens_per_row: int) -> Iterator[list[Example]]:
    """Groups examples, in their order, into passes of at most so many tokens; a longer one stands alone."""
    batch: list[Example] = []
    room = tokens_per_row
    for example in examples:
        length = example.num_tokens
        if batch and (length > room or len(batch) == BATCH_EXAMPLES):
            yield batch
            batch, room = [], tokens_per_row
        batch.append(example)
        room -= length
    if batch:
        yield batch
