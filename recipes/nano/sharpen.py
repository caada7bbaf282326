"""The whole tower learns the names of drawings, changed in batches, goes on reading, and leaves shapes where they are.

`python -m recipes.nano.sharpen --data DIR --pack FILE --out FILE`. Behind `gather`: its new layers, those below and the
projector together, on three times as many drawings in a second as a stage of `phi4 train`.
"""

from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from phi4.model.multimodal import Phi4Multimodal
from recipes.nano.command import BeginPack, Data, OutPack, Steps, run
from recipes.nano.descent import Descent
from recipes.nano.gather import CROPS_PER_BATCH, KEEPING_WEIGHT, OTHER_RECORDS, changed_crops, save_further
from recipes.nano.lesson import Lesson, Places, prepare, see
from recipes.nano.reading import Reading

# Data sets beside those of drawings.
OTHERS = ("easy_vqa_named", "text_line")
STEPS = 1800
WARMUP_STEPS = 50
LEARNING_RATE = 1e-3
BETA2 = 0.98
DRAWINGS_PER_STEP = 192
# Of pictures that are to stay as they are.
CROPS_PER_STEP = 16
# Of the letters of lines.
READING_WEIGHT = 1.5
# Of how far rows are from the places of their names, where they have some.
PLACE_WEIGHT = 6.0


def main(data: Data, pack: BeginPack, out: OutPack, steps: Steps = STEPS) -> None:
    """Trains the tower and the projector of a vision pack on drawings and their names, and writes the pack."""
    torch.manual_seed(0)
    teach(prepare(data, pack, OTHERS), out, ("nano vision sharpen", steps, LEARNING_RATE))


def teach(
    lesson: Lesson, out: Path, stage: tuple[str, int, float], places: Places | None = None, seed: int = 0
) -> None:
    """Trains the tower and the projector of a vision pack on drawings and their names, and writes the pack.

    Args:
        lesson: has the pack and the drawings; `OTHERS` are among its data sets.
        out: gets the pack.
        stage: name of it, for the pack's history, updates, and learning rate at first; it falls to nothing.
        places: where the rows of each name are to lie; None lets them lie anywhere on the right side of other names.
        seed: of which lines are read when, and for the history.
    """
    name, steps, learning_rate = stage
    shapes, lines = (lesson.data_sets[other].select("train") for other in OTHERS)
    kept = changed_crops(shapes[:OTHER_RECORDS], all_crops=True)
    reading = Reading(lesson.loaded, lines, seed)
    descent = Descent(
        trained_parameters(lesson.model),
        [lesson.naming.temperatures, *reading.objective.parameters()],
        learning_rate=learning_rate,
        beta2=BETA2,
        warmup_steps=WARMUP_STEPS,
        steps=steps,
    )
    train(lesson, descent, reading, kept, steps, places)
    entry = (name, steps, ["vision.encoder", "vision.projector"])
    save_further(lesson.model, lesson.source, out, entry, lesson.data_sets, seed)


def trained_parameters(model: Phi4Multimodal) -> list[nn.Parameter]:
    """Those of the tower that the language model gets something of, and of the projector."""
    last = f"layers.{len(model.vision.encoder.layers) - 1}."
    unused = (last, "head", "post_layernorm")
    tower = [weight for name, weight in model.vision.encoder.named_parameters() if not name.startswith(unused)]
    return [*tower, *model.vision.projector.parameters()]


def train(
    lesson: Lesson, descent: Descent, reading: Reading, kept: torch.Tensor, steps: int, places: Places | None
) -> None:
    """Trains tower and projector.

    Args:
        lesson: has them and the drawings.
        descent: updates them.
        reading: the loss of lines.
        kept: crops of which the projector is to give what it gave before.
        steps: updates.
        places: where the rows of each name are to lie, or None.
    """
    model = lesson.model
    with torch.inference_mode():
        before = torch.cat([see(model, crops) for crops in kept.split(CROPS_PER_BATCH)])
    before = before.clone()  # outside, so that it may stand beside what has gradients
    spread = before.flatten(0, 1).var(0).sum()
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=steps)
        for _ in range(steps):
            shown, names = lesson.drawings.draw(DRAWINGS_PER_STEP)
            others = torch.randint(len(kept), (CROPS_PER_STEP,))
            rows, other_rows = see(model, torch.cat((shown, kept[others]))).split((len(shown), len(others)))
            named, right = lesson.naming(rows, names)
            moved = (other_rows - before[others]).square().sum(dim=-1).mean() / spread
            loss = named + READING_WEIGHT * reading.loss() + KEEPING_WEIGHT * moved
            if places is not None:
                loss = loss + PLACE_WEIGHT * places.distance(rows, names)
            descent.step(loss)
            progress.update(task, advance=1, description=f"loss {float(loss.detach()):.2f}, {right:.0%} right")


if __name__ == "__main__":
    run(main)
