"""What the language model would get as text: the place that encoders learn to put pictures and sounds in."""

from collections.abc import Sequence

import torch

from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.tokenizer import Tokenizer


@torch.no_grad()
def distinct_embeddings(model: Phi4Multimodal, tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """The mean token embedding of every text, less the mean of all texts, fp32, [texts, hidden].

    All embeddings have a large part in common, which tells no text from another and hides what does.
    """
    token_ids = [tokenizer.encode(text, allow_special=False) for text in texts]
    averages = torch.stack([model.embed(torch.tensor(ids, device=model.device)).float().mean(0) for ids in token_ids])
    return averages - averages.mean(0)
