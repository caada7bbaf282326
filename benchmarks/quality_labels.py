"""Labelled texts from packages, for phi4 learn-quality.

PYTHON -m benchmarks.quality_labels prose labelled.jsonl     # dictionary prose is good, chat is not
PYTHON -m benchmarks.quality_labels ratings labelled.jsonl   # chats rated 5 or more are good, 2 or less are not
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from benchmarks.curation import entries
from recipes.nano.packages import Package, fetch

CHITCHAT = Package(
    "pypi", "chitchat-dataset", "0.9.0", "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e", "MIT"
)
MIN_WORDS = 30
MAX_WORDS = 150
MAX_EXAMPLES = 5000


def chats() -> Iterator[tuple[str, float | None]]:
    """Conversations, a message a line, with the mean of their three ratings."""
    path = fetch(CHITCHAT) / "chitchat_dataset/dataset.json"
    for chat in json.loads(path.read_text(encoding="utf-8")).values():
        lines = [message["text"] for turn in chat["messages"] for message in turn]
        text = " ".join("\n".join(lines).split(" ")[:MAX_WORDS])
        if len(text.split()) >= MIN_WORDS:
            yield text, mean(chat["ratings"].values()) if "ratings" in chat else None


def main() -> None:
    """Writes the labelled texts in a random order."""
    kind, out = sys.argv[1], Path(sys.argv[2])
    if kind == "prose":
        labelled = [(text, True) for text in entries()] + [(text, False) for text, _ in chats()]
    else:
        rated = [(text, rating) for text, rating in chats() if rating is not None]
        labelled = [(text, rating >= 5) for text, rating in rated if rating >= 5 or rating <= 2]
    random.Random(0).shuffle(labelled)
    rows = [json.dumps({"text": text, "good": good}) + "\n" for text, good in labelled[:MAX_EXAMPLES]]
    out.write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
