"""Phi-4-Multimodal: the language model with encoders beside it and their adapters inside it."""

from collections.abc import Sequence

import torch
from torch import nn

from phi4.config import DecoderConfig, ModelConfig
from phi4.errors import ConfigError, InputError
from phi4.inputs import Medium
from phi4.kernels.decoder_layers import DecoderLayers
from phi4.model.decoder import Phi4Mini
from phi4.model.quantised import QuantisedWeight
from phi4.model.speech import Speech
from phi4.model.step import Segment, Step
from phi4.model.vision import Vision

# The adapter rule (facts sheet 6.3). The speech projector that runs bears the adapter's name: pictures and sounds
# together take the vision adapter alone, and the speech projector named "vision". A modality from outside is never
# mixed with another and takes its own adapter.
ADAPTER_RULE = {
    frozenset[str](): None,
    frozenset({"vision"}): "vision",
    frozenset({"speech"}): "speech",
    frozenset({"vision", "speech"}): "vision",
}


class Phi4Multimodal(nn.Module):
    """Phi-4-Multimodal, or a language model with other modalities: one of the two, or some from outside."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.language = Phi4Mini(config.decoder, config.adapters)
        if config.vision is not None:
            self.vision = Vision(config.vision, config.decoder.hidden_size)
        if config.speech is not None:
            self.speech = Speech(config.speech, config.decoder.hidden_size)
        for name, added in config.added.items():
            if hasattr(self, name):
                raise ConfigError(f"a modality cannot be named {name!r}: the model uses that word itself")
            self.add_module(name, added.modality.build_encoder(added.config, config.decoder.hidden_size))

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

    def step(
        self, segments: Sequence[Segment], output_rows: Sequence[int] | None = None, recompute: bool = False
    ) -> Step:
        """Prepares one forward pass over these segments, laid end to end; `Phi4Mini.step` says what can be asked."""
        return self.language.step(segments, output_rows, recompute)

    def adapter_for(self, modalities: frozenset[str]) -> str | None:
        """Names the adapter that a conversation with these modalities takes.

        Raises:
            InputError: this model lacks one of the modalities, or no adapter was trained for all of them together.
        """
        missing = modalities - self.config.adapters.keys()
        if missing:
            raise InputError(
                f"this model has no {' and no '.join(sorted(missing))}; "
                f"it takes text{''.join(f', {name}' for name in sorted(self.config.adapters))}"
            )
        rule = self._adapter_rule()
        if modalities not in rule:
            combinations = "; ".join(" with ".join(sorted(combination)) for combination in rule if combination)
            raise InputError(
                f"one conversation cannot hold {' and '.join(sorted(modalities))}: there is no adapter for them "
                f"together. Beside text it may hold {combinations}"
            )
        return rule[modalities]

    def _adapter_rule(self) -> dict[frozenset[str], str | None]:
        """The adapter rule as far as this model has the modalities, and each modality from outside alone."""
        built_in = {mixed: name for mixed, name in ADAPTER_RULE.items() if mixed <= self.config.adapters.keys()}
        return {**built_in, **{frozenset({name}): name for name in self.config.added}}

    def encode(self, medium: Medium, adapter: str | None) -> torch.Tensor:
        """Turns one medium into the rows of its placeholders: [medium.num_tokens, hidden].

        Raises:
            InputError: the rows are not as many as the placeholders.
        """
        (features,) = self.encode_together([medium], [adapter])
        return features

    def encode_together(self, media: Sequence[Medium], adapters: Sequence[str | None]) -> list[torch.Tensor]:
        """Turns media into rows as `encode` does, pictures and sounds several in a pass.

        Args:
            media: of any conversations.
            adapters: of the conversation of each.

        Raises:
            InputError: the rows of a medium are not as many as its placeholders.
        """
        features: dict[int, torch.Tensor] = {}
        for modality in sorted({medium.modality for medium in media}):
            places = [place for place, medium in enumerate(media) if medium.modality == modality]
            data = [media[place].data for place in places]
            match modality:
                case "vision":
                    encoded = self.vision.encode_together(data)
                case "speech":
                    encoded = self.speech.encode_together(data, [str(adapters[place]) for place in places])
                case _:
                    encoded = [self.get_submodule(modality)(one) for one in data]
            features.update(zip(places, encoded, strict=True))
        return [_checked(medium, features[place]) for place, medium in enumerate(media)]

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Looks up [tokens] ids: [tokens, hidden]; the rows of media are put in afterwards."""
        return self.language.embed(token_ids)

    def native_layers(self) -> DecoderLayers | None:
        """The language model's layers as one native call takes them; see `Phi4Mini.native_layers`."""
        return self.language.native_layers()

    def forward(self, embeddings: torch.Tensor, step: Step, native: DecoderLayers | None = None) -> torch.Tensor:
        """Runs the language model over packed rows: [tokens, hidden] -> [tokens or rows asked for, hidden]."""
        return self.language(embeddings, step, native)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores the vocabulary for the rows asked for: [rows, hidden] -> [rows, vocabulary]."""
        return self.language.logits(hidden)

    @property
    def head_weight(self) -> torch.Tensor | QuantisedWeight:
        """The output embedding that `logits` multiplies with, [vocabulary, hidden]."""
        return self.language.head_weight


def _checked(medium: Medium, features: torch.Tensor) -> torch.Tensor:
    """Features of a medium, if there are as many rows as placeholders."""
    if features.shape[0] != medium.num_tokens:
        raise InputError(
            f"a {medium.modality} input has {features.shape[0]} tokens, but {medium.num_tokens} placeholders"
        )
    return features
