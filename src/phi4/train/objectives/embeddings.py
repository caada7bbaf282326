"""What the language model would get as text: the place that encoders learn to put pictures and sounds in."""

from collections.abc import Sequence

import torch

from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.tokenizer import Tokenizer


@torch.no_grad()
def average_embeddings(model: Phi4Multimodal, tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """The mean token embedding of every text, fp32, [texts, hidden]."""
    token_ids = [tokenizer.encode(text, allow_special=False) for text in texts]
    return torch.stack([model.embed(torch.tensor(ids, device=model.device)).float().mean(0) for ids in token_ids])
