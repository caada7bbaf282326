"""The adapter learns to tell the names of drawings from a few of their rows; names that it misses come more often.

`python -m recipes.nano.tell --data DIR --pack FILE --out FILE`. Behind `settle`, every row tells what the whole picture
shows: a drawing needs 5 to 20 of its 41 rows to teach its name, so that twice as many pass in an hour as in `words`.
Drawings of a style that was never seen lie elsewhere around the place of their name than those for training, which the
adapter would learn by heart; so the rows are carried to other sides of it, as those of other drawings lie.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from rich.console import Console
from rich.progress import Progress

from phi4.checkpoint.nano import pull_nano
from phi4.checkpoint.weights import LoadedModel, load_model
from phi4.data.batches import Batches
from phi4.data.example import encode_example
from phi4.data.record import Record
from phi4.model.multimodal import Phi4Multimodal
from phi4.model.rounded_product import is_faster_on
from phi4.model.step import Segment
from phi4.processing.messages import Message
from phi4.processing.processor import Processor
from phi4.train.loss import token_log_probabilities
from phi4.train.masters import Masters
from phi4.train.objectives.answers import embed
from phi4.train.objectives.layout import PackedLayout, lay_out
from phi4.train.parts import select_trained
from phi4.train.rounded_base import round_base
from phi4.train.stage import Stage
from recipes.nano.command import BeginPack, Data, OutPack, Seed, Steps, run
from recipes.nano.gather import multimodal, save_further
from recipes.nano.lesson import Lesson, prepare, see
from recipes.nano.model import IMAGE_TOKEN_ID
from recipes.nano_joint import augment_briefly, words

STEPS = 1350
LEARNING_RATE = 4e-4
DRAWINGS_PER_STEP = 28
# How many of the last lines of a drawing's global view are shown.
LINES_SHOWN = (1, 2, 4)
# What is not to be forgotten meanwhile: shares of the records, and the most tokens that a step has of them.
OTHERS = {"easy_vqa": 0.1, "text_line": 0.9}
OTHER_TOKENS = 400
# A name comes as often as it is difficult, which is what a drawing of it costs, in nats, within bounds; of what was
# known of that, so much is kept when another drawing was shown.
DIFFICULTIES = (0.2, 3.0)
MEMORY = 0.7
# How far rows lie from the places of their names at most, by their own distance and by that of other drawings.
MOST_OWN, MOST_OF_OTHERS = 1.2, 1.3


@dataclass(frozen=True)
class Conversation:
    """What stands around a picture.

    Attributes:
        before: tokens in front of it, the same in all conversations.
        behind: tokens behind it, up to the end of the answer.
        answered: how many of them are the answer.
    """

    before: tuple[int, ...]
    behind: tuple[int, ...]
    answered: int


class Rows:
    """Rows of drawings that are changed, and carried to where those of other drawings lie beside their places."""

    def __init__(self, lesson: Lesson) -> None:
        """Takes what sees the drawings, the drawings, and what tells a name by rows."""
        self._lesson, self._places = lesson, lesson.places()

    @torch.no_grad()
    def draw(self, count: int, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Some drawings, of which names that are wanted come more often; see `Drawings.draw`.

        Returns:
            Their rows, [drawings, rows, hidden], and the number of the name that the mean row of each is nearest to:
            what nobody can tell by the rows would be learned by heart.
        """
        pictures, names = self._lesson.drawings.draw(count, wanted)
        places = self._places.of(names)
        away = see(self._lesson.model, pictures) - places
        own, others = (torch.rand(count, 1, 1) * most for most in (MOST_OWN, MOST_OF_OTHERS))
        rows = places + own * away + others * away.roll(1, dims=0)
        return rows, self._lesson.naming.nearest.cosines(rows.mean(dim=1)).argmax(dim=-1)


def main(data: Data, pack: BeginPack, out: OutPack, steps: Steps = STEPS, seed: Seed = 0) -> None:
    """Trains the adapter of a vision pack on drawings and their names, and writes the pack."""
    torch.manual_seed(seed)
    lesson = prepare(data, pack, tuple(OTHERS))
    loaded = load_model(pull_nano(), torch.bfloat16, packs=[pack])
    processor = Processor.load(loaded.directory, loaded.config, loaded.preprocessor)
    encode_others = {
        name: partial(
            encode_example,
            processor=processor,
            eos_token_ids=loaded.generation.eos_token_ids,
            spelled=name == "text_line",
        )
        for name in OTHERS
    }
    training = {name: lesson.data_sets[name].select("train") for name in OTHERS}
    others = Batches(training, OTHERS, encode_others, 1, OTHER_TOKENS, seed=seed, augment=augment_briefly)
    stage = replace(words(), name="nano vision tell", steps=steps, learning_rate=LEARNING_RATE)
    train(multimodal(loaded), stage, Rows(lesson), converse_about(lesson, loaded, processor), others)
    entry = (stage.name, steps, list(stage.trains))
    save_further(multimodal(loaded), lesson.source, out, entry, lesson.data_sets, seed)


def converse_about(lesson: Lesson, loaded: LoadedModel, processor: Processor) -> dict[int, list[Conversation]]:
    """The conversations about the drawings of each name, by its number.

    Args:
        lesson: has the drawings.
        loaded: the model that is asked.
        processor: tokenises.
    """
    conversations: dict[int, list[Conversation]] = defaultdict(list)
    for record in lesson.records:
        conversations[lesson.naming.places[record.answer]].append(converse(record, loaded, processor))
    return conversations


def converse(record: Record, loaded: LoadedModel, processor: Processor) -> Conversation:
    """Tokenises the question about a drawing and its answer, with an empty system message."""
    messages = (Message("system", ""), *record.messages)
    token_ids = processor.encode(messages, add_generation_prompt=False)
    place, start = token_ids.index(IMAGE_TOKEN_ID), len(processor.encode(messages[:-1]))
    ends = loaded.generation.eos_token_ids
    stop = next(end for end in range(start, len(token_ids)) if token_ids[end] in ends) + 1
    return Conversation(tuple(token_ids[:place]), tuple(token_ids[place + 1 : stop]), stop - start)


def train(
    model: Phi4Multimodal,
    stage: Stage,
    drawn: Rows,
    conversations: dict[int, list[Conversation]],
    others: Batches,
) -> None:
    """Trains what the stage names.

    Args:
        model: has it.
        stage: says how.
        drawn: what is shown.
        conversations: about the drawings of each name.
        others: rows of what is not to be forgotten.
    """
    trained = select_trained(model, stage.trains)
    if is_faster_on(model.device):
        round_base(model)
    masters = Masters(trained, stage, dict.fromkeys(trained, torch.bfloat16))
    difficulties = torch.ones(len(conversations))
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=stage.steps)
        for step in range(stage.steps):
            rows, names = drawn.draw(DRAWINGS_PER_STEP, difficulties.clamp(*DIFFICULTIES))
            about = [conversations[name][int(torch.randint(len(conversations[name]), ()))] for name in names.tolist()]
            layout = lay_out(model, others.next_row(0).examples)
            others_answered = len(layout.targets)
            losses = -ask(model, layout, about, show_lines(model, rows.to(model.dtype)))
            losses.mean().backward()
            masters.accumulate()
            masters.update(stage.learning_rate_at(step))
            costs = losses.detach()[others_answered:].split([one.answered for one in about])
            for name, cost in zip(names.tolist(), costs, strict=True):
                difficulties[name] += (1.0 - MEMORY) * (cost.sum() - difficulties[name])
            mean = float(losses.detach()[others_answered:].mean())
            progress.update(task, advance=1, description=f"loss {mean:.2f}, a name {difficulties.mean():.2f}")


def show_lines(model: Phi4Multimodal, rows: torch.Tensor) -> list[torch.Tensor]:
    """The last lines of each picture, separators included, [rows, hidden] each.

    Args:
        model: has the separator.
        rows: of the pictures, [pictures, rows, hidden].
    """
    side = int(rows.shape[1] ** 0.5)
    separator = model.vision.projector(model.vision.row_separator.flatten(0, 2)).expand(side, 1, -1)
    shown = torch.randint(len(LINES_SHOWN), (len(rows),)).tolist()
    return [
        torch.cat((own.view(side, side, -1), separator), dim=1)[-LINES_SHOWN[number] :].flatten(0, 1)
        for own, number in zip(rows, shown, strict=True)
    ]


def ask(
    model: Phi4Multimodal, layout: PackedLayout, about: Sequence[Conversation], pictures: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Log-probability of each token of the answers, [tokens]: those of other examples first.

    Args:
        model: answers.
        layout: the other examples; conversations are laid behind them.
        about: the conversation about each picture.
        pictures: their rows, [rows, hidden] each.
    """
    before = about[0].before
    prefix = len(layout.segments)
    layout.token_ids.extend(before)
    layout.segments.append(Segment(len(before), adapter="vision"))
    places = []
    for conversation, rows in zip(about, pictures, strict=True):
        start = len(layout.token_ids)
        places += range(start, start + len(rows))
        layout.token_ids.extend((*[IMAGE_TOKEN_ID] * len(rows), *conversation.behind))
        own = len(layout.token_ids) - start
        layout.segments.append(Segment(own, cached=len(before), adapter="vision", prefix=prefix))
        layout.output_rows.extend(range(len(layout.token_ids) - conversation.answered - 1, len(layout.token_ids) - 1))
        layout.targets.extend(conversation.behind[-conversation.answered :])
    embeddings = embed(model, layout).index_copy(0, torch.tensor(places), torch.cat(list(pictures)))
    hidden = model(embeddings, model.step(layout.segments, layout.output_rows))
    head = model.head_weight
    assert isinstance(head, torch.Tensor), "nothing here is quantised"
    return token_log_probabilities(hidden, head, torch.tensor(layout.targets))


if __name__ == "__main__":
    run(main)
