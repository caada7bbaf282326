"""Records that a tiny model can learn: plain pictures with the name of their colour, and tones with their names."""

import io

import numpy as np
import PIL.Image
import soundfile

from phi4.data.record import Record, Split
from phi4.processing.messages import Message, user_message
from train.stages import SAMPLE_RATE_HZ

COLOURS = {"red": (220, 30, 30), "green": (30, 190, 60), "blue": (40, 60, 220), "white": (245, 245, 245)}
TONES = {"low": 200, "mid": 900, "high": 3000}


def colours(number: int, split: Split) -> list[Record]:
    """Pictures with a little noise, each named."""
    names = [list(COLOURS)[index % len(COLOURS)] for index in range(number)]
    return [
        record(f"{split}-{index}", split, user_message("Which?", images=[picture(name, index)]), name)
        for index, name in enumerate(names)
    ]


def tones(number: int, split: Split) -> list[Record]:
    """Two or three tones one after the other, each named."""
    rng = np.random.default_rng(1 if split == "train" else 2)
    lines = [[str(name) for name in rng.choice(list(TONES), size=2 + index % 2)] for index in range(number)]
    return [
        record(f"{split}-{index}", split, user_message("Hear.", sounds=[melody(line)]), " ".join(line))
        for index, line in enumerate(lines)
    ]


def record(name: str, split: Split, question: Message, answer: str) -> Record:
    """A question and its answer."""
    return Record(name, (question, Message("assistant", answer)), "made up", "CC0-1.0", split, "name")


def broken(name: str, split: Split = "train") -> Record:
    """A record whose picture is none."""
    return record(name, split, user_message("Which?", images=[b"no picture at all"]), "red")


def picture(name: str, seed: int) -> bytes:
    """The content of a PNG file, 40 pixels wide and high, in one colour."""
    noise = np.random.default_rng(seed).integers(-20, 20, (40, 40, 3))
    pixels = (np.array(COLOURS[name]) + noise).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def melody(names: list[str]) -> bytes:
    """The content of a WAV file: each tone lasts 0.3 seconds, and 0.1 seconds of silence follow."""
    time_s = np.arange(int(0.3 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    silence = np.zeros(int(0.1 * SAMPLE_RATE_HZ))
    samples = [part for name in names for part in (0.3 * np.sin(2 * np.pi * TONES[name] * time_s), silence)]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(samples), SAMPLE_RATE_HZ, format="WAV")
    return file.getvalue()
