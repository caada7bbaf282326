"""Random conversations of every mixture of modalities, ready for a small multimodal model."""

import torch

from phi4.config import ModelConfig
from phi4.inputs import AudioFrames, ImageCrops, Medium, ModelInputs
from phi4.processing.placeholders import digest_data

MODES = ("text", "vision", "speech", "vision and speech")


def picture(side_px: int, patches: int, seed: int, columns: int = 2, rows: int = 1) -> ImageCrops:
    """Random crops whose last patch column is padding."""
    crops = torch.randn(1 + columns * rows, 3, side_px, side_px, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(1 + columns * rows, patches, patches, dtype=torch.bool)
    mask[columns::columns, :, -1] = False
    return ImageCrops(crops, mask, columns, rows)


def sound(num_frames: int, seed: int) -> AudioFrames:
    """Random features of one clip."""
    return AudioFrames(torch.randn(num_frames, 80, generator=torch.Generator().manual_seed(seed)))


def conversation(config: ModelConfig, mode: str, num_text_tokens: int, seed: int) -> ModelInputs:
    """Random text, with a picture, a sound or both in the middle of it."""
    assert config.vision is not None
    assert config.speech is not None
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(32, 200, (num_text_tokens,), generator=generator).tolist()
    half = num_text_tokens // 2
    ids, media = text[:half], []
    if "vision" in mode:
        image = picture(config.vision.image_size, config.vision.patches_per_side, seed)
        side = config.vision.tokens_per_side
        length = side * (2 * side + 1) + 1 + side * (side + 1)
        media.append(Medium("vision", image, len(ids), length, digest_data(image)))
        ids += [config.vision.image_token_id] * length
    if "speech" in mode:
        audio = sound(40 + seed % 60, seed)
        length = -(-audio.frames.shape[0] // config.speech.time_reduction)
        media.append(Medium("speech", audio, len(ids), length, digest_data(audio)))
        ids += [config.speech.audio_token_id] * length
    return ModelInputs((*ids, *text[half:]), tuple(media))
