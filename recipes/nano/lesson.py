"""What programs begin with that train nano on drawings alone: the drawings, and where the rows of each name lie."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from phi4.checkpoint.nano import pull_nano
from phi4.checkpoint.packs import Pack, read_pack
from phi4.checkpoint.weights import LoadedModel, load_model
from phi4.data.record import Record
from phi4.data.shards import ShardedRecords
from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.tokenizer import Tokenizer
from recipes.nano.augment_batch import augment_batch
from recipes.nano.gather import CROPS_PER_BATCH, encode, multimodal, picture_of, rows_of
from recipes.nano.guide import quickly
from recipes.nano.naming import Naming

# Of the drawings that are drawn, in further styles.
FURTHER_SHARE = 0.36
# How often a drawing is mixed with another one of the same name, and how much of that it gets at most.
MIXED_SHARE = 0.25
MOST_MIXED = 0.5


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
        return (rows - self.of(names)).square().sum(dim=-1).mean() / self._spread


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


@dataclass(frozen=True)
class Lesson:
    """What a vision pack learns on with.

    Attributes:
        source: the pack.
        loaded: the model with it, in fp32.
        data_sets: by their names.
        naming: knows the names, and tells how well rows tell them.
        records: of drawings for training, without those in further styles.
        drawings: all of them, those of `records` first.
    """

    source: Pack
    loaded: LoadedModel
    data_sets: Mapping[str, ShardedRecords]
    naming: Naming
    records: Sequence[Record]
    drawings: Drawings

    @property
    def model(self) -> Phi4Multimodal:
        """The one that is loaded."""
        return multimodal(self.loaded)

    def places(self) -> Places:
        """Where the rows of each name lie by now, by the drawings without those in further styles."""
        first = len(self.records)
        return mean_places(self.model, self.drawings.pictures[:first], self.drawings.names[:first])


def prepare(data: Path, pack: Path, others: Sequence[str]) -> Lesson:
    """Reads a vision pack and what it learns from.

    Args:
        data: the folder with the folders of shards.
        pack: the pack.
        others: names of data sets beside those of drawings.
    """
    source = read_pack(pack)
    data_sets = {name: ShardedRecords.open(data / name) for name in ("emoji", "emoji_further", *others)}
    records, further = (data_sets[name].select("train") for name in ("emoji", "emoji_further"))
    loaded = load_model(pull_nano(), torch.float32, packs=[pack])
    naming = Naming(multimodal(loaded), Tokenizer.load(loaded.directory), [record.answer for record in records])
    names = naming.numbers([record.answer for record in (*records, *further)])
    return Lesson(source, loaded, data_sets, naming, records, collect(records, further, names))
