"""Language modelling of the answers or of whole texts: the objective of most stages."""

from collections.abc import Sequence

import torch

from phi4.data.example import Example
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.loss import chunked_cross_entropy
from phi4.train.objectives.layout import PackedLayout, lay_out
from phi4.train.objectives.loss import Loss, ObjectiveLoss


class AnswerLoss(ObjectiveLoss):
    """Cross-entropy of the target tokens; no score is computed for any other row."""

    def __init__(self, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute

    def count(self, examples: Sequence[Example]) -> int:
        """Target tokens."""
        return sum(len(example.targets) for example in examples)

    def forward(self, model: Phi4Mini | Phi4Multimodal, examples: Sequence[Example]) -> Loss:
        """Runs the examples as segments of one packed row."""
        layout = lay_out(model, examples)
        total, correct = chunked_cross_entropy(*states_before_targets(model, layout, self.recompute))
        return Loss(total, int(correct))


def states_before_targets(
    model: Phi4Mini | Phi4Multimodal, layout: PackedLayout, recompute: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Runs a packed row.

    Returns:
        Final hidden states of the rows that have a target, [rows, hidden], the head, [vocabulary, hidden], and the
        targets, [rows].
    """
    step = model.step(layout.segments, layout.output_rows, recompute=recompute)
    hidden = model(embed(model, layout), step)
    head = model.head_weight
    assert isinstance(head, torch.Tensor), "training refuses quantised models before it begins"
    return hidden, head, torch.tensor(layout.targets, device=model.device)


def embed(model: Phi4Mini | Phi4Multimodal, layout: PackedLayout) -> torch.Tensor:
    """Embeds packed tokens, the features of media in the places of their placeholders: [tokens, hidden]."""
    embeddings = model.embed(torch.tensor(layout.token_ids, device=model.device))
    if not layout.media:
        return embeddings
    features = model.encode_together(
        [placed.medium for placed in layout.media], [placed.adapter for placed in layout.media]
    )
    rows = [row for placed in layout.media for row in range(placed.row, placed.row + placed.medium.num_tokens)]
    return embeddings.index_copy(0, torch.tensor(rows, device=model.device), torch.cat(features))
