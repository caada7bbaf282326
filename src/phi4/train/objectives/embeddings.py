"""What the language model would get as text: the place that encoders learn to put pictures and sounds in."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.tokenizer import Tokenizer

# Of the squared logarithm of a length. Angles alone would leave outputs many times as long as embeddings are.
LENGTH_WEIGHT = 1.0

# What is added to the variance of every direction before texts are whitened, as a share of their mean: without it, the
# directions in which texts hardly differ would count as much as all others.
WHITENING_FLOOR = 0.1


@torch.no_grad()
def text_embeddings(model: Phi4Multimodal, tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """The mean token embedding of every text, fp32, [texts, hidden]."""
    token_ids = [tokenizer.encode(text, allow_special=False) for text in texts]
    return torch.stack([model.embed(torch.tensor(ids, device=model.device)).float().mean(0) for ids in token_ids])


class NearestText(nn.Module):
    """Scores texts by the angles between a vector and their embeddings, both as seen from the mean of all texts.

    All embeddings have a large part in common, which tells no text from another and hides what does. So have many of
    a thousand names, such as those with the same word: whitened, that part counts less.
    """

    mean: torch.Tensor
    whitening: torch.Tensor | None
    directions: torch.Tensor
    length: torch.Tensor

    def __init__(self, embeddings: torch.Tensor, *, whitened: bool = False) -> None:
        """Sees to it that texts can be compared.

        Args:
            embeddings: of all texts, [texts, hidden].
            whitened: compare after `whitening_matrix`; for more texts than they have dimensions.
        """
        super().__init__()
        mean = embeddings.mean(0)
        distinct = embeddings - mean
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("whitening", whitening_matrix(distinct) if whitened else None, persistent=False)
        self.register_buffer("directions", self.place(embeddings), persistent=False)
        self.register_buffer("length", distinct.norm(dim=-1).mean(), persistent=False)

    def cosines(self, vectors: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., texts]."""
        return self.place(vectors) @ self.directions.T

    def place(self, vectors: torch.Tensor) -> torch.Tensor:
        """The direction of vectors as seen from the mean of all texts: [..., hidden] -> [..., hidden]."""
        distinct = vectors.float() - self.mean
        return functional.normalize(distinct if self.whitening is None else distinct @ self.whitening, dim=-1)

    def length_error(self, vectors: torch.Tensor) -> torch.Tensor:
        """How far vectors are from the length of embeddings, as a squared logarithm: [..., hidden] -> [...]."""
        lengths = (vectors.float() - self.mean).norm(dim=-1)
        return ((lengths + 1e-6) / self.length).log().square()


def whitening_matrix(vectors: torch.Tensor) -> torch.Tensor:
    """What makes vectors vary alike in all directions, but for those in which they hardly vary: [hidden, hidden].

    Args:
        vectors: with mean 0, [vectors, hidden].
    """
    variances, directions = torch.linalg.eigh(vectors.T @ vectors / len(vectors))
    scales = (variances.clamp(min=0.0) + WHITENING_FLOOR * variances.mean()).rsqrt()
    return (directions * scales) @ directions.T
