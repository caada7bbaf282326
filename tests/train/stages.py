"""Stages for tests, in the form of a recipe; small enough for the tiny checkpoint."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from phi4.data.record import Record
from phi4.processing.audio_file import load_audio
from phi4.processing.image_file import load_image
from phi4.processing.messages import Image, Part, Sound
from phi4.train.stage import Contrastive, Ctc, Source, Stage

SAMPLE_RATE_HZ = 16_000


def mixed() -> Stage:
    """Pictures and sounds, with augmentation; dropout comes with the packs."""
    return Stage(
        name="mixed",
        about="colours and tones",
        trains=("vision.projector", "vision.separator", "vision.adapter", "speech.adapter", "speech.encoder.blocks"),
        sources=(Source("colours", 2), Source("tones", 1)),
        steps=10,
        rows_per_step=3,
        tokens_per_row=120,
        learning_rate=2e-3,
        warmup_steps=2,
        augment=augment,
        valid_every=4,
        valid_records=1,
        save_every=4,
    )


def paused() -> Stage:
    """The same; it waits after some steps until somebody lets it go on."""
    return replace(mixed(), augment=augment_or_wait)


def align() -> Stage:
    """The projector alone."""
    return replace(
        mixed(), name="align", trains=("vision.projector",), sources=(Source("colours"),), augment=None, steps=3
    )


def contrast() -> Stage:
    """Pre-training of the vision tower."""
    return replace(
        align(), name="contrast", trains=("vision.encoder",), sources=(Source("colours", 1, Contrastive()),), steps=6
    )


def listen() -> Stage:
    """Pre-training of the speech encoder."""
    return replace(
        align(), name="listen", trains=("speech.encoder",), sources=(Source("tones", 1, Ctc("speech", 20)),), steps=3
    )


def augment(record: Record, generator: np.random.Generator) -> Record:
    """Changes how bright a picture or how loud a sound is."""
    messages = tuple(
        replace(message, content=tuple(_augment_part(part, generator) for part in message.parts))
        if message.role == "user"
        else message
        for message in record.messages
    )
    return replace(record, messages=messages)


def augment_or_wait(record: Record, generator: np.random.Generator) -> Record:
    """Waits once the run in $WAIT_IN has done five steps: says so by a file `waiting`, until there is a file `go`."""
    run = Path(os.environ.get("WAIT_IN", "nowhere"))
    metrics = run / "metrics.jsonl"
    if metrics.is_file() and '"step": 5' in metrics.read_text():
        (run / "waiting").touch()
        while not (run / "go").exists():
            time.sleep(0.01)
    return augment(record, generator)


def _augment_part(part: Part, generator: np.random.Generator) -> Part:
    factor = float(generator.uniform(0.5, 1.0))
    match part:
        case Image(source):
            return Image(load_image(source).point(lambda value: int(value * factor)))
        case Sound(source):
            return Sound((load_audio(source, SAMPLE_RATE_HZ) * factor, SAMPLE_RATE_HZ))
        case _:
            return part
