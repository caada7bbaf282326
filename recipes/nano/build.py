"""Builds nano's training and test data from packages: `python -m recipes.nano.build pictures --out DIR`.

DIR gets one folder of shards for each data set. A folder that exists is kept, so an interrupted build goes on where it
stopped.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from phi4.cli import run
from phi4.data.record import Record, Split
from phi4.data.shards import write_shards

if TYPE_CHECKING:
    from recipes.nano.voices import Engine

# A voice asks about one in so many pictures. There are 43 training voices and six held-out ones.
SPOKEN_ONE_IN: Mapping[Split, int] = {"train": 10, "valid": 10, "test": 4}

app = typer.Typer(
    help="Build nano's training and test data from packages.", no_args_is_help=True, pretty_exceptions_enable=False
)

Out = Annotated[Path, typer.Option("--out", help="Gets one folder of shards for each data set.")]


@app.command()
def pictures(out: Out) -> None:
    """Emoji to name, shapes to ask about, lines of text to read."""
    from recipes.nano import easy_vqa, emoji, text_lines
    from recipes.nano.emoji_drawings import all_drawings
    from recipes.nano.further_drawings import all_further_drawings

    build(
        out,
        {
            "emoji": lambda: emoji.emoji_records(all_drawings()),
            "emoji_further": lambda: emoji.emoji_records(all_further_drawings()),
            "easy_vqa": lambda: easy_vqa.easy_vqa_records(easy_vqa.all_pictures()),
            "easy_vqa_named": lambda: easy_vqa.named_records(easy_vqa.all_pictures()),
            "text_line": lambda: text_lines.text_line_records(text_lines.all_faces(), text_lines.all_words()),
            "emoji_many": lambda: emoji.emoji_many_records(all_drawings()),
        },
    )


@app.command()
def speech(
    out: Out,
    cached_only: Annotated[
        bool,
        typer.Option(
            "--cached-only",
            help="To try things out, into a folder of its own, since a build keeps what it finds: leave out clips that "
            "are not synthesised yet.",
        ),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="The same, but leave out only Kokoro's; those of flite and eSpeak take minutes."),
    ] = False,
) -> None:
    """Clips to transcribe, and spoken questions about easy-vqa's pictures."""
    from recipes.nano import asterisk, voices
    from recipes.nano import speech as clips

    engines = () if cached_only else voices.QUICK_ENGINES if quick else voices.ENGINES
    build(
        out,
        {
            "speech": lambda: clips.speech_records(engines),
            "asterisk": asterisk.asterisk_records,
            "sanity": asterisk.sanity_records,
            "spoken_vqa": lambda: spoken_questions(engines),
        },
    )


def spoken_questions(engines: "Collection[Engine]") -> Iterator[Record]:
    """Lets each voice ask about some of the pictures of its split; validation has the training voices.

    Args:
        engines: whose clips are synthesised where they are missing; those of the others are left out.
    """
    from recipes.nano import easy_vqa, speech, voices

    pictures = easy_vqa.all_pictures()
    for split, one_in in SPOKEN_ONE_IN.items():
        asked = [picture for picture in pictures if picture.split == split]
        for voice in voices.HELD_OUT if split == "test" else voices.TRAINING:
            clips = speech.question_clips("test" if split == "test" else "train", [voice], engines)
            _, licence = speech.ENGINE_SOURCES[voice.engine]
            yield from easy_vqa.spoken_records(asked, clips, f"{voice.engine} {voice.name}", licence, one_in)


def build(out: Path, datasets: Mapping[str, Callable[[], Iterator[Record]]]) -> None:
    """Writes the data sets that are not there yet, one after the other, and shows how far it is."""
    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed:,} records"), TimeElapsedColumn())
    for name, records in datasets.items():
        directory = out / name
        if directory.exists():
            print(f"{directory}: kept")
            continue
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            write_shards(progress.track(records(), description=name), directory)
        print(f"{directory}: built")


if __name__ == "__main__":
    run(app)
