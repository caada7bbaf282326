"""nano learns to see: encoder pre-training, then the published vision stages (facts sheet 8.2) with other numbers.

The release starts from SigLIP; no pretrained tower can be had here, so `pretrain` makes one with SigLIP's own loss on
emoji and their names. Lines of text have no names; the tower learns to read them with CTC at the same time.
"""

from dataclasses import replace

from phi4.train.stage import Answers, Contrastive, Ctc, Source, Stage
from recipes.nano.augment_pictures import augment

# A line may hold words that nobody knows.
SPELLED = Answers(spelled=True)


def pretrain() -> Stage:
    """Stage 0: the tower alone, no language model."""
    return Stage(
        name="nano vision pretrain",
        about="emoji and their names",
        trains=("vision.encoder",),
        sources=(Source("emoji", 1, Contrastive(guide="guide.safetensors")),),
        steps=2000,
        rows_per_step=1,
        tokens_per_row=7600,
        learning_rate=4e-3,
        warmup_steps=100,
        weight_decay=0.05,
        augment=augment,
        valid_every=500,
        valid_records=213,
        save_every=250,
    )


def read() -> Stage:
    """Stage 0b: the tower learns letters too, and keeps the emoji."""
    return Stage(
        name="nano vision read",
        about="emoji and their names; lines of text",
        trains=("vision.encoder",),
        sources=(
            Source("emoji", 3, Contrastive(guide="guide.safetensors")),
            Source("text_line", 1, Ctc("vision", 160)),
        ),
        steps=1000,
        rows_per_step=1,
        tokens_per_row=6000,
        learning_rate=2e-3,
        warmup_steps=100,
        weight_decay=0.05,
        augment=augment,
        valid_every=500,
        valid_records=213,
        save_every=250,
    )


def practise() -> Stage:
    """Stage 0c: the same for longer, with more emoji and other changes to them."""
    return Stage(
        name="nano vision practise",
        about="emoji and their names; lines of text",
        trains=("vision.encoder",),
        sources=(
            Source("emoji", 6, Contrastive(guide="guide.safetensors")),
            Source("text_line", 1, Ctc("vision", 160)),
        ),
        steps=2600,
        rows_per_step=1,
        tokens_per_row=6000,
        learning_rate=3e-3,
        warmup_steps=100,
        weight_decay=0.05,
        augment=augment,
        valid_every=500,
        valid_records=213,
        save_every=250,
        seed=1,
    )


def bridge() -> Stage:
    """Stage 0d: the projector learns to give what the language model would get of the words.

    Alone: through a projector that knows nothing yet, the tower would unlearn what it can.
    """
    return Stage(
        name="nano vision bridge",
        about="emoji, shapes and their names; lines of text",
        trains=("vision.projector",),
        sources=(
            Source("emoji", 4, Contrastive(grounded=True)),
            Source("easy_vqa_named", 1, Contrastive(grounded=True)),
            Source("text_line", 3, Ctc("vision", 160, grounded=True)),
        ),
        steps=300,
        rows_per_step=1,
        tokens_per_row=6000,
        learning_rate=2e-3,
        warmup_steps=30,
        weight_decay=0.05,
        augment=augment,
        valid_every=300,
        valid_records=213,
        save_every=100,
    )


def ground() -> Stage:
    """Stage 0e: tower and projector."""
    return Stage(
        name="nano vision ground",
        about="emoji, shapes and their names; lines of text",
        trains=("vision.encoder", "vision.projector"),
        sources=(
            Source("emoji", 4, Contrastive(grounded=True)),
            Source("easy_vqa_named", 1, Contrastive(grounded=True)),
            Source("text_line", 3, Ctc("vision", 160, grounded=True)),
        ),
        steps=900,
        rows_per_step=1,
        tokens_per_row=6000,
        learning_rate=1e-3,
        warmup_steps=100,
        weight_decay=0.05,
        augment=augment,
        valid_every=300,
        valid_records=213,
        save_every=200,
    )


def name() -> Stage:
    """Stage 0f: mostly emoji, until what the language model would get of them tells a thousand names apart."""
    return Stage(
        name="nano vision name",
        about="emoji, shapes and their names; lines of text",
        trains=("vision.encoder", "vision.projector"),
        sources=(
            Source("emoji", 12, Contrastive(grounded=True)),
            Source("easy_vqa_named", 1, Contrastive(grounded=True)),
            Source("text_line", 5, Ctc("vision", 160, grounded=True)),
        ),
        steps=1900,
        rows_per_step=1,
        tokens_per_row=6000,
        learning_rate=1e-3,
        rate_factors={"vision.projector": 2.0},
        warmup_steps=30,
        weight_decay=0.05,
        augment=augment,
        valid_every=250,
        valid_records=213,
        save_every=100,
        seed=2,
    )


def letters() -> Stage:
    """Stage 0g: lines by single letters, since what is to be read may be no word that anybody knows.

    Behind it, `recipes.nano.gather` adds two layers, by which every row tells what the whole picture shows.
    """
    return replace(
        name(),
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


def align() -> Stage:
    """Stage 1: the projector learns where the language model expects things."""
    return Stage(
        name="nano vision align",
        about="one answer about one picture",
        trains=("vision.projector", "vision.separator", "vision.row_separator"),
        sources=(Source("emoji", 3), Source("easy_vqa", 1), Source("text_line", 1, SPELLED)),
        steps=20,
        rows_per_step=1,
        tokens_per_row=1024,
        learning_rate=1e-4,
        warmup_steps=10,
        augment=augment,
        valid_every=100,
        save_every=50,
    )


def joint() -> Stage:
    """Stage 2: projector and tower."""
    return Stage(
        name="nano vision joint",
        about="one answer about one picture",
        trains=("vision.projector", "vision.separator", "vision.row_separator", "vision.encoder"),
        sources=(Source("emoji", 3), Source("easy_vqa", 1), Source("text_line", 1, SPELLED)),
        steps=20,
        rows_per_step=1,
        tokens_per_row=1024,
        learning_rate=1e-4,
        warmup_steps=10,
        augment=augment,
        valid_every=100,
        save_every=50,
    )


def tune() -> Stage:
    """Stage 3: the adapter, the projector and the tower."""
    return Stage(
        name="nano vision tune",
        about="one answer, or several, about one picture",
        trains=("vision.adapter", "vision.projector", "vision.separator", "vision.row_separator", "vision.encoder"),
        sources=(Source("emoji", 4), Source("easy_vqa", 1), Source("text_line", 2, SPELLED)),
        steps=300,
        rows_per_step=1,
        tokens_per_row=1024,
        learning_rate=1e-4,
        rate_factors={"vision.adapter": 10.0},
        augment=augment,
        valid_every=100,
        save_every=50,
    )


def many() -> Stage:
    """Stage 4: several pictures in a conversation; the tower is frozen."""
    return Stage(
        name="nano vision many",
        about="several pictures in one conversation",
        trains=("vision.adapter", "vision.projector", "vision.separator", "vision.row_separator"),
        sources=(Source("emoji_many", 1), Source("emoji", 2), Source("easy_vqa", 1), Source("text_line", 1, SPELLED)),
        steps=220,
        rows_per_step=1,
        tokens_per_row=1024,
        learning_rate=1e-4,
        rate_factors={"vision.adapter": 10.0},
        warmup_steps=10,
        augment=augment,
        valid_every=100,
        save_every=50,
    )
