"""Phi-4-Multimodal learns to see: the four published vision stages (facts sheet 8.2).

Published are what trains, the data in words, 0.5 T tokens for stages 1 and 2 together, 0.3 T for 3 and 4, at most 16
crops of a picture in the first two and 36 in the others, and, from the fine-tuning script for vision (8.7), the
optimiser that is `Stage`'s default, a rate of 4e-5, and recomputation of layers. How the tokens are shared out, the
batch size, the rates of these very stages and the weights of the sources are not published; they are chosen here.

Stage 1 began with a SigLIP tower and a new projector: `phi4 new-pack vision --encoder-from` makes such a pack. Sizes
and LoRA (rank 256, alpha 512; 6.1) come from the preset `multimodal`. Each stage takes the pack of the one before.

Sources are folders of shards with the names below. The loss is on answers only, as the published one is on text only:
in the record of a document, pictures are the user's turns, and the text around them is answers.
"""

from dataclasses import replace

import numpy as np
import PIL.Image

from phi4.data.record import Record
from phi4.processing.image import choose_grid, fit_into_grid
from phi4.processing.image_file import load_image
from phi4.processing.messages import Image
from phi4.processing.settings import ImageSettings
from phi4.train.stage import Source, Stage

# The separators go through the projector (4.4) and are counted with it (6.4). That they train with it is not published,
# but no other stage could have taught them.
PROJECTOR = ("vision.projector", "vision.separator", "vision.row_separator")

# 8.2: at most 16 crops in pre-training. A pack's own limit is that of serving, 36.
PRETRAINING = ImageSettings(max_crops=16)


def align() -> Stage:
    """Stage 1: the projector learns where the language model expects things.

    Not published: steps, batch, rate. Stage 1 gets 3 % of the 0.5 T tokens, which is plenty for 13 M parameters; the
    rate is the one that LLaVA-1.5 aligns its projector with (arXiv 2310.03744).
    """
    return Stage(
        name="vision align",
        about="captions of pictures",
        trains=PROJECTOR,
        sources=(Source("captions"),),
        # (1,600 + 58,000) x 1,024 x 8,192 tokens are the 0.5 T of stages 1 and 2 (8.2).
        steps=1_600,
        rows_per_step=1_024,
        # The longest sequence of the fine-tuning script (8.7); 16 crops take at most 4,625 tokens (4.4).
        tokens_per_row=8_192,
        learning_rate=1e-3,
        augment=limit_crops,
        recompute=True,
    )


def joint() -> Stage:
    """Stage 2: projector and tower.

    Not published: steps, batch, rate, weights. The sources are those that 8.2 lists from memory, all of one weight.
    """
    return Stage(
        name="vision joint",
        about="the whole mixture of vision pre-training",
        trains=(*PROJECTOR, "vision.encoder"),
        sources=(
            Source("interleaved_documents"),
            Source("captions"),
            Source("text_recognition"),
            Source("charts_and_tables"),
            Source("grounding"),
        ),
        # With stage 1, 0.5 T tokens (8.2).
        steps=58_000,
        rows_per_step=1_024,
        tokens_per_row=8_192,
        # 8.7, the only rate published for training the tower.
        learning_rate=4e-5,
        augment=limit_crops,
        recompute=True,
    )


def tune() -> Stage:
    """Stage 3: the adapter, the projector and the tower follow instructions about one picture.

    Not published: steps, batch, weights. The sources are those that 8.2 lists from memory; safety weighs less.
    """
    return Stage(
        name="vision tune",
        about="instructions about single pictures",
        trains=("vision.adapter", *PROJECTOR, "vision.encoder"),
        sources=(
            Source("picture_instructions"),
            Source("text_recognition_instructions"),
            Source("chart_and_table_instructions"),
            Source("slide_instructions"),
            Source("vision_safety", 0.2),
        ),
        # 30,000 x 512 x 16,384 + 5,760 x 128 x 65,536 tokens are the 0.3 T of stages 3 and 4 (8.2).
        steps=30_000,
        rows_per_step=512,
        # 36 crops take at most 10,065 tokens (4.4).
        tokens_per_row=16_384,
        # 8.7.
        learning_rate=4e-5,
        recompute=True,
    )


def many_frames() -> Stage:
    """Stage 4: the adapter and the projector follow instructions about several pictures; the tower is frozen.

    Not published: steps, batch, weights, and whether single pictures stay in the mixture; here they do, so that they
    are not forgotten.
    """
    return Stage(
        name="vision many frames",
        about="instructions about several pictures, and about frames of films",
        trains=("vision.adapter", *PROJECTOR),
        sources=(Source("many_picture_instructions"), Source("film_instructions"), Source("picture_instructions", 0.5)),
        # With stage 3, 0.3 T tokens (8.2).
        steps=5_760,
        rows_per_step=128,
        # 8.2: a context up to 64K.
        tokens_per_row=65_536,
        # 8.7.
        learning_rate=4e-5,
        recompute=True,
    )


def limit_crops(record: Record, generator: np.random.Generator) -> Record:
    """Shrinks each picture that needs more than 16 crops, so that it is cut into the very crops of a limit of 16.

    Args:
        record: with any media.
        generator: not used; nothing is left to chance.
    """
    messages = tuple(
        replace(message, content=tuple(_limit(part) if isinstance(part, Image) else part for part in message.parts))
        for message in record.messages
    )
    return replace(record, messages=messages)


def _limit(picture: Image) -> Image:
    image = load_image(picture.source)
    columns, rows = choose_grid(image.width, image.height, PRETRAINING)
    side = PRETRAINING.crop_size_px
    if image.width <= columns * side and image.height <= rows * side:
        return Image(image)
    size = fit_into_grid(image.width, image.height, columns, rows, PRETRAINING)
    # What exactly fills its grid on one side is not scaled again.
    return Image(image.resize(size, PIL.Image.Resampling.BILINEAR))
