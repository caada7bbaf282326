"""The processor: three ways in, one way of placing media, and everything that does not fit is refused."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import soundfile
import torch

from phi4.config import DecoderConfig, ModelConfig, SpeechConfig, VisionConfig
from phi4.errors import CapacityError, ConfigError, InputError
from phi4.inputs import AudioFrames, ImageCrops, ModelInputs
from phi4.processing.messages import Image, Message, Sound
from phi4.processing.placeholders import digest_data
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Tokenizer
from processing.phi_tokenizer import phi_tokenizer_json, write_json

PICTURE = PIL.Image.new("RGB", (28, 28), (255, 0, 0))
WIDE_PICTURE = PIL.Image.new("RGB", (112, 56), (0, 0, 255))
SOUND = (np.zeros(4000, dtype=np.float32), 16000)
# 2 x 2 vectors a crop: tiles with their row ends, the separator, the global view with its row ends.
PICTURE_TOKENS, WIDE_PICTURE_TOKENS, SOUND_TOKENS = 6 + 1 + 6, 10 + 1 + 6, 3


def text_config(tokenizer: Tokenizer) -> ModelConfig:
    decoder = DecoderConfig(
        vocab_size=max(tokenizer.added.by_id) + 1,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        partial_rotary_factor=1.0,
        max_position_embeddings=128,
        original_max_position_embeddings=128,
        rope_scaling=None,
        tie_word_embeddings=True,
    )
    return ModelConfig(decoder=decoder)


def multimodal_config(tokenizer: Tokenizer) -> ModelConfig:
    named = tokenizer.added.by_text
    return replace(
        text_config(tokenizer),
        vision=VisionConfig(image_size=56, patch_size=14, image_token_id=named["<|endoftext10|>"].token_id),
        speech=SpeechConfig(audio_token_id=named["<|endoftext11|>"].token_id),
    )


PREPROCESSOR = {"dynamic_hd": 6, "audio_compression_rate": 8}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    write_json(path / "tokenizer.json", phi_tokenizer_json())
    return path


@pytest.fixture(scope="module")
def processor(directory: Path, tokenizer: Tokenizer) -> Processor:
    return Processor.load(directory, multimodal_config(tokenizer), PREPROCESSOR)


@pytest.fixture(scope="module")
def text_processor(directory: Path, tokenizer: Tokenizer) -> Processor:
    return Processor.load(directory, text_config(tokenizer), {})


def runs(processor: Processor, inputs: ModelInputs) -> list[str]:
    """The prompt's text, with each medium's run of placeholders as its modality and length."""
    shown, position = [], 0
    for medium in inputs.media:
        shown.append(processor.tokenizer.decode(inputs.token_ids[position : medium.start], skip_special=False))
        run = inputs.token_ids[medium.start : medium.start + medium.num_tokens]
        assert len(set(run)) == 1
        shown.append(f"{medium.modality} {len(run)}")
        position = medium.start + medium.num_tokens
    return [*shown, processor.tokenizer.decode(inputs.token_ids[position:], skip_special=False)]


def test_media_are_placed_where_their_parts_stand(processor: Processor) -> None:
    content = ("Look: ", Image(PICTURE), " and ", Image(WIDE_PICTURE), Sound(SOUND), "what?")
    inputs = processor.prepare([Message("user", content)])
    assert runs(processor, inputs) == [
        "<|user|>Look: ",
        f"vision {PICTURE_TOKENS}",
        " and ",
        f"vision {WIDE_PICTURE_TOKENS}",
        "",
        f"speech {SOUND_TOKENS}",
        "what?<|end|><|assistant|>",
    ]
    assert inputs.tokens_per_modality == {"vision": PICTURE_TOKENS + WIDE_PICTURE_TOKENS, "speech": SOUND_TOKENS}
    first, second, sound = (medium.data for medium in inputs.media)
    assert isinstance(first, ImageCrops)
    assert isinstance(second, ImageCrops)
    assert isinstance(sound, AudioFrames)
    assert (first.columns, second.columns, len(sound.frames)) == (1, 2, 23)


def test_messages_prompts_and_ids_give_the_same_inputs(processor: Processor) -> None:
    by_messages = processor.prepare([Message("user", (Image(PICTURE), Sound(SOUND), "Hi"))])
    by_prompt = processor.prepare_prompt(
        "<|user|><|image_1|><|audio_1|>Hi<|end|><|assistant|>", images=[PICTURE], sounds=[SOUND]
    )
    by_tokens = processor.prepare_prompt(
        "<|user|><|endoftext10|><|endoftext11|>Hi<|end|><|assistant|>", images=[PICTURE], sounds=[SOUND]
    )
    short_ids = processor.tokenizer.encode(
        "<|user|><|endoftext10|><|endoftext11|>Hi<|end|><|assistant|>", allow_special=True
    )
    by_ids = processor.prepare_ids(short_ids, images=[PICTURE], sounds=[SOUND])
    for inputs in (by_prompt, by_tokens, by_ids):
        assert inputs.token_ids == by_messages.token_ids
        assert [m.digest for m in inputs.media] == [m.digest for m in by_messages.media]


def test_encoding_opens_no_medium_and_leaves_one_placeholder_for_each(processor: Processor) -> None:
    messages = [Message("user", (Image("absent.png"), Image(b"no picture"), "Hi")), Message("assistant", "Ho")]
    shown = "<|user|><|endoftext10|><|endoftext10|>Hi<|end|><|assistant|>Ho<|end|>"
    for add_generation_prompt, ending in ((True, "<|assistant|>"), (False, "<|endoftext|>")):
        token_ids = processor.encode(messages, add_generation_prompt=add_generation_prompt)
        assert processor.tokenizer.decode(token_ids, skip_special=False) == shown + ending


def test_numbers_of_placeholders_are_ignored(processor: Processor) -> None:
    prompt = "<|image_7|>A<|image_1|>"
    inputs = processor.prepare_prompt(prompt, images=[PICTURE, WIDE_PICTURE])
    assert [medium.num_tokens for medium in inputs.media] == [PICTURE_TOKENS, WIDE_PICTURE_TOKENS]


def test_digests_tell_media_apart_and_know_equal_ones(processor: Processor) -> None:
    inputs = processor.prepare_prompt("<|image_1|>" * 3, images=[PICTURE, WIDE_PICTURE, PICTURE.copy()])
    first, second, third = (medium.digest for medium in inputs.media)
    assert first == third != second
    assert len(first) == 64
    assert digest_data(torch.zeros(2, 3)) != digest_data(torch.zeros(3, 2))


def test_pictures_and_sounds_come_as_paths_bytes_or_objects(processor: Processor, tmp_path: Path) -> None:
    picture, sound = io.BytesIO(), io.BytesIO()
    PICTURE.save(picture, "PNG")
    soundfile.write(sound, *SOUND, format="WAV")
    (tmp_path / "picture").write_bytes(picture.getvalue())
    (tmp_path / "sound").write_bytes(sound.getvalue())
    images: list[Any] = [PICTURE, picture.getvalue(), tmp_path / "picture", str(tmp_path / "picture")]
    sounds: list[Any] = [SOUND, sound.getvalue(), tmp_path / "sound", str(tmp_path / "sound")]
    inputs = processor.prepare_prompt("<|image_1|><|audio_1|>" * 4, images=images, sounds=sounds)
    assert len({medium.digest for medium in inputs.media}) == 2


@pytest.mark.parametrize(("num_placeholders", "num_images"), [(2, 1), (1, 2), (0, 1), (1, 0)])
def test_counts_must_match(processor: Processor, num_placeholders: int, num_images: int) -> None:
    with pytest.raises(InputError, match=f"image: .* {num_placeholders} placeholders, but {num_images} media"):
        processor.prepare_prompt("A" + "<|image_1|>" * num_placeholders, images=[PICTURE] * num_images)
    with pytest.raises(InputError, match=r"audio: .* 1 placeholders, but 2 media"):
        processor.prepare_prompt("<|audio_1|>", sounds=[SOUND] * 2)


def test_placeholders_in_a_message_are_text(processor: Processor) -> None:
    inputs = processor.prepare([Message("user", "<|image_1|><|endoftext10|><|audio_2|>")])
    assert not inputs.media
    assert runs(processor, inputs) == ["<|user|><|image_1|><|endoftext10|><|audio_2|><|end|><|assistant|>"]
    image_token_id = processor.tokenizer.added.by_text["<|endoftext10|>"].token_id
    assert image_token_id not in inputs.token_ids


def test_a_bad_medium_is_named_by_its_number(processor: Processor) -> None:
    with pytest.raises(InputError, match="image 2: the image is no picture"):
        processor.prepare([Message("user", (Image(PICTURE), Image(b"text")))])
    with pytest.raises(InputError, match="audio 1: the sound is too short"):
        processor.prepare([Message("user", (Sound((np.zeros(1, np.float32), 16000)),))])


def test_a_text_model_refuses_media(text_processor: Processor) -> None:
    with pytest.raises(InputError, match="vision"):
        text_processor.prepare([Message("user", (Image(PICTURE),))])
    with pytest.raises(InputError, match="speech"):
        text_processor.prepare_ids([1], sounds=[SOUND])
    with pytest.raises(InputError, match=r"<\|image_1\|>, but this model takes no image"):
        text_processor.prepare_prompt("<|image_1|>")
    assert text_processor.prepare([Message("user", "Hi")]).token_ids


def test_impossible_token_ids_are_refused(processor: Processor) -> None:
    with pytest.raises(InputError, match="empty"):
        processor.prepare_ids([])
    with pytest.raises(InputError, match=r"outside 0 to \d+: \[-1, 1000000\]"):
        processor.prepare_ids([0, -1, 1000000])


def test_a_placeholder_that_the_tokenizer_lacks_is_refused(directory: Path, tokenizer: Tokenizer) -> None:
    config = replace(multimodal_config(tokenizer), vision=VisionConfig(image_token_id=5))
    with pytest.raises(ConfigError, match="token 5 as the image placeholder"):
        Processor.load(directory, config, PREPROCESSOR)


def test_tools_reach_the_prompt(processor: Processor) -> None:
    inputs = processor.prepare([Message("user", "Hi")], tools=[{"name": "now"}])
    shown = json.dumps([{"name": "now"}])
    assert runs(processor, inputs) == [f"<|system|><|tool|>{shown}<|/tool|><|end|><|user|>Hi<|end|><|assistant|>"]


def test_no_medium_is_opened_once_the_context_is_full(processor: Processor) -> None:
    limit = processor.max_tokens
    num_fitting = limit // PICTURE_TOKENS
    inputs = processor.prepare_prompt("<|image_1|>" * num_fitting, images=[PICTURE] * num_fitting)
    assert len(inputs.token_ids) == num_fitting * PICTURE_TOKENS <= limit
    # The missing file behind the picture that is too much would be an InputError.
    images = [*[PICTURE] * (num_fitting + 1), "absent.png"]
    complaint = f"at least {(num_fitting + 1) * PICTURE_TOKENS + 1} tokens, more than the context of {limit}"
    with pytest.raises(CapacityError, match=complaint):
        processor.prepare_prompt("<|image_1|>" * len(images), images=images)


def test_text_may_fill_the_context_and_no_more(processor: Processor) -> None:
    limit = processor.max_tokens
    assert len(processor.prepare_ids([1] * limit).token_ids) == limit
    with pytest.raises(CapacityError, match=f"{limit + 1} tokens, more than the context of {limit}"):
        processor.prepare_ids([1] * (limit + 1))
    with pytest.raises(CapacityError, match="more than the context"):
        processor.prepare_prompt("<|image_1|>" + "<|end|>" * limit, images=["absent.png"])


def test_a_sound_that_is_too_long_is_named_by_its_number(processor: Processor) -> None:
    content = io.BytesIO()
    soundfile.write(content, np.zeros(4000 * 10801, np.int16), 4000, format="FLAC")
    with pytest.raises(CapacityError, match="audio 1: the audio lasts 10801 s"):
        processor.prepare([Message("user", (Sound(content.getvalue()),))])
