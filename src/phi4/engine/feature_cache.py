"""What the encoders made of media, kept for as long as there is room."""

from collections import OrderedDict
from collections.abc import Sequence

import torch

from phi4.engine.language_model import LanguageModel
from phi4.errors import CheckpointError
from phi4.inputs import Medium

# Modality, digest and adapter, which decides on the projector.
Key = tuple[str, str, str | None]


class FeatureCache:
    """Features by the digest of a medium and the adapter, which decides on the projector; least recently used go first.

    Attributes:
        max_bytes: what is kept besides the newest features, which are kept in any case.
    """

    def __init__(self, model: LanguageModel, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._model = model
        self._features: OrderedDict[Key, torch.Tensor] = OrderedDict()

    @property
    def memory_bytes(self) -> int:
        """Bytes of all features that are kept."""
        return sum(features.nbytes for features in self._features.values())

    def encode(self, wanted: Sequence[tuple[Medium, str | None]]) -> list[torch.Tensor | Exception]:
        """Encodes media, those that are not known yet together and each of them once.

        Args:
            wanted: media of any conversations, with the adapter of each.

        Returns:
            For each of them the rows of its placeholders, [medium.num_tokens, hidden]; or what its encoder raised.
        """
        keys = [(medium.modality, medium.digest, adapter) for medium, adapter in wanted]
        missing = {key: one for key, one in zip(keys, wanted, strict=True) if key not in self._features}
        made = self._encode_together(list(missing.values()))
        encoded = {key: _finite(key, features) for key, features in zip(missing, made, strict=True)}
        found = [self._features[key] if key in self._features else encoded[key] for key in keys]
        for key, features in zip(keys, found, strict=True):
            if isinstance(features, torch.Tensor):
                self._keep(key, features)
        return found

    def _keep(self, key: Key, features: torch.Tensor) -> None:
        self._features[key] = features
        self._features.move_to_end(key)
        while len(self._features) > 1 and self.memory_bytes > self.max_bytes:
            self._features.popitem(last=False)

    def _encode_together(self, wanted: Sequence[tuple[Medium, str | None]]) -> list[torch.Tensor | Exception]:
        if len(wanted) > 1:
            try:
                media, adapters = zip(*wanted, strict=True)
                return list(self._model.encode_together(media, adapters))
            except Exception:  # of one of them; which one is found below, and the others must not suffer
                pass
        return [self._encode_alone(medium, adapter) for medium, adapter in wanted]

    def _encode_alone(self, medium: Medium, adapter: str | None) -> torch.Tensor | Exception:
        try:
            return self._model.encode(medium, adapter)
        except Exception as error:  # an encoder may raise anything, modalities from outside above all
            return error


def _finite(key: Key, features: torch.Tensor | Exception) -> torch.Tensor | Exception:
    """Features; an error for those that are no numbers: 0 * NaN would reach earlier text, which others share."""
    if isinstance(features, torch.Tensor) and not bool(features.isfinite().all()):
        return CheckpointError(
            f"the features of a {key[0]} input are not finite numbers: it holds some itself, or the encoder's weights "
            "are damaged or overflow in their dtype"
        )
    return features
