"""Whole conversations in one packed pass, without a cache and without choosing tokens."""

from collections.abc import Sequence

import torch

from phi4.engine.language_model import LanguageModel
from phi4.engine.request import check_inputs
from phi4.inputs import ModelInputs
from phi4.model.step import Segment, rotary_for


@torch.inference_mode()
def score(model: LanguageModel, inputs: Sequence[ModelInputs]) -> list[torch.Tensor]:
    """Scores every position of every conversation.

    Returns:
        The logits, one [tokens, vocabulary] tensor per conversation, in the model's dtype.

    Raises:
        InputError: a conversation is empty, or needs a modality that the model lacks.
        CapacityError: a conversation is longer than the context.
    """
    segments = [whole_segment(model, conversation) for conversation in inputs]
    embeddings = torch.cat([embed_whole(model, conversation) for conversation in inputs])
    hidden = model(embeddings, model.step(segments))
    return list(model.logits(hidden).split([segment.length for segment in segments]))


def whole_segment(model: LanguageModel, inputs: ModelInputs) -> Segment:
    """A conversation as a segment that nothing comes before or after; raises what `score` lists."""
    check_inputs(model.decoder_config, inputs)
    length = len(inputs.token_ids)
    rotary = rotary_for(model.decoder_config, length)
    return Segment(length, adapter=model.adapter_for(inputs.modalities), rotary=rotary)


@torch.inference_mode()
def embed_whole(model: LanguageModel, inputs: ModelInputs) -> torch.Tensor:
    """Embeds a conversation, the features of media in the places of their placeholders: [tokens, hidden]."""
    adapter = model.adapter_for(inputs.modalities)
    embeddings = model.embed(torch.tensor(inputs.token_ids, device=model.device))
    for medium in inputs.media:
        embeddings[medium.start : medium.start + medium.num_tokens] = model.encode(medium, adapter)
    return embeddings
