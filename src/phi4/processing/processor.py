"""The one way from messages and their media to what a model is given."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from phi4.config import ModelConfig, SpeechConfig, VisionConfig
from phi4.errors import ConfigError, InputError
from phi4.inputs import AudioFrames, ImageCrops, ModelInputs
from phi4.modality import AddedModality
from phi4.processing.audio import audio_to_frames, num_audio_tokens
from phi4.processing.audio_file import load_audio
from phi4.processing.chat import encode_chat
from phi4.processing.image import image_to_crops, num_image_tokens
from phi4.processing.image_file import load_image
from phi4.processing.messages import Image, ImageSource, MediumPart, Message, Signal, Sound, SoundSource
from phi4.processing.placeholders import MediaProcessor, expand_placeholders
from phi4.processing.settings import (
    AudioSettings,
    ImageSettings,
    read_audio_settings,
    read_image_settings,
)
from phi4.processing.template import ChatTemplate, load_chat_template
from phi4.processing.tokenizer import Tokenizer

# How the release writes placeholders in a prompt. Their numbers are ignored, as there (facts sheet 3.3).
NUMBERED_PLACEHOLDER = re.compile(r"<\|(image|audio)_\d+\|>")


@dataclass(frozen=True)
class Processor:
    """Prepares conversations for one model.

    Attributes:
        tokenizer: encodes text.
        template: lays conversations out.
        media_processors: one for each modality that the model has.
        vocab_size: rows of the model's embedding.
        max_tokens: length of the model's context.
    """

    tokenizer: Tokenizer
    template: ChatTemplate
    media_processors: tuple[MediaProcessor, ...]
    vocab_size: int
    max_tokens: int

    def __post_init__(self) -> None:
        for media in self.media_processors:
            if media.token_id not in self.tokenizer.added.by_id:
                raise ConfigError(
                    f"the configuration names token {media.token_id} as the {media.noun} placeholder, "
                    "but the tokenizer has no added token with that id"
                )
        used = [media.token_id for media in self.media_processors]
        if len(set(used)) < len(used):
            named = ", ".join(f"{media.noun} {media.token_id}" for media in self.media_processors)
            raise ConfigError(f"two modalities have the same placeholder ({named}); each needs one of its own")

    @classmethod
    def load(cls, directory: Path, config: ModelConfig, preprocessor: Mapping[str, Any]) -> "Processor":
        """Reads the tokenizer and the chat template of a checkpoint.

        Args:
            directory: where they are.
            config: the model's configuration.
            preprocessor: what `preprocessor_config.json` and packs say; an absent key means the release's value.

        Raises:
            ConfigError: a file is missing, damaged, or contradicts `config`.
        """
        tokenizer = Tokenizer.load(directory)
        media_processors = []
        if config.vision is not None:
            image_settings = read_image_settings(preprocessor, config.vision)
            media_processors.append(image_processor(image_settings, config.vision))
        if config.speech is not None:
            audio_settings = read_audio_settings(preprocessor, config.speech)
            media_processors.append(audio_processor(audio_settings, config.speech))
        media_processors += map(signal_processor, config.added.values())
        return cls(
            tokenizer=tokenizer,
            template=load_chat_template(directory, tokenizer),
            media_processors=tuple(media_processors),
            vocab_size=config.decoder.vocab_size,
            max_tokens=config.decoder.max_position_embeddings,
        )

    def prepare(
        self, messages: Sequence[Message], tools: Any | None = None, *, add_generation_prompt: bool = True
    ) -> ModelInputs:
        """Prepares a conversation. Its texts can only become text, whatever they say.

        Args:
            messages: with their media at the places where the model is to see them.
            tools: a list of functions on offer, in the model card's or in OpenAI's shape.
            add_generation_prompt: whether to end with the opener of the assistant's answer.

        Raises:
            InputError: something in the conversation cannot be used, or the model lacks a modality that it needs.
            CapacityError: the prompt is longer than the context, or a medium is too large.
        """
        token_ids = self.encode(messages, tools, add_generation_prompt=add_generation_prompt)
        return self.prepare_media(token_ids, [part for message in messages for part in message.media])

    def encode(
        self, messages: Sequence[Message], tools: Any | None = None, *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Turns a conversation into token ids, with one placeholder for each medium; no medium is opened.

        Arguments and errors are those of `prepare`, as far as they do not concern the content of media.
        """
        return encode_chat(
            messages,
            tools,
            template=self.template,
            tokenizer=self.tokenizer,
            placeholders={media.modality: self._placeholder(media) for media in self.media_processors},
            add_generation_prompt=add_generation_prompt,
        )

    def prepare_prompt(
        self,
        prompt: str,
        images: Sequence[ImageSource] = (),
        sounds: Sequence[SoundSource] = (),
        signals: Sequence[Signal] = (),
    ) -> ModelInputs:
        """Prepares a finished prompt, in which control tokens and placeholders such as `<|image_1|>` count.

        Args:
            prompt: trusted text in the model's layout (facts sheet 3); text from outside belongs into `prepare`.
            images: in the order of their placeholders, whose numbers are ignored.
            sounds: likewise.
            signals: media of modalities from outside, those of each in the order of its placeholders.

        Raises:
            InputError: placeholders and media do not match, or one of them cannot be used.
            CapacityError: the prompt is longer than the context, or a medium is too large.
        """
        placeholders = {media.noun: self._placeholder(media) for media in self.media_processors}

        def replace_numbered(match: re.Match[str]) -> str:
            if match[1] not in placeholders:
                raise InputError(f"the prompt has the placeholder {match[0]}, but this model takes no {match[1]}")
            return placeholders[match[1]]

        text = NUMBERED_PLACEHOLDER.sub(replace_numbered, prompt)
        return self.prepare_ids(self.tokenizer.encode(text, allow_special=True), images, sounds, signals)

    def prepare_ids(
        self,
        token_ids: Sequence[int],
        images: Sequence[ImageSource] = (),
        sounds: Sequence[SoundSource] = (),
        signals: Sequence[Signal] = (),
    ) -> ModelInputs:
        """Prepares token ids that hold one placeholder for each medium; media are given as for `prepare_prompt`.

        Raises:
            InputError: there are no ids or impossible ones, placeholders and media do not match, or a medium cannot
                be used.
            CapacityError: the prompt is longer than the context, or a medium is too large.
        """
        return self.prepare_media(token_ids, [*map(Image, images), *map(Sound, sounds), *signals])

    def prepare_media(self, token_ids: Sequence[int], media: Sequence[MediumPart]) -> ModelInputs:
        """Prepares token ids as `prepare_ids` does, with media of all modalities in the order of a conversation."""
        if not token_ids:
            raise InputError("the prompt is empty; give at least one token")
        wrong = [token_id for token_id in token_ids if not 0 <= token_id < self.vocab_size]
        if wrong:
            raise InputError(f"the prompt has token ids outside 0 to {self.vocab_size - 1}: {wrong[:5]}")
        sources: dict[str, list[Any]] = {}
        for part in media:
            sources.setdefault(part.modality, []).append(part.source)
        return expand_placeholders(token_ids, self.media_processors, sources, self.max_tokens)

    def _placeholder(self, media: MediaProcessor) -> str:
        return self.tokenizer.added.by_id[media.token_id].text


def image_processor(settings: ImageSettings, vision: VisionConfig) -> MediaProcessor:
    """How pictures are prepared for the release's vision tower."""
    return MediaProcessor(
        modality=Image.modality,
        noun="image",
        token_id=vision.image_token_id,
        prepare=partial(_prepare_image, settings=settings),
        count_tokens=num_image_tokens,
    )


def audio_processor(settings: AudioSettings, speech: SpeechConfig) -> MediaProcessor:
    """How sounds are prepared for the release's speech encoder."""
    return MediaProcessor(
        modality=Sound.modality,
        noun="audio",
        token_id=speech.audio_token_id,
        prepare=partial(_prepare_sound, settings=settings),
        count_tokens=partial(num_audio_tokens, settings=settings),
    )


def signal_processor(added: AddedModality) -> MediaProcessor:
    """How media of a modality from outside are prepared."""
    return MediaProcessor(
        modality=added.modality.name,
        noun=added.modality.name,
        token_id=added.token_id,
        prepare=lambda source: added.modality.prepare(source, added.config),
        count_tokens=lambda data: added.modality.count_tokens(data, added.config),
    )


def _prepare_image(source: ImageSource, settings: ImageSettings) -> ImageCrops:
    return image_to_crops(load_image(source), settings)


def _prepare_sound(source: SoundSource, settings: AudioSettings) -> AudioFrames:
    if isinstance(source, tuple):
        return audio_to_frames(*source, settings)
    return audio_to_frames(load_audio(source, settings.sample_rate_hz), settings.sample_rate_hz, settings)
