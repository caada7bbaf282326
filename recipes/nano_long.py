"""nano learns on, from the packs that the other recipes made, with rows that a GPU fills: `make nano-long`.

`name` and `see` go on with vision, `hear` and `instruct` with speech, and `joint` brings them together again.
"""

from dataclasses import replace

from phi4.train.stage import Contrastive, Ctc, Source, Stage
from recipes import nano_joint, nano_speech, nano_vision


def name() -> Stage:
    """Emoji, shapes and letters by what the language model would get of them."""
    return replace(
        nano_vision.name(),
        name="nano vision name, long",
        sources=(
            Source("emoji", 12, Contrastive(grounded=True)),
            Source("easy_vqa_named", 1, Contrastive(grounded=True)),
            Source("text_line", 6, Ctc("vision", 160, grounded=True)),
        ),
        steps=87,
        tokens_per_row=20_000,
        learning_rate=1.5e-3,
        warmup_steps=10,
        valid_every=43,
        seed=3,
    )


def see() -> Stage:
    """Answers about one picture, through the language model."""
    return replace(
        nano_vision.tune(),
        name="nano vision see, long",
        sources=(Source("emoji", 10), Source("easy_vqa", 3), Source("text_line", 4)),
        steps=71,
        tokens_per_row=16_384,
        learning_rate=4e-4,
        rate_factors={"vision.adapter": 4.0, "vision.encoder": 0.7},
        valid_every=35,
        valid_records=200,
        seed=3,
    )


def hear() -> Stage:
    """Encoder and projector of speech, by what the language model would get of the words."""
    return replace(
        nano_speech.ground(),
        name="nano speech hear, long",
        steps=70,
        tokens_per_row=16_384,
        learning_rate=1e-3,
        valid_every=35,
        seed=3,
    )


def instruct() -> Stage:
    """Transcripts, through the language model; the encoder learns on, since it is far from the release's."""
    return replace(
        nano_speech.instruct(),
        name="nano speech instruct, long",
        trains=("speech.adapter", "speech.projectors.speech", "speech.encoder"),
        steps=109,
        tokens_per_row=16_384,
        learning_rate=4e-4,
        rate_factors={"speech.adapter": 4.0, "speech.encoder": 0.7},
        valid_every=54,
        seed=3,
    )


def joint() -> Stage:
    """Spoken and written questions about pictures; the speech encoder stays."""
    return replace(
        nano_joint.joint(),
        name="nano joint, long",
        copies={},
        sources=(Source("emoji", 9), Source("spoken_vqa", 4), Source("easy_vqa", 1.5), Source("text_line", 3)),
        steps=330,
        learning_rate=2e-4,
        rate_factors={"vision.adapter": 5.0, "vision.encoder": 0.7},
        valid_every=110,
        seed=5,
    )
