"""nano learns to hear: encoder pre-training, then the published speech stages (facts sheet 8.3) with other numbers.

The release starts from the encoder of a speech recogniser; none can be had here, so `pretrain` makes one with CTC.
"""

from phi4.train.stage import Ctc, Source, Stage
from recipes.nano.augment_sounds import augment


def pretrain() -> Stage:
    """Stage 0: the conformer alone, no language model, on clean speech: distorted, it takes much longer to line up."""
    return Stage(
        name="nano speech pretrain",
        about="synthetic voices and what they say",
        trains=("speech.encoder",),
        sources=(Source("speech", 1, Ctc("speech", 320)),),
        steps=3000,
        rows_per_step=1,
        tokens_per_row=2000,
        learning_rate=1e-3,
        warmup_steps=300,
        valid_every=500,
        valid_records=96,
        save_every=250,
    )


def harden() -> Stage:
    """Stage 0b: the same with noise, echo, narrow bands and other speeds."""
    return Stage(
        name="nano speech harden",
        about="the same voices as microphones and rooms change them",
        trains=("speech.encoder",),
        sources=(Source("speech", 1, Ctc("speech", 320)),),
        steps=6000,
        rows_per_step=1,
        tokens_per_row=2500,
        learning_rate=1e-3,
        warmup_steps=200,
        augment=augment,
        valid_every=500,
        valid_records=96,
        save_every=250,
    )


def practise() -> Stage:
    """Stage 0c: the same for longer."""
    return Stage(
        name="nano speech practise",
        about="the same voices as microphones and rooms change them",
        trains=("speech.encoder",),
        sources=(Source("speech", 1, Ctc("speech", 320)),),
        steps=2400,
        rows_per_step=1,
        tokens_per_row=2000,
        learning_rate=1e-3,
        warmup_steps=200,
        augment=augment,
        valid_every=500,
        valid_records=96,
        save_every=250,
        seed=1,
    )


def bridge() -> Stage:
    """Stage 0d: the projector learns to give what the language model would get of the words.

    Alone: through a projector that knows nothing yet, the encoder would unlearn what it can.
    """
    return Stage(
        name="nano speech bridge",
        about="the same voices as microphones and rooms change them",
        trains=("speech.projectors.speech",),
        sources=(Source("speech", 1, Ctc("speech", 320, grounded=True)),),
        steps=200,
        rows_per_step=1,
        tokens_per_row=2000,
        learning_rate=2e-3,
        warmup_steps=20,
        augment=augment,
        valid_every=200,
        valid_records=96,
        save_every=100,
    )


def ground() -> Stage:
    """Stage 0e: encoder and projector."""
    return Stage(
        name="nano speech ground",
        about="the same voices as microphones and rooms change them",
        trains=("speech.encoder", "speech.projectors.speech"),
        sources=(Source("speech", 1, Ctc("speech", 320, grounded=True)),),
        steps=1000,
        rows_per_step=1,
        tokens_per_row=2000,
        learning_rate=7e-4,
        warmup_steps=50,
        augment=augment,
        valid_every=250,
        valid_records=96,
        save_every=200,
    )


def align() -> Stage:
    """Stage 1: encoder and projector."""
    return Stage(
        name="nano speech align",
        about="transcription",
        trains=("speech.encoder", "speech.projectors.speech"),
        sources=(Source("speech", 1),),
        steps=20,
        rows_per_step=1,
        tokens_per_row=1024,
        learning_rate=1e-4,
        warmup_steps=10,
        augment=augment,
        valid_every=100,
        save_every=50,
    )


def instruct() -> Stage:
    """Stage 2: projector and adapter; the encoder is frozen."""
    return Stage(
        name="nano speech instruct",
        about="transcription",
        trains=("speech.adapter", "speech.projectors.speech"),
        sources=(Source("speech", 1),),
        steps=420,
        rows_per_step=1,
        tokens_per_row=1024,
        learning_rate=1e-4,
        rate_factors={"speech.adapter": 10.0},
        augment=augment,
        valid_every=100,
        save_every=50,
    )
