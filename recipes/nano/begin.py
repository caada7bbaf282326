"""Writes the two packs that nano's training begins with: `python -m recipes.nano.begin --data DIR --out DIR`."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.nano import pull_nano
from phi4.checkpoint.new_pack import write_new_pack
from phi4.data.shards import ShardedRecords
from phi4.processing.audio import audio_to_frames
from phi4.processing.audio_file import load_audio
from phi4.processing.image import image_to_crops
from phi4.processing.image_file import load_image
from phi4.processing.messages import Sound
from phi4.processing.settings import AudioSettings, ImageSettings
from recipes.nano.augment_sounds import augment
from recipes.nano.model import SPEECH, SPEECH_PREPROCESSOR, VISION, VISION_PREPROCESSOR

# The mean and deviation of mel channels settle long before this many clips, and patches before so many pictures.
NUM_CLIPS = 1000
NUM_PICTURES = 1000

# What is added to the variance of every direction of a patch, as a share of their mean: without it, the faintest detail
# would be as loud as an outline.
WHITENING_FLOOR = 0.02


def main(
    data: Annotated[Path, typer.Option(help="The folder with the folder of shards called speech.")],
    out: Annotated[Path, typer.Option(help="Where vision.safetensors and speech.safetensors go.")],
) -> None:
    """Writes random packs with adapters that do nothing yet; the encoders know the statistics of their data."""
    out.mkdir(parents=True, exist_ok=True)
    base = open_checkpoint(pull_nano())
    weight, bias = whiten_patches([ShardedRecords.open(data / name) for name in ("emoji", "text_line")])
    seen = {"vision.encoder.patch_embedding.weight": weight, "vision.encoder.patch_embedding.bias": bias}
    write_new_pack(out / "vision.safetensors", base, "vision", VISION, VISION_PREPROCESSOR, given=seen)
    mean, deviation = mel_statistics(ShardedRecords.open(data / "speech"))
    given = {"speech.encoder.global_mean": mean, "speech.encoder.global_invstd": 1.0 / deviation}
    write_new_pack(out / "speech.safetensors", base, "speech", SPEECH, SPEECH_PREPROCESSOR, given=given)


def whiten_patches(collections: Sequence[ShardedRecords]) -> tuple[torch.Tensor, torch.Tensor]:
    """A patch embedding whose outputs vary alike and independently: most patches are nearly plain, and say little.

    Returns:
        The strongest directions of the patches of training pictures, scaled, [width, 3, patch, patch], and a bias that
        takes away the mean, [width].
    """
    width, patch = VISION["img_processor"]["hidden_size"], VISION["img_processor"]["patch_size"]
    settings = ImageSettings(crop_size_px=VISION["embd_layer"]["image_embd_layer"]["crop_size"], patch_size_px=patch)
    crops = []
    for records in collections:
        training = records.select("train")
        for record in training[:: max(1, len(training) // NUM_PICTURES)]:
            (image,) = record.messages[0].media
            crops.append(image_to_crops(load_image(image.source), settings).crops[0])
    patches = torch.stack(crops).unfold(2, patch, patch).unfold(3, patch, patch)
    vectors = patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1).double()
    variances, directions = torch.linalg.eigh(torch.cov(vectors.T))
    scales = (variances + WHITENING_FLOOR * variances.mean()).rsqrt()
    weight = (directions * scales).T.flip(0)[:width]
    return weight.float().view(width, 3, patch, patch), -(weight @ vectors.mean(0)).float()


def mel_statistics(records: ShardedRecords) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each mel channel over augmented training clips, each [mels]."""
    settings = AudioSettings()
    frames = []
    for number, record in enumerate(islice(records.select("train"), NUM_CLIPS)):
        changed = augment(record, np.random.default_rng(number))
        (sound,) = (part for message in changed.messages for part in message.parts if isinstance(part, Sound))
        samples = load_audio(sound.source, settings.sample_rate_hz)
        frames.append(audio_to_frames(samples, settings.sample_rate_hz, settings).frames)
    stacked = torch.cat(frames)
    return stacked.mean(0), stacked.std(0)


if __name__ == "__main__":
    typer.run(main)
