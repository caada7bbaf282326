"""What the encoders made of media, kept for as long as there is room."""

from collections import OrderedDict

import torch

from phi4.engine.language_model import LanguageModel
from phi4.inputs import Medium


class FeatureCache:
    """Features by the digest of a medium and the adapter, which decides on the projector; least recently used go first.

    Attributes:
        max_bytes: what is kept besides the newest features, which are kept in any case.
    """

    def __init__(self, model: LanguageModel, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._model = model
        self._features: OrderedDict[tuple[str, str, str | None], torch.Tensor] = OrderedDict()

    @property
    def memory_bytes(self) -> int:
        """Bytes of all features that are kept."""
        return sum(features.nbytes for features in self._features.values())

    def encode(self, medium: Medium, adapter: str | None) -> torch.Tensor:
        """The rows of a medium's placeholders, [medium.num_tokens, hidden]; raises what its encoder raises."""
        key = (medium.modality, medium.digest, adapter)
        if key not in self._features:
            self._features[key] = self._model.encode(medium, adapter)
        self._features.move_to_end(key)
        while len(self._features) > 1 and self.memory_bytes > self.max_bytes:
            self._features.popitem(last=False)
        return self._features[key]
