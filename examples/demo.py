"""Pulls nano and asks it about text, pictures and sound: what `make demo` runs.

None of the pictures and voices was trained on; `examples/media/README.md` says where they are from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import soundfile
from rich.console import Console
from rich.text import Text

from phi4 import Assistant, Sampling

MEDIA = Path(__file__).parent / "media"
BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Question:
    """What goes in.

    Attributes:
        about: what the question shows.
        text: empty where a voice asks.
        images: files in `MEDIA`.
        audios: files in `MEDIA`.
    """

    about: str
    text: str
    images: Sequence[str] = ()
    audios: Sequence[str] = ()


QUESTIONS = (
    Question("text", "What is the capital of France?"),
    Question("a picture in a drawing style it never saw", "What is this?", images=["guitar.png"]),
    Question("a test picture of easy-vqa", "what is the red shape?", images=["shape.png"]),
    Question("a voice that it never heard", "Transcribe the audio clip into text.", audios=["music.flac"]),
    Question('a voice that asks about a picture: "what color is the shape"', "", ["asked.png"], ["asked.flac"]),
)


def main() -> None:
    """Asks the questions one after the other."""
    console = Console()
    assistant = Assistant.load("nano")
    for question in QUESTIONS:
        console.rule(question.about, align="left")
        for name in question.images:
            show_picture(console, MEDIA / name)
        for name in question.audios:
            show_sound(console, MEDIA / name)
        if question.text:
            console.print(f"> {question.text}", markup=False)
        stream = assistant.stream(
            question.text,
            images=[MEDIA / name for name in question.images],
            audios=[MEDIA / name for name in question.audios],
            sampling=Sampling(max_tokens=100),
        )
        for piece in stream:
            print(piece, end="", flush=True)
        answer = stream.answer
        media = "".join(f", {modality} {tokens} tokens" for modality, tokens in answer.media)
        console.print(f"\n  [{len(answer.token_ids)} tokens in {answer.seconds:.1f} s{media}]\n", markup=False)


def show_picture(console: Console, path: Path) -> None:
    """Draws a picture with half blocks, 24 rows of pixels high; a file or a pipe gets its name alone."""
    console.print(f"picture {path.name}", markup=False)
    if not console.is_terminal:
        return
    picture = PIL.Image.open(path).convert("RGB")
    pixels = np.asarray(picture.resize((24 * picture.width // picture.height, 24)))
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        line = Text()
        for top, bottom in zip(upper, lower, strict=True):
            line.append("▀", style=f"rgb({','.join(map(str, top))}) on rgb({','.join(map(str, bottom))})")
        console.print(line)


def show_sound(console: Console, path: Path) -> None:
    """Draws how loud a sound is, from left to right."""
    samples, rate_hz = soundfile.read(path)
    loudness = np.array([np.abs(part).max() for part in np.array_split(samples, 60)])
    bars = (loudness / max(loudness.max(), 1e-9) * (len(BARS) - 1)).round().astype(int)
    wave = "".join(BARS[bar] for bar in bars)
    console.print(f"sound {path.name}, {len(samples) / rate_hz:.1f} s  {wave}", markup=False)


if __name__ == "__main__":
    main()
