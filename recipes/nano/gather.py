"""Two more layers for nano's vision tower, by which every row tells what the whole picture shows.

`python -m recipes.nano.gather --data DIR --pack FILE --out FILE`. The three layers before look at neighbours, so that
only the mean of all rows names a drawing, and a language model sees rows. Those layers stay as they are: what they give
is computed once, for a few versions of each drawing, and three times as many pictures pass in a second as in a stage of
`phi4 train`.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, track
from torch import nn
from torch.nn import functional

from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.nano import pull_nano
from phi4.checkpoint.new_pack import write_new_pack
from phi4.checkpoint.packs import Pack, read_pack, save_pack, stages_of
from phi4.checkpoint.weights import LoadedModel, load_model
from phi4.data.record import Record
from phi4.data.shards import ShardedRecords
from phi4.model.multimodal import Phi4Multimodal
from phi4.model.vision import SiglipLayer, pool_patches
from phi4.processing.image import ImageCrops, image_to_crops
from phi4.processing.image_file import load_image
from phi4.processing.tokenizer import Tokenizer
from recipes.nano.augment_pictures import augment
from recipes.nano.command import BeginPack, Data, OutPack, Steps, run
from recipes.nano.descent import Descent
from recipes.nano.guide import SETTINGS
from recipes.nano.naming import Naming

NEW_LAYERS = 2
STEPS = 1400
WARMUP_STEPS = 30
LEARNING_RATE = 2e-3
BETA2 = 0.95
DRAWINGS_PER_STEP = 192
# Of pictures that are to stay as they are.
CROPS_PER_STEP = 32

# Versions of each drawing.
VERSIONS = 7
# Records of each other data set.
OTHER_RECORDS = 900
OTHERS = ("text_line", "easy_vqa_named")
CROPS_PER_BATCH = 256
# Of how far other crops have moved, as a share of how much they vary.
KEEPING_WEIGHT = 3.0

# The statistics that norms begin with are taken over so many crops.
MEASURED_CROPS = 2000


def main(data: Data, pack: BeginPack, out: OutPack, steps: Steps = STEPS) -> None:
    """Adds layers to the tower of a vision pack, trains them and the projector, and writes the pack."""
    torch.manual_seed(0)
    source = read_pack(pack)
    drawings = ShardedRecords.open(data / "emoji")
    others = {name: ShardedRecords.open(data / name) for name in OTHERS}
    named = drawings.select("train")
    shallow = load_model(pull_nano(), torch.float32, packs=[pack])
    seen = torch.cat([features(shallow, named, version) for version in range(VERSIONS)])
    kept = torch.cat(
        [features(shallow, records.select("train")[:OTHER_RECORDS], all_crops=True) for records in others.values()]
    )
    deep = deepen(source, shallow)
    model = multimodal(deep)
    layers = new_layers(model)
    begin(layers, torch.cat((draw(seen, MEASURED_CROPS), draw(kept, MEASURED_CROPS))).float())
    answers = [record.answer for record in named]
    naming = Naming(model, Tokenizer.load(deep.directory), answers)
    train(model, naming, seen, naming.numbers(answers * VERSIONS), kept, steps)
    numbers = range(len(model.vision.encoder.layers))[-NEW_LAYERS - 1 : -1]
    trains = [*(f"vision.encoder.layers.{number}" for number in numbers), "vision.projector"]
    save_further(model, source, out, ("nano vision gather", steps, trains), {"emoji": drawings, **others})


def save_further(
    model: Phi4Multimodal,
    source: Pack,
    out: Path,
    stage: tuple[str, int, list[str]],
    data: Mapping[str, ShardedRecords],
    seed: int = 0,
) -> None:
    """Writes the vision pack of a model that a program trained further.

    Args:
        model: has it.
        source: what it began as.
        out: gets the pack.
        stage: name, steps and trained parts, for the pack's history.
        data: what it was trained on.
        seed: where chance began, for the history, too.
    """
    name, steps, trains = stage
    sources = {dataset: records.training_sources for dataset, records in data.items()}
    entry = {"stage": name, "steps": steps, "seed": seed, "trains": trains, "sources": sources}
    history = {"stages": [*stages_of(source.trained_on), entry]}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_pack(model, "vision", out, torch.bfloat16, source.base_digest, history, source.preprocessor)


def multimodal(loaded: LoadedModel) -> Phi4Multimodal:
    """The model, which has vision."""
    assert isinstance(loaded.model, Phi4Multimodal)
    return loaded.model


def new_layers(model: Phi4Multimodal) -> Sequence[SiglipLayer]:
    """What was added: the last layers that the language model gets something of."""
    layers = [layer for layer in model.vision.encoder.layers if isinstance(layer, SiglipLayer)]
    return layers[-NEW_LAYERS - 1 : -1]


def deepen(pack: Pack, loaded: LoadedModel) -> LoadedModel:
    """Loads the model of a pack with random layers between those of its tower that run and the last, which does not."""
    tower = pack.config["img_processor"]
    fragment = {**pack.config, "img_processor": {**tower, "num_hidden_layers": tower["num_hidden_layers"] + NEW_LAYERS}}
    last = f"vision.encoder.layers.{tower['num_hidden_layers'] - 1}."
    moved = f"vision.encoder.layers.{tower['num_hidden_layers'] - 1 + NEW_LAYERS}."
    given = {name.replace(last, moved): tensor for name, tensor in loaded.model.state_dict().items()}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "deep.safetensors"
        base = open_checkpoint(pull_nano())
        write_new_pack(path, base, "vision", fragment, pack.preprocessor, given=given)
        return load_model(pull_nano(), torch.float32, packs=[path])


@torch.inference_mode()
def features(
    loaded: LoadedModel, records: Sequence[Record], version: int = 0, *, all_crops: bool = False
) -> torch.Tensor:
    """What the tower gives of pictures that are changed at random, bf16 [crops, patches * patches, width].

    Args:
        loaded: has the tower.
        records: each has a picture.
        version: another one, other changes.
        all_crops: of each picture all that are full, and not its global view alone.
    """
    model = multimodal(loaded)
    batches = changed_crops(records, version, all_crops=all_crops).split(CROPS_PER_BATCH)
    return torch.cat([encode(model, crops).bfloat16() for crops in batches])


def changed_crops(records: Sequence[Record], version: int = 0, *, all_crops: bool = False) -> torch.Tensor:
    """Crops of the records' pictures, changed at random, [crops, 3, side, side]; arguments as for `features`."""
    crops = []
    for number, record in enumerate(track(records, f"looking at {records[0].task}", console=Console(stderr=True))):
        picture = picture_of(augment(record, np.random.default_rng((version, number))))
        crops.append(picture.crops[picture.mask.flatten(1).all(dim=1)] if all_crops else picture.crops[:1])
    return torch.cat(crops)


def picture_of(record: Record) -> ImageCrops:
    """The crops of a record's picture."""
    return image_to_crops(load_image(record.messages[0].media[0].source), SETTINGS)


def encode(model: Phi4Multimodal, crops: torch.Tensor) -> torch.Tensor:
    """What the tower gives of full crops, [crops, 3, side, side]: [crops, patches * patches, width]."""
    side = SETTINGS.crop_size_px // SETTINGS.patch_size_px
    hidden: torch.Tensor = model.vision.encoder(crops, torch.ones(len(crops), side, side, dtype=torch.bool))
    return hidden


def draw(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """Rows of a tensor, drawn at random."""
    return tensor[torch.randint(len(tensor), (count,))]


@torch.no_grad()
def begin(layers: Iterable[SiglipLayer], hidden: torch.Tensor) -> None:
    """Lets the layers add nothing yet, and lets them see what tells patches apart.

    Features have most of their length in common, and a norm that only divides by it would let that drown the rest.

    Args:
        layers: the new ones.
        hidden: what reaches them, [crops, patches * patches, width].
    """
    deviation, mean = torch.std_mean(functional.layer_norm(hidden, hidden.shape[-1:]), dim=(0, 1))
    for layer in layers:
        for norm in (layer.layer_norm1, layer.layer_norm2):
            norm.weight.copy_(1.0 / deviation)
            norm.bias.copy_(-mean / deviation)
        weights = dict(layer.named_parameters())
        nn.init.orthogonal_(weights["self_attn.v_proj.weight"])
        nn.init.normal_(weights["mlp.fc1.weight"], std=hidden.shape[-1] ** -0.5)
        for last in ("self_attn.out_proj", "mlp.fc2"):
            nn.init.zeros_(weights[f"{last}.weight"])
            nn.init.zeros_(weights[f"{last}.bias"])


def train(
    model: Phi4Multimodal,
    naming: Naming,
    seen: torch.Tensor,
    names: torch.Tensor,
    kept: torch.Tensor,
    steps: int,
) -> None:
    """Trains the new layers and the projector.

    Args:
        model: has them.
        naming: the loss of drawings.
        seen: features of drawings, below the new layers, [drawings, patches * patches, width].
        names: the number of each one's name, [drawings].
        kept: features of other crops, of which the projector is to give what it gave before.
        steps: updates.
    """
    layers, projector = new_layers(model), model.vision.projector
    before = copy.deepcopy(projector).requires_grad_(False)
    trained = [parameter for module in (*layers, projector) for parameter in module.parameters()]
    descent = Descent(
        trained,
        [naming.temperatures],
        learning_rate=LEARNING_RATE,
        beta2=BETA2,
        warmup_steps=WARMUP_STEPS,
        steps=steps,
    )
    spread = rows_of(before, draw(kept, MEASURED_CROPS).float()).flatten(0, 1).var(0).sum()
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("gather", total=steps)
        for _ in range(steps):
            chosen = torch.randint(len(seen), (DRAWINGS_PER_STEP,))
            others = draw(kept, CROPS_PER_STEP).float()
            hidden = torch.cat((seen[chosen].float(), others))
            for layer in layers:
                hidden = layer(hidden, None)
            rows, other_rows = rows_of(projector, hidden).split((len(chosen), len(others)))
            named, right = naming(rows, names[chosen])
            moved = (other_rows - rows_of(before, others)).square().sum(dim=-1).mean() / spread
            loss = named + KEEPING_WEIGHT * moved
            descent.step(loss)
            progress.update(task, advance=1, description=f"gather: loss {float(loss.detach()):.2f}, {right:.0%} right")


def rows_of(projector: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """[crops, patches * patches, width] -> what the language model would get, [crops, rows, hidden]."""
    rows: torch.Tensor = projector(pool_patches(hidden, SETTINGS.crop_size_px // SETTINGS.patch_size_px))
    return rows.flatten(1, 2)


if __name__ == "__main__":
    run(main)
