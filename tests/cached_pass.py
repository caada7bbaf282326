"""Runs one conversation through the cache in pieces, without an engine."""

import torch

from phi4.engine.language_model import LanguageModel
from phi4.engine.whole_pass import embed_whole, whole_segment
from phi4.inputs import ModelInputs
from phi4.model.paged_cache import PagedCache
from phi4.model.step import Segment

BLOCK_TOKENS = 8


@torch.inference_mode()
def cached_logits(
    model: LanguageModel, inputs: ModelInputs, piece: int, cache_dtype: torch.dtype | None = None
) -> torch.Tensor:
    """The logits of every position, [tokens, vocabulary], computed `piece` tokens at a time, in scattered blocks."""
    whole = whole_segment(model, inputs)
    num_blocks = -(-whole.length // BLOCK_TOKENS)
    cache = PagedCache(model.decoder_config, num_blocks, BLOCK_TOKENS, cache_dtype or model.dtype, model.device)
    row = cache.row(list(reversed(range(num_blocks))))
    pieces = []
    for start, embeddings in zip(range(0, whole.length, piece), embed_whole(model, inputs).split(piece), strict=True):
        segment = Segment(embeddings.shape[0], start, whole.adapter, whole.rotary, row)
        pieces.append(model.logits(model(embeddings, model.step([segment]))))
    return torch.cat(pieces)
