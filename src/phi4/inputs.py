"""What a model is given: one conversation, tokenised, with its media ready for the encoders."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import torch

Rotary = Literal["short", "long"]


@dataclass(frozen=True)
class ImageCrops:
    """One picture after the dynamic HD transform.

    Attributes:
        crops: normalised pixels, [crops, 3, side, side]; the global view first, then the tiles row by row.
        mask: bool, True = patch holds picture, [crops, patches_per_side, patches_per_side].
        columns: tiles across.
        rows: tiles down.
    """

    crops: torch.Tensor
    mask: torch.Tensor
    columns: int
    rows: int


@dataclass(frozen=True)
class AudioFrames:
    """One sound as log-mel features.

    Attributes:
        frames: fp32, [frames, mels], one frame per 10 ms.
    """

    frames: torch.Tensor


@dataclass(frozen=True)
class Medium:
    """A picture, sound or signal and the run of placeholder tokens that stands for it.

    Attributes:
        modality: "vision", "speech" or the name of one from outside.
        data: what the modality's encoder takes: ImageCrops, AudioFrames, or what that modality prepares.
        start: index of the first placeholder in the conversation's token ids.
        num_tokens: length of the run.
        digest: SHA-256 of the data, hexadecimal; equal media have equal digests.
    """

    modality: str
    data: Any
    start: int
    num_tokens: int
    digest: str


@dataclass(frozen=True)
class ModelInputs:
    """One conversation, ready for the model. There is no batch axis.

    Attributes:
        token_ids: ids with every placeholder already expanded to its medium's length.
        media: in the order in which their placeholders occur.
    """

    token_ids: tuple[int, ...]
    media: tuple[Medium, ...] = ()

    @property
    def modalities(self) -> frozenset[str]:
        """Names of the modalities that this conversation uses."""
        return frozenset(medium.modality for medium in self.media)

    @property
    def tokens_per_modality(self) -> dict[str, int]:
        """How many placeholder tokens each modality takes."""
        counts: Counter[str] = Counter()
        for medium in self.media:
            counts[medium.modality] += medium.num_tokens
        return dict(counts)
