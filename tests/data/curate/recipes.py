"""Raw files, recipes for them, and runs of both."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from phi4.data.curate.run import Curated, curate

PROSE = (
    "The lighthouse stood on a rock that the sea covered twice a day, and its keeper had not left it for years.",
    "When a farmer sows wheat in the autumn he has to think of the frost, of the birds and of the price in summer.",
    "Bridges of stone carry their own weight better than any load, which is why they have lasted for so long.",
    "Nobody in the village could say who had built the mill, but everybody knew that it belonged to the miller.",
    "A clock that is stopped shows the right time twice a day, and one that is slow may never show it at all.",
    "The train to the north leaves from the last platform, and those who miss it have to wait until the evening.",
)

HEAD = """
from phi4.data.curate import text
from phi4.data.curate.curation import *
from phi4.data.curate.readers import *

def check() -> Curation:
"""


def write_json_lines(path: Path, texts: Iterable[str], **fields: str) -> None:
    """One object with a text on each line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text, **fields}) + "\n" for text in texts))


def run(folder: Path, body: str, out: str = "out", workers: int = 1) -> Curated:
    """Curates `folder`/raw with a recipe whose function has this body."""
    recipe = folder / "recipe.py"
    if not recipe.exists():
        recipe.write_text(HEAD + f"    return {body}\n")
    return curate(f"{recipe}:check", folder / "raw", folder / out, workers, "local", "test", lambda _: None)


def removed(result: Curated) -> list[tuple[str, str, str]]:
    """All that was left out: id, step, reason."""
    with gzip.open(result.report.parent / "removed.jsonl.gz", "rt") as file:
        return [tuple(json.loads(line).values()) for line in file]
