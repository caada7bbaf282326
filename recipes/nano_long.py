"""nano learns on, from the packs that come with the package: `make nano-long`.

`hear` and `instruct` go on with speech, and `joint` with pictures and with spoken questions about them. Behind `joint`,
`recipes.nano.sharpen` and `recipes.nano.settle` train the tower alone, and `recipes.nano.tell` and `words` the adapter.
"""

from dataclasses import replace

from phi4.train.stage import Source, Stage
from recipes import nano_joint, nano_speech
from recipes.nano_vision import SPELLED


def hear() -> Stage:
    """Encoder and projector of speech, by what the language model would get of the words."""
    return replace(
        nano_speech.ground(),
        name="nano speech hear",
        steps=280,
        tokens_per_row=4000,
        warmup_steps=20,
        valid_every=140,
        seed=12,
    )


def instruct() -> Stage:
    """Transcripts, through the language model; the encoder learns on, since it is far from the release's."""
    return replace(
        nano_speech.instruct(),
        name="nano speech instruct, again",
        trains=("speech.adapter", "speech.projectors.speech", "speech.encoder"),
        steps=400,
        learning_rate=1.5e-4,
        rate_factors={"speech.adapter": 5.0},
        warmup_steps=20,
        valid_every=200,
        valid_records=100,
        seed=12,
    )


def joint() -> Stage:
    """Spoken and written questions about pictures; the speech encoder stays."""
    return replace(
        nano_joint.joint(),
        name="nano joint, again",
        copies={},
        sources=(
            Source("emoji", 20),
            Source("spoken_vqa", 3.5),
            Source("easy_vqa", 1),
            Source("text_line", 6, SPELLED),
        ),
        steps=800,
        rows_per_step=1,
        learning_rate=1.5e-4,
        rate_factors={"vision.adapter": 5.0},
        seed=11,
    )


def words() -> Stage:
    """What the rows of a picture tell becomes words; tower and projector stay."""
    return replace(nano_joint.words(), name="nano vision words, again", seed=22)
