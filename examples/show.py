"""Draws pictures and sounds in a terminal: `python examples/show.py [FILE…]`, the demo's files if none are named."""

import sys
from pathlib import Path

import numpy as np
import PIL.Image
import soundfile
from rich.console import Console
from rich.text import Text

MEDIA = Path(__file__).parent / "media"
BARS = " ▁▂▃▄▅▆▇█"


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
    for file in [Path(name) for name in sys.argv[1:]] or [*MEDIA.glob("*.png"), *MEDIA.glob("*.flac")]:
        (show_sound if file.suffix in (".flac", ".wav", ".ogg") else show_picture)(Console(), file)
