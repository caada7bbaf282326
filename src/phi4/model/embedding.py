"""Tables of vectors whose weights come from a file."""

import torch
from torch import nn


def empty_embedding(entries: int, width: int) -> nn.Embedding:
    """A table of [entries, width] that holds nothing yet.

    With a weight given, none is drawn: on the device `meta`, drawing imports torch's compiler, which takes a second.
    """
    return nn.Embedding(entries, width, _weight=torch.empty(entries, width))
