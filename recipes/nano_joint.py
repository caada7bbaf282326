"""nano answers spoken questions about pictures: the published joint stage (facts sheet 8.4) with other numbers.

Behind it, `recipes.nano.sharpen` and `recipes.nano.settle` train the tower alone, and `recipes.nano.tell` and `words`
the adapter alone.

Nothing says where the release's second audio projector comes from. Here it starts as a copy of the first and trains.
"""

from dataclasses import replace

import numpy as np

from phi4.data.record import Record
from phi4.processing.messages import Message
from phi4.train.stage import Source, Stage
from recipes.nano import augment_pictures, augment_sounds
from recipes.nano_vision import SPELLED

# How often `words` puts an empty system message in place of the template's own, which is 16 of the 65 tokens that a
# drawing takes, and teaches nothing.
EMPTY_SYSTEM_SHARE = 0.8


def joint() -> Stage:
    """The vision adapter learns to listen; the speech encoder and its adapter are frozen."""
    return Stage(
        name="nano joint",
        about="spoken and written questions about pictures",
        trains=(
            "vision.adapter",
            "vision.projector",
            "vision.separator",
            "vision.row_separator",
            "vision.encoder",
            "speech.projectors.vision",
        ),
        copies={"speech.projectors.vision": "speech.projectors.speech"},
        sources=(
            Source("emoji", 12),
            Source("spoken_vqa", 2),
            Source("easy_vqa", 1.5),
            Source("text_line", 1.5, SPELLED),
        ),
        steps=1000,
        rows_per_step=2,
        tokens_per_row=1024,
        learning_rate=3e-4,
        rate_factors={"vision.adapter": 5.0, "vision.encoder": 0.5},
        warmup_steps=20,
        augment=augment,
        valid_every=200,
        valid_records=100,
        save_every=50,
    )


def words() -> Stage:
    """What the rows of a picture tell becomes words; tower and projector are as `recipes.nano.settle` left them.

    Trained along, they would go back to rows that a language model has to average.
    """
    return Stage(
        name="nano vision words",
        about="names of what rows tell",
        trains=("vision.adapter", "vision.separator", "vision.row_separator"),
        sources=(
            Source("emoji", 24),
            Source("spoken_vqa", 2),
            Source("easy_vqa", 0.7),
            Source("text_line", 8, SPELLED),
        ),
        steps=1500,
        rows_per_step=1,
        tokens_per_row=1024,
        learning_rate=4e-4,
        warmup_steps=20,
        augment=augment_briefly,
        valid_every=250,
        valid_records=100,
        save_every=50,
        seed=21,
    )


def augment(record: Record, generator: np.random.Generator) -> Record:
    """Changes the pictures and the sounds of a record."""
    return augment_sounds.augment(augment_pictures.augment(record, generator), generator)


def augment_briefly(record: Record, generator: np.random.Generator) -> Record:
    """The same, and mostly with an empty system message, so that more records pass in an hour."""
    changed = augment(record, generator)
    if changed.messages[0].role == "system" or generator.random() >= EMPTY_SYSTEM_SHARE:
        return changed
    return replace(changed, messages=(Message("system", ""), *changed.messages))
