"""What a drawing's rows are to tell, for stages that show nothing else: the name, in each of them and in their mean."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.tokenizer import Tokenizer
from phi4.train.objectives.embeddings import NearestText, text_embeddings

# What scores are multiplied by before any training.
TEMPERATURE = 20.0


class Naming(nn.Module):
    """Cross-entropy of the right name among all of them, by the angles to what the language model would get of each.

    Attributes:
        temperatures: logarithms of what the scores of single rows and of their mean are multiplied by; they train.
    """

    def __init__(self, model: Phi4Multimodal, tokenizer: Tokenizer, answers: Sequence[str]) -> None:
        """Sees to it that the names can be compared.

        Args:
            model: whose embeddings count.
            tokenizer: the language model's.
            answers: the names of all drawings, each as often as it comes.
        """
        super().__init__()
        names = sorted(set(answers))
        self.places = {name: place for place, name in enumerate(names)}
        self.nearest = NearestText(text_embeddings(model, tokenizer, names), whitened=True)
        self.temperatures = nn.Parameter(torch.full((2,), math.log(TEMPERATURE)))

    def numbers(self, answers: Sequence[str]) -> torch.Tensor:
        """The numbers of names, [answers]."""
        return torch.tensor([self.places[answer] for answer in answers])

    def forward(self, rows: torch.Tensor, names: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Compares what the projector gives of drawings with their names.

        Args:
            rows: [drawings, rows, hidden].
            names: the number of each drawing's name, [drawings].

        Returns:
            The loss, and the share of rows that are nearest to the right name.
        """
        each, whole = self.temperatures.exp()
        scores = self.nearest.cosines(rows)
        mean_scores = self.nearest.cosines(rows.mean(dim=1))
        wanted = names[:, None].expand(scores.shape[:2])
        loss = (
            functional.cross_entropy(each * scores.transpose(1, 2), wanted)
            + functional.cross_entropy(whole * mean_scores, names)
            + self.nearest.length_error(rows).mean()
        )
        return loss, float((scores.argmax(dim=-1) == wanted).float().mean())
