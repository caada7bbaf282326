"""Language modelling of the answers: the objective of all stages that train projectors and adapters."""

from collections.abc import Sequence
from itertools import accumulate

import torch

from phi4.data.example import Example
from phi4.model.multimodal import Phi4Multimodal
from phi4.model.step import Segment, rotary_for
from phi4.train.loss import chunked_cross_entropy
from phi4.train.objectives.loss import Loss, ObjectiveLoss


class AnswerLoss(ObjectiveLoss):
    """Cross-entropy of the target tokens; no score is computed for any other row."""

    def __init__(self, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute

    def count(self, examples: Sequence[Example]) -> int:
        """Target tokens."""
        return sum(len(example.targets) for example in examples)

    def forward(self, model: Phi4Multimodal, examples: Sequence[Example]) -> Loss:
        """Runs the examples as segments of one packed row."""
        starts = [0, *accumulate(len(example.inputs.token_ids) for example in examples)]
        rows = [start + row for start, example in zip(starts, examples, strict=False) for row in example.output_rows]
        targets = torch.tensor([t for example in examples for t in example.targets], device=model.device)
        segments = [
            Segment(
                length=len(example.inputs.token_ids),
                adapter=model.adapter_for(example.inputs.modalities),
                rotary=rotary_for(model.decoder_config, len(example.inputs.token_ids)),
            )
            for example in examples
        ]
        embeddings = embed_examples(model, examples)
        hidden = model(embeddings, model.step(segments, rows, recompute=self.recompute))
        total, correct = chunked_cross_entropy(hidden, model.head_weight, targets)
        return Loss(total, int(correct))


def embed_examples(model: Phi4Multimodal, examples: Sequence[Example]) -> torch.Tensor:
    """Embeds packed examples, the features of media in the places of their placeholders: [tokens, hidden]."""
    ids = torch.tensor([t for example in examples for t in example.inputs.token_ids], device=model.device)
    rows, features, start = [], [], 0
    for example in examples:
        adapter = model.adapter_for(example.inputs.modalities)
        for medium in example.inputs.media:
            first = start + medium.start
            rows.append(torch.arange(first, first + medium.num_tokens, device=model.device))
            features.append(model.encode(medium, adapter))
        start += len(example.inputs.token_ids)
    embeddings = model.embed(ids)
    return embeddings.index_copy(0, torch.cat(rows), torch.cat(features)) if rows else embeddings
