"""How well the agreement steps of a curation tell the texts of pictures and sounds from those of others.

    PYTHON -m benchmarks.agreement captions DATA [RECORDS]
    PYTHON -m benchmarks.agreement transcripts DATA [RECORDS]

DATA is the folder of nano's data sets (recipes.nano.build). Held-out records, spread evenly, are judged with their own
text and with that of another one, which differs from it. The models are nano's.
"""

import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from datatrove.data import Document

from phi4.agreement.captions import caption_agreement
from phi4.agreement.transcripts import transcript_agreement
from phi4.data.curate.curation import BatchFilter, Reason
from phi4.data.curate.documents import record_document
from phi4.data.record import Record
from phi4.data.shards import ShardedRecords
from phi4.processing.messages import Message

# A bound that nobody keeps, so that each record's reason tells its number.
STEPS = {
    "captions": ("emoji", caption_agreement(min_score=1.1), caption_agreement(), 1),
    "transcripts": ("speech", transcript_agreement(max_word_error_rate=-1.0), transcript_agreement(), -1),
}


def held_out(folder: Path, count: int) -> list[Record]:
    """Test records, evenly spread."""
    records = ShardedRecords.open(folder).select("test")
    return [records[place] for place in np.linspace(0, len(records) - 1, min(count, len(records))).astype(int).tolist()]


def shuffled(records: Sequence[Record]) -> list[Record]:
    """Each record with the answer of another one, unless it is the same."""
    draw = random.Random(0)
    answers = [record.answer for record in records]
    draw.shuffle(answers)
    return [
        replace(record, messages=(*record.messages[:-1], Message("assistant", answer)))
        for record, answer in zip(records, answers, strict=True)
        if answer != record.answer
    ]


def numbers(step: BatchFilter, documents: Sequence[Document]) -> np.ndarray:
    """The number that each document was judged by, as its reason tells it."""
    told = []
    for start in range(0, len(documents), step.size):
        for reason in step.reasons(documents[start : start + step.size]):
            assert isinstance(reason, Reason), reason
            told.append(float(reason.detail.partition(", ")[0].split()[-1]))
    return np.array(told)


def num_left_out(step: BatchFilter, documents: Sequence[Document]) -> int:
    """How many documents a step leaves out."""
    batches = [documents[start : start + step.size] for start in range(0, len(documents), step.size)]
    return sum(reason is not None for batch in batches for reason in step.reasons(batch))


def main() -> None:
    """Measures, prints a table and what another bound would give."""
    kind, data = sys.argv[1], Path(sys.argv[2])
    dataset, telling, usual, sign = STEPS[kind]
    records = held_out(data / dataset, int(sys.argv[3]) if len(sys.argv) > 3 else 400)
    own, other = ([record_document(record) for record in some] for some in (records, shuffled(records)))
    good, bad = (sign * numbers(telling, documents) for documents in (own, other))
    auc = float((good[:, None] > bad).mean() + (good[:, None] == bad).mean() / 2)
    found, lost = num_left_out(usual, other), num_left_out(usual, own)
    print("tasks:", dict(Counter(record.task for record in records)))
    print(f"{len(good)} matched: median {sign * np.median(good):.3f}; {len(bad)} shuffled: {sign * np.median(bad):.3f}")
    print(f"AUC {auc:.3f}; at the default bound {found} of {len(bad)} shuffled and {lost} of {len(good)} matched go")
    print(f"recall {100 * found / len(bad):.1f} %, precision {100 * found / max(found + lost, 1):.1f} %")
    print("| bound | shuffled left out | matched left out |\n|---|---|---|")
    for bound in np.quantile(good, (0.01, 0.02, 0.05, 0.1, 0.2)):
        print(f"| {sign * bound:.3f} | {100 * (bad < bound).mean():.1f} % | {100 * (good < bound).mean():.1f} % |")


if __name__ == "__main__":
    main()
