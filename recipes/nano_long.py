"""nano learns on, from the packs that the other recipes made: `make nano-long`.

`letters` and `see` go on with vision, `hear` and `instruct` with speech, and `joint` brings them together again.
"""

from dataclasses import replace

from phi4.train.stage import Answers, Contrastive, Ctc, Source, Stage
from recipes import nano_joint, nano_speech, nano_vision


def letters() -> Stage:
    """Emoji, shapes and single letters by what the language model would get of them."""
    return replace(
        nano_vision.name(),
        name="nano vision letters",
        sources=(
            Source("emoji", 14, Contrastive(grounded=True)),
            Source("easy_vqa_named", 1, Contrastive(grounded=True)),
            Source("text_line", 6, Ctc("vision", 64, grounded=True)),
        ),
        steps=2000,
        learning_rate=1.5e-3,
        warmup_steps=50,
        valid_every=400,
        seed=4,
    )


def see() -> Stage:
    """Answers about one picture, through the language model; what is read is spelled."""
    return replace(
        nano_vision.tune(),
        name="nano vision see",
        sources=(
            Source("emoji", 10),
            Source("easy_vqa", 1.5),
            Source("text_line", 5, Answers(spelled=True)),
        ),
        steps=350,
        learning_rate=2.5e-4,
        rate_factors={"vision.adapter": 5.0},
        warmup_steps=20,
        valid_every=100,
        valid_records=100,
        seed=4,
    )


def hear() -> Stage:
    """Encoder and projector of speech, by what the language model would get of the words."""
    return replace(
        nano_speech.ground(),
        name="nano speech hear",
        steps=600,
        tokens_per_row=4000,
        learning_rate=1e-3,
        valid_every=200,
        seed=4,
    )


def instruct() -> Stage:
    """Transcripts, through the language model; the encoder learns on, since it is far from the release's."""
    return replace(
        nano_speech.instruct(),
        name="nano speech instruct, again",
        trains=("speech.adapter", "speech.projectors.speech", "speech.encoder"),
        steps=500,
        rows_per_step=2,
        learning_rate=3e-4,
        rate_factors={"speech.adapter": 5.0},
        warmup_steps=20,
        valid_every=100,
        valid_records=100,
        seed=4,
    )


def joint() -> Stage:
    """Spoken and written questions about pictures; the speech encoder stays."""
    return replace(
        nano_joint.joint(),
        name="nano joint, again",
        copies={},
        sources=(
            Source("emoji", 10),
            Source("spoken_vqa", 4),
            Source("easy_vqa", 1.5),
            Source("text_line", 5, Answers(spelled=True)),
        ),
        steps=210,
        learning_rate=3e-4,
        rate_factors={"vision.adapter": 5.0},
        valid_every=100,
        seed=6,
    )
