"""Answers held-out records with a whole model, and says how good the answers are."""

import random
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from phi4.assistant import Assistant
from phi4.data.manifest import MANIFEST_FILE
from phi4.data.record import Record
from phi4.data.shards import Selection, ShardedRecords
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.errors import CapacityError, DataError, InputError
from phi4.inputs import ModelInputs
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import TextStream

# Records that are answered together. Their media are in memory, those of the others are not.
BATCH_RECORDS = 16


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Test records of one data set that have the same task and the same modalities.

    Attributes:
        dataset: name of the data set.
        task: as in the records.
        modalities: of their media; empty for text.
        records: they are read when they are asked for.
    """

    dataset: str
    task: str
    modalities: frozenset[str]
    records: Selection = field(repr=False)

    @property
    def media(self) -> str:
        """The modalities in one word, such as vision, vision+speech or text."""
        # The pair that the adapter rule knows has this order everywhere.
        return "+".join(sorted(self.modalities, reverse=True)) or "text"


@dataclass(frozen=True)
class Score:
    """How good the answers to some records are. White space at the ends of a text never counts.

    Attributes:
        records: how many were answered.
        exact: share of answers that are the record's, letter by letter.
        character_accuracy: 1 - edit distance in characters / characters of the records' answers, all taken together;
            below 0 where answers are much too long.
        word_error_rate: edit distance in words / words of the records' answers, all taken together; case and
            punctuation do not count.
    """

    records: int
    exact: float
    character_accuracy: float
    word_error_rate: float


def read_held_out(data: Path, limit: int | None = None) -> list[HeldOut]:
    """Opens the test records of all data sets in a folder.

    Args:
        data: one folder of shards for each data set.
        limit: take the first so many records of each task of a data set; None takes all.

    Raises:
        DataError: there are no data sets or no test records, or a shard is damaged.
    """
    directories = sorted(path.parent for path in data.glob(f"*/{MANIFEST_FILE}"))
    held_out = [one for directory in directories for one in _read_dataset(directory, limit)]
    if not held_out:
        found = ", ".join(directory.name for directory in directories) or "no folder of shards"
        raise DataError(f"{data} holds no test records ({found}); name a folder with one folder of shards per data set")
    return held_out


def _read_dataset(directory: Path, limit: int | None) -> list[HeldOut]:
    """Reads records until every task has as many as it shall have; what kind they are is not in the manifest."""
    records = ShardedRecords.open(directory)
    missing: Counter[str] = Counter()
    for source in records.manifest.sources:
        missing[source.task] += source.records if source.split == "test" else 0
    if limit is not None:
        missing = Counter({task: min(count, limit) for task, count in missing.items()})
    found: dict[tuple[str, frozenset[str]], list[int]] = {}
    for index in records.select("test").indices:
        if not missing.total():
            break
        record = records[int(index)]
        if missing[record.task]:
            missing[record.task] -= 1
            found.setdefault((record.task, modalities_of(record)), []).append(int(index))
    return [
        HeldOut(directory.name, task, modalities, Selection(records, np.array(indices)))
        for (task, modalities), indices in found.items()
    ]


def modalities_of(record: Record) -> frozenset[str]:
    """Names of the modalities of a record's media."""
    return frozenset(part.modality for message in record.messages for part in message.media)


def answer_records(assistant: Assistant, records: Sequence[Record], max_tokens: int) -> Iterator[tuple[int, str]]:
    """Answers the last turn of every record greedily, and yields each answer when it is finished.

    Records whose answers are about as long are answered together, in groups that depend on the records alone; the
    groups come in a mixed order, so that what is there early is a fair sample. Media are prepared when their group is
    due.

    Args:
        assistant: the model.
        records: read twice, each once for its length.
        max_tokens: most tokens of an answer.

    Yields:
        The place of a record among `records`, and its answer.

    Raises:
        DataError: a record cannot be prepared for this model.
        InputError: a record mixes modalities that the model has no adapter for.
    """
    sampling = Sampling(max_tokens=max_tokens)
    for group in group_by_length([len(record.answer) for record in records], BATCH_RECORDS):
        requests = [Request(prepare_question(records[place], assistant.processor), sampling) for place in group]
        for index, text in finished_answers(assistant, requests):
            yield group[index], text


def finished_answers(assistant: Assistant, requests: Sequence[Request]) -> Iterator[tuple[int, str]]:
    """Answers requests together, and yields the place and the answer of each when it is finished.

    Raises:
        InputError, CapacityError: as `Engine.submit` does.
    """
    streams = [TextStream(assistant.processor.tokenizer) for _ in requests]
    texts = [""] * len(requests)
    for index, token in assistant.engine.generate(requests):
        if token.finish_reason != "stop":
            texts[index] += streams[index].push(token.token_id)
        if token.finish_reason is not None:
            yield index, texts[index]


def group_by_length(lengths: Sequence[int], max_records: int) -> list[list[int]]:
    """Puts the places of similar lengths together; the groups come in an order that is mixed but always the same."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    groups = [order[start : start + max_records] for start in range(0, len(order), max_records)]
    random.Random(0).shuffle(groups)
    return groups


def prepare_question(record: Record, processor: Processor) -> ModelInputs:
    """Prepares what comes before the last answer of a record.

    Raises:
        DataError: a text or medium cannot be used, or does not fit the context.
    """
    try:
        return processor.prepare(record.messages[:-1])
    except (InputError, CapacityError) as error:
        raise DataError(f"record {record.id!r} from {record.source!r} cannot be answered: {error}") from error


def score_answers(expected: Sequence[str], answers: Sequence[str]) -> Score:
    """Compares answers with those of the records, in the same order.

    Raises:
        DataError: there are none.
    """
    if not expected:
        raise DataError("there are no answers to score")
    pairs = [(right.strip(), given.strip()) for right, given in zip(expected, answers, strict=True)]
    characters = sum(len(right) for right, _ in pairs)
    wrong_characters = sum(edit_distance(right, given) for right, given in pairs)
    words = sum(len(split_words(right)) for right, _ in pairs)
    wrong_words = sum(edit_distance(split_words(right), split_words(given)) for right, given in pairs)
    return Score(
        records=len(pairs),
        exact=sum(right == given for right, given in pairs) / len(pairs),
        character_accuracy=1 - wrong_characters / max(1, characters),
        word_error_rate=wrong_words / max(1, words),
    )


def split_words(text: str) -> list[str]:
    """The words of a text in small letters, without punctuation; an apostrophe inside a word belongs to it."""
    composed = unicodedata.normalize("NFC", text.lower().replace("’", "'"))
    # Marks are vowels in some scripts, and accents.
    kept = (c if c.isalnum() or c in "_'" or unicodedata.category(c).startswith("M") else " " for c in composed)
    return [word for piece in "".join(kept).split() if (word := piece.strip("'"))]


def edit_distance(expected: Sequence[str], given: Sequence[str]) -> int:
    """The fewest insertions, deletions and replacements that turn one text or list of words into the other."""
    ids = {item: number for number, item in enumerate({*expected, *given})}
    given_ids = np.array([ids[item] for item in given], dtype=np.int64)
    insertions = np.arange(len(given) + 1)
    # The distances of what was read of `expected` so far to every beginning of `given`.
    distances = insertions
    for item in expected:
        changed = np.minimum(distances[1:] + 1, distances[:-1] + (given_ids != ids[item]))
        without_insertions = np.concatenate([distances[:1] + 1, changed])
        distances = np.minimum.accumulate(without_insertions - insertions) + insertions
    return int(distances[-1])
