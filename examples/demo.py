"""What `make demo` runs: nano answers about text, pictures and sounds, and behind each answer stands the right one.
None of the pictures and voices was trained on; `examples/media/README.md` says where they are from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from show import MEDIA, show_picture, show_sound

from phi4 import Assistant, Sampling


@dataclass(frozen=True)
class Question:
    """What goes in: words (none where a voice asks) and files in `MEDIA`; and the answer that is right."""

    about: str
    right: str
    text: str
    images: Sequence[str] = ()
    sounds: Sequence[str] = ()


HEARD = "turn on the music in the basement"
QUESTIONS = (
    Question("text", "Paris", "What is the capital of France?"),
    Question("a drawing style it never saw, of which it names three in four", "fox", "What is this?", ["fox.png"]),
    Question("a test picture of easy-vqa", "triangle", "what is the red shape?", images=["shape.png"]),
    Question("a voice that it never heard", HEARD, "Transcribe the audio clip into text.", sounds=["music.flac"]),
    Question('a voice that asks about a picture: "what color is the shape"', "red", "", ["asked.png"], ["asked.flac"]),
)


def main() -> None:
    """Asks the questions one after the other."""
    console, assistant = Console(), Assistant.load("nano")
    for question in QUESTIONS:
        console.rule(question.about, align="left")
        for name in question.images:
            show_picture(console, MEDIA / name)
        for name in question.sounds:
            show_sound(console, MEDIA / name)
        if question.text:
            console.print(f"> {question.text}", markup=False)
        stream = assistant.stream(
            question.text,
            images=[MEDIA / name for name in question.images],
            sounds=[MEDIA / name for name in question.sounds],
            sampling=Sampling(max_tokens=100),
        )
        for piece in stream:
            print(piece, end="", flush=True)
        took = f"{len(stream.answer.token_ids)} tokens in {stream.answer.seconds:.1f} s"
        media = "".join(f", {modality} {tokens} tokens" for modality, tokens in stream.answer.media)
        console.print(f"\n  [{took}{media}; right is: {question.right}]\n", markup=False)


if __name__ == "__main__":
    main()
