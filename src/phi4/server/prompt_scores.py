"""What the model thought of each token of a prompt, without keeping the scores of all of them in memory."""

from collections.abc import Iterator

import torch

from phi4.engine.language_model import LanguageModel
from phi4.engine.sampler import LogProbabilities, log_probabilities
from phi4.engine.whole_pass import embed_whole, whole_segment
from phi4.inputs import ModelInputs

# Rows of [tokens, vocabulary] that exist at once.
ROWS = 64


@torch.inference_mode()
def score_prompt(model: LanguageModel, inputs: ModelInputs, num_best: int) -> list[LogProbabilities | None]:
    """Scores a prompt in one pass.

    Args:
        model: it may be answering others meanwhile: a pass keeps nothing on it.
        inputs: the prompt.
        num_best: how many of the most probable tokens to report at each place.

    Returns:
        One entry for each token; None for the first one, before which there is nothing.

    Raises:
        InputError: the prompt is empty or has impossible tokens.
        CapacityError: it is longer than the context.
    """
    step = model.step([whole_segment(model, inputs)])
    hidden = model(embed_whole(model, inputs), step)
    return [None, *_score_rows(model, hidden, inputs.token_ids[1:], num_best)]


def _score_rows(
    model: LanguageModel, hidden: torch.Tensor, next_ids: tuple[int, ...], num_best: int
) -> Iterator[LogProbabilities]:
    for start in range(0, len(next_ids), ROWS):
        ids = next_ids[start : start + ROWS]
        logits = model.logits(hidden[start : start + len(ids)]).float()
        for row, token_id in zip(logits, ids, strict=True):
            yield log_probabilities(row, token_id, num_best)
