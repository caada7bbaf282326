"""What generation needs of a model: `Phi4Mini` and `Phi4Multimodal` have it, and so may any other."""

from collections.abc import Sequence
from typing import Protocol

import torch

from phi4.config import DecoderConfig
from phi4.inputs import Medium
from phi4.kernels.decoder_layers import DecoderLayers
from phi4.model.step import Segment, Step


class LanguageModel(Protocol):
    """A decoder over packed rows, with or without encoders; `model/multimodal.py` describes each method."""

    @property
    def decoder_config(self) -> DecoderConfig:
        """Sizes of the decoder."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and activations."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    def adapter_for(self, modalities: frozenset[str]) -> str | None:
        """Names the adapter of a conversation with these modalities."""
        ...

    def encode(self, medium: Medium, adapter: str | None) -> torch.Tensor:
        """Turns a medium into the rows of its placeholders, [medium.num_tokens, hidden]."""
        ...

    def encode_together(self, media: Sequence[Medium], adapters: Sequence[str | None]) -> list[torch.Tensor]:
        """What `encode` makes of each of them, in as few passes as memory allows."""
        ...

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """[tokens] -> [tokens, hidden]."""
        ...

    def step(self, segments: Sequence[Segment], output_rows: Sequence[int] | None = None) -> Step:
        """Prepares a pass over segments; None asks for the output of all rows."""
        ...

    def native_layers(self) -> DecoderLayers | None:
        """The layers as one native call takes them; None if there are no kernels for them."""
        ...

    def __call__(self, embeddings: torch.Tensor, step: Step, native: DecoderLayers | None = None) -> torch.Tensor:
        """Runs the layers: [tokens, hidden] -> [rows asked for, hidden]."""
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, hidden] -> [rows, vocabulary]."""
        ...
