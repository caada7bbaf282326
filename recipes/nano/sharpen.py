"""The whole tower learns the names of drawings, changed in batches, goes on reading, and leaves shapes where they are.

`python -m recipes.nano.sharpen --data DIR --pack FILE --out FILE`. Behind `gather`: its new layers, those below and the
projector together, on three times as many drawings in a second as a stage of `phi4 train`.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress, track
from torch import nn

from phi4.checkpoint.nano import pull_nano
from phi4.checkpoint.packs import read_pack
from phi4.checkpoint.weights import load_model
from phi4.data.record import Record
from phi4.data.shards import ShardedRecords
from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.tokenizer import Tokenizer
from recipes.nano.augment_batch import augment_batch
from recipes.nano.command import BeginPack, Data, OutPack, Steps, run
from recipes.nano.descent import Descent
from recipes.nano.gather import (
    CROPS_PER_BATCH,
    KEEPING_WEIGHT,
    OTHER_RECORDS,
    changed_crops,
    encode,
    multimodal,
    picture_of,
    rows_of,
    save_further,
)
from recipes.nano.guide import quickly
from recipes.nano.naming import Naming
from recipes.nano.reading import Reading

DATA_SETS = ("emoji", "emoji_further", "easy_vqa_named", "text_line")
STEPS = 1800
WARMUP_STEPS = 50
LEARNING_RATE = 1e-3
BETA2 = 0.98
DRAWINGS_PER_STEP = 192
# Of them, in further styles.
FURTHER_SHARE = 0.36
# Of pictures that are to stay as they are.
CROPS_PER_STEP = 16
# How often a drawing is mixed with another one of the same name, and how much of that it gets at most.
MIXED_SHARE = 0.25
MOST_MIXED = 0.5
# Of the letters of lines.
READING_WEIGHT = 1.5
# Of how far rows are from the places of their names, where they have some.
PLACE_WEIGHT = 6.0


def main(data: Data, pack: BeginPack, out: OutPack, steps: Steps = STEPS) -> None:
    """Trains the tower and the projector of a vision pack on drawings and their names, and writes the pack."""
    teach(data, pack, out, "nano vision sharpen", steps, LEARNING_RATE, settled=False)


def teach(data: Path, pack: Path, out: Path, stage: str, steps: int, learning_rate: float, *, settled: bool) -> None:
    """Trains the tower and the projector of a vision pack on drawings and their names, and writes the pack.

    Args:
        data: the folder with the folders of shards.
        pack: what to begin with.
        out: gets the pack.
        stage: name of it, for the pack's history.
        steps: updates.
        learning_rate: at first; it falls to nothing.
        settled: whether rows are to come to lie where those of their name lie on average, and not only on the right
            side of all other names.
    """
    torch.manual_seed(0)
    source = read_pack(pack)
    data_sets = {name: ShardedRecords.open(data / name) for name in DATA_SETS}
    drawings, further, shapes, lines = (records.select("train") for records in data_sets.values())
    loaded = load_model(pull_nano(), torch.float32, packs=[pack])
    model = multimodal(loaded)
    naming = Naming(model, Tokenizer.load(loaded.directory), [record.answer for record in drawings])
    shown = collect(drawings, further, naming.numbers([record.answer for record in (*drawings, *further)]))
    # Those by which rows have lain so far decide where they are to lie.
    first = len(drawings)
    places = mean_places(model, shown.pictures[:first], shown.names[:first]) if settled else None
    kept = changed_crops(shapes[:OTHER_RECORDS], all_crops=True)
    reading = Reading(loaded, lines, seed=0)
    train(model, naming, reading, shown, kept, steps, learning_rate, places)
    save_further(model, source, out, (stage, steps, ["vision.encoder", "vision.projector"]), data_sets)


def trained_parameters(model: Phi4Multimodal) -> list[nn.Parameter]:
    """Those of the tower that the language model gets something of, and of the projector."""
    last = f"layers.{len(model.vision.encoder.layers) - 1}."
    unused = (last, "head", "post_layernorm")
    tower = [weight for name, weight in model.vision.encoder.named_parameters() if not name.startswith(unused)]
    return [*tower, *model.vision.projector.parameters()]


def see(model: Phi4Multimodal, crops: torch.Tensor) -> torch.Tensor:
    """What the language model would get of crops, [crops, 3, side, side]: fp32 [crops, rows, hidden]."""
    with quickly():
        return rows_of(model.vision.projector, encode(model, crops)).float()


class Places:
    """Where the rows of each name are to lie."""

    def __init__(self, rows: torch.Tensor) -> None:
        """Takes the places, [names, rows, hidden]."""
        self._rows = rows
        self._spread = (rows - rows.mean(dim=0)).square().sum(dim=-1).mean()

    def of(self, names: torch.Tensor) -> torch.Tensor:
        """The places of some names, [drawings, rows, hidden]."""
        return self._rows[names]

    def distance(self, rows: torch.Tensor, names: torch.Tensor) -> torch.Tensor:
        """How far rows, [drawings, rows, hidden], are from the places of their names, squared; 1 is their spread."""
        return (rows - self._rows[names]).square().sum(dim=-1).mean() / self._spread


class Drawings:
    """Training drawings, of which some are mixed with others of the same name.

    Attributes:
        pictures: as the tower gets them, from -1 to 1, [drawings, 3, side, side].
        names: the number of each one's name, [drawings].
    """

    def __init__(self, pictures: torch.Tensor, names: torch.Tensor, weights: torch.Tensor) -> None:
        """Takes them, and how often each is drawn, relative to the others, [drawings]."""
        self.pictures, self.names, self._weights = pictures, names, weights
        self._of_name: dict[int, list[int]] = defaultdict(list)
        for place, name in enumerate(names.tolist()):
            self._of_name[name].append(place)

    def draw(self, count: int, wanted: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Some of them at random, changed: the pictures, and the numbers of their names.

        Args:
            count: how many.
            wanted: how often each name is to come, relative to the others, [names]; None is alike.
        """
        weights = self._weights if wanted is None else self._weights * wanted[self.names]
        places = torch.multinomial(weights, count, replacement=True)
        alike = [self._of_name[name] for name in self.names[places].tolist()]
        partners = torch.tensor([group[int(torch.randint(len(group), ()))] for group in alike])
        mixed = torch.rand(count, 1, 1, 1) * MOST_MIXED * (torch.rand(count, 1, 1, 1) < MIXED_SHARE)
        together = torch.lerp(self.pictures[places], self.pictures[partners], mixed)
        return augment_batch((together + 1.0) / 2.0) * 2.0 - 1.0, self.names[places]


def collect(drawings: Sequence[Record], further: Sequence[Record], names: torch.Tensor) -> Drawings:
    """Loads drawings, of which those in further styles come as often as `FURTHER_SHARE` says.

    Args:
        drawings: records of drawings.
        further: those in further styles.
        names: the numbers of the names of both, [drawings].
    """
    shown = track([*drawings, *further], "drawings", console=Console(stderr=True))
    pictures = torch.stack([picture_of(record).crops[0] for record in shown])
    weights = torch.cat([torch.full((len(some),), 1.0 / len(some)) for some in (drawings, further)])
    weights[len(drawings) :] *= FURTHER_SHARE / (1.0 - FURTHER_SHARE)
    return Drawings(pictures, names, weights)


@torch.no_grad()
def mean_places(model: Phi4Multimodal, pictures: torch.Tensor, names: torch.Tensor) -> Places:
    """Where the rows of the drawings of each name lie on average.

    Args:
        model: gives the rows.
        pictures: of drawings, as for `Drawings`.
        names: of each the number of its name, of which none is left out, [drawings].
    """
    rows = torch.cat([see(model, crops) for crops in pictures.split(CROPS_PER_BATCH)])
    counts = torch.bincount(names)
    sums = rows.new_zeros(len(counts), *rows.shape[1:]).index_add_(0, names, rows)
    return Places(sums / counts[:, None, None])


def train(
    model: Phi4Multimodal,
    naming: Naming,
    reading: Reading,
    drawings: Drawings,
    kept: torch.Tensor,
    steps: int,
    learning_rate: float,
    places: Places | None,
) -> None:
    """Trains tower and projector.

    Args:
        model: has them.
        naming: the loss of drawings.
        reading: the loss of lines.
        drawings: what is shown.
        kept: crops of which the projector is to give what it gave before.
        steps: updates.
        learning_rate: at first; it falls to nothing.
        places: where the rows of each name are to lie; None lets them lie anywhere.
    """
    with torch.inference_mode():
        before = torch.cat([see(model, crops) for crops in kept.split(CROPS_PER_BATCH)])
    before = before.clone()  # outside, so that it may stand beside what has gradients
    spread = before.flatten(0, 1).var(0).sum()
    trained = trained_parameters(model)
    descent = Descent(
        trained,
        [naming.temperatures, *reading.objective.parameters()],
        learning_rate=learning_rate,
        beta2=BETA2,
        warmup_steps=WARMUP_STEPS,
        steps=steps,
    )
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=steps)
        for _ in range(steps):
            shown, names = drawings.draw(DRAWINGS_PER_STEP)
            others = torch.randint(len(kept), (CROPS_PER_STEP,))
            rows, other_rows = see(model, torch.cat((shown, kept[others]))).split((len(shown), len(others)))
            named, right = naming(rows, names)
            moved = (other_rows - before[others]).square().sum(dim=-1).mean() / spread
            loss = named + READING_WEIGHT * reading.loss() + KEEPING_WEIGHT * moved
            if places is not None:
                loss = loss + PLACE_WEIGHT * places.distance(rows, names)
            descent.step(loss)
            progress.update(task, advance=1, description=f"loss {float(loss.detach()):.2f}, {right:.0%} right")


if __name__ == "__main__":
    run(main)
