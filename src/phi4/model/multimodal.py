"""Phi-4-Multimodal: the language model with vision and speech beside it and their adapters inside it."""

from collections.abc import Sequence

import torch
from torch import nn

from phi4.config import DecoderConfig, ModelConfig
from phi4.errors import InputError
from phi4.inputs import AudioFrames, ImageCrops, Medium
from phi4.model.decoder import Phi4Mini
from phi4.model.speech import Speech
from phi4.model.step import Segment, Step
from phi4.model.vision import Vision

# The adapter rule (facts sheet 6.3). The speech projector that runs bears the adapter's name: pictures and sounds
# together take the vision adapter alone, and the speech projector named "vision".
ADAPTER_RULE = {
    frozenset[str](): None,
    frozenset({"vision"}): "vision",
    frozenset({"speech"}): "speech",
    frozenset({"vision", "speech"}): "vision",
}


class Phi4Multimodal(nn.Module):
    """Phi-4-Multimodal, or a language model with one of its two modalities."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.language = Phi4Mini(config.decoder, config.adapters)
        if config.vision is not None:
            self.vision = Vision(config.vision, config.decoder.hidden_size)
        if config.speech is not None:
            self.speech = Speech(config.speech, config.decoder.hidden_size)

    @property
    def decoder_config(self) -> DecoderConfig:
        """Sizes of the language model."""
        return self.config.decoder

    @property
    def dtype(self) -> torch.dtype:
        """Type of weights and activations."""
        return self.language.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.language.device

    def step(self, segments: Sequence[Segment], output_rows: Sequence[int] | None = None) -> Step:
        """Prepares one forward pass over these segments, laid end to end; None asks for the output of all rows."""
        return self.language.step(segments, output_rows)

    def adapter_for(self, modalities: frozenset[str]) -> str | None:
        """Names the adapter that a conversation with these modalities takes.

        Raises:
            InputError: this model lacks one of the modalities.
        """
        missing = modalities - self.config.adapters.keys()
        if missing:
            raise InputError(
                f"this model has no {' and no '.join(sorted(missing))}; "
                f"it takes text{''.join(f', {name}' for name in sorted(self.config.adapters))}"
            )
        return ADAPTER_RULE[modalities]

    def encode(self, medium: Medium, adapter: str | None) -> torch.Tensor:
        """Turns one picture or sound into the rows of its placeholders: [medium.num_tokens, hidden].

        Raises:
            InputError: the rows are not as many as the placeholders.
        """
        match medium.data:
            case ImageCrops():
                features = self.vision(medium.data)
            case AudioFrames():
                features = self.speech(medium.data, adapter)
        if features.shape[0] != medium.num_tokens:
            raise InputError(
                f"a {medium.modality} input has {features.shape[0]} tokens, but {medium.num_tokens} placeholders"
            )
        return features

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Looks up [tokens] ids: [tokens, hidden]; the rows of media are put in afterwards."""
        return self.language.embed(token_ids)

    def forward(self, embeddings: torch.Tensor, step: Step) -> torch.Tensor:
        """Runs the language model over packed rows: [tokens, hidden] -> [tokens or rows asked for, hidden]."""
        return self.language(embeddings, step)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores the vocabulary for the rows asked for: [rows, hidden] -> [rows, vocabulary]."""
        return self.language.logits(hidden)
