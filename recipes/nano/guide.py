"""Trains the network that nano's vision tower imitates: `python -m recipes.nano.guide --data DIR --out FILE`.

It learns to name the training emoji, in about a quarter of an hour on one core, and is not part of the model.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from phi4.checkpoint.usual_dtype import multiplies_bf16
from phi4.data.record import Record
from phi4.data.shards import ShardedRecords
from phi4.files import new_file
from phi4.processing.image import image_to_crops
from phi4.processing.image_file import load_image
from phi4.processing.settings import ImageSettings
from phi4.train.objectives.guide import Guide
from recipes.nano.augment_pictures import augment
from recipes.nano.command import run
from recipes.nano.model import VISION, VISION_PREPROCESSOR

STEPS = 2600
# With fewer, the first fifth of them, in which the rate rises, would be less than two.
MIN_STEPS = 6
PICTURES_PER_STEP = 128
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.1

# The statistics of the features are taken over so many pictures.
MEASURED_PICTURES = 2048

SETTINGS = ImageSettings(
    crop_size_px=VISION["embd_layer"]["image_embd_layer"]["crop_size"],
    patch_size_px=VISION["img_processor"]["patch_size"],
    max_crops=VISION_PREPROCESSOR["dynamic_hd"],
)


def main(
    data: Annotated[Path, typer.Option(help="The folder with the folder of shards called emoji.")],
    out: Annotated[Path, typer.Option(help="Gets the guide, a safetensors file.")],
    steps: Annotated[int, typer.Option(help="Updates of the weights.", min=MIN_STEPS)] = STEPS,
) -> None:
    """Trains a guide and writes it."""
    records = list(ShardedRecords.open(data / "emoji").select("train"))
    torch.manual_seed(0)
    guide = Guide().to(memory_format=torch.channels_last)
    train(guide, records, steps)
    measure(guide, records)
    with new_file(out) as partial:
        save_file({name: tensor.contiguous() for name, tensor in guide.state_dict().items()}, partial)


def train(guide: Guide, records: list[Record], steps: int) -> None:
    """Trains it to tell the names of the records apart."""
    names = {name: number for number, name in enumerate(sorted({record.answer for record in records}))}
    classify = nn.Linear(len(guide.mean), len(names))
    parameters = [*guide.parameters(), *classify.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.2)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("guide", total=steps)
        for step in range(steps):
            pictures, answers = draw(records, PICTURES_PER_STEP, seed=step)
            with quickly():
                scores = classify(guide(pictures).mean(dim=(2, 3)))
            labels = torch.tensor([names[answer] for answer in answers])
            loss = functional.cross_entropy(scores.float(), labels, label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            right = float((scores.argmax(dim=-1) == labels).float().mean())
            progress.update(task, advance=1, description=f"guide: loss {float(loss.detach()):.2f}, {right:.0%} right")


def quickly() -> torch.autocast:
    """Computes in bf16 on a processor that has a quick way to."""
    return torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bf16(torch.device("cpu")))


@torch.no_grad()
def measure(guide: Guide, records: list[Record]) -> None:
    """Fills in the mean and deviation of the features; afterwards the guide no longer changes."""
    guide.eval()
    features = guide(draw(records, MEASURED_PICTURES, seed=STEPS)[0]).transpose(0, 1).flatten(1)
    guide.mean.copy_(features.mean(dim=1))
    # A feature that is never there must not be divided by nothing.
    guide.deviation.copy_(features.std(dim=1) + 1e-3)


def draw(records: list[Record], count: int, seed: int) -> tuple[torch.Tensor, list[str]]:
    """Draws records and changes their pictures: normalised pixels, [count, 3, side, side], and answers."""
    generator = np.random.default_rng(seed)
    drawn = [augment(records[place], generator) for place in generator.integers(len(records), size=count)]
    crops = [image_to_crops(load_image(record.messages[0].media[0].source), SETTINGS).crops[0] for record in drawn]
    return torch.stack(crops), [record.answer for record in drawn]


if __name__ == "__main__":
    run(main)
