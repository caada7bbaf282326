"""Writes the two packs that nano's training begins with: `python -m recipes.nano.begin --data DIR --out DIR`."""

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
from phi4.processing.messages import Sound
from phi4.processing.settings import AudioSettings
from recipes.nano.augment_sounds import augment
from recipes.nano.command import run
from recipes.nano.model import SPEECH, SPEECH_PREPROCESSOR, VISION, VISION_PREPROCESSOR
from recipes.nano.tower import begin_tower

# The mean and deviation of mel channels settle long before this many clips.
NUM_CLIPS = 1000


def main(
    data: Annotated[Path, typer.Option(help="The folder with the folders of shards emoji, text_line and speech.")],
    out: Annotated[Path, typer.Option(help="Where vision.safetensors and speech.safetensors go.")],
) -> None:
    """Writes random packs with adapters that do nothing yet; the encoders know the statistics of their data."""
    out.mkdir(parents=True, exist_ok=True)
    base = open_checkpoint(pull_nano())
    collections = [ShardedRecords.open(data / name) for name in ("emoji", "text_line")]
    tower = begin_tower(VISION["img_processor"], VISION["embd_layer"]["image_embd_layer"]["crop_size"], collections)
    write_new_pack(out / "vision.safetensors", base, "vision", VISION, VISION_PREPROCESSOR, given=tower)
    mean, deviation = mel_statistics(ShardedRecords.open(data / "speech"))
    given = {"speech.encoder.global_mean": mean, "speech.encoder.global_invstd": 1.0 / deviation}
    write_new_pack(out / "speech.safetensors", base, "speech", SPEECH, SPEECH_PREPROCESSOR, given=given)


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
    run(main)
