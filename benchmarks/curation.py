"""What curation finds of duplicates, foreign text, private data and test-set leaks that were planted in real text.

    PYTHON -m benchmarks.curation FOLDER

Real text: FOLDOC's entries. Foreign: paragraphs of the Debian handbook's translations. Test set: WordNet's glosses.
FOLDER gets the raw files, the curated ones and the table.
"""

import gzip
import json
import os
import random
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from lxml import html

import phi4
from benchmarks import curation_recipe
from phi4.data.curate.decontaminate import words_of
from phi4.data.curate.run import curate
from phi4.data.shards import ShardedRecords
from recipes.nano.packages import WORDNET, Package, fetch

FOLDOC = Package(
    "debian",
    "dict-foldoc",
    "20230119-1",
    "745cbedb55c2da609cc88ee0284e9d11a67a11ae3709daf7bad0e895ac3294c3",
    "GFDL-1.3",
)
HANDBOOK = Package(
    "debian",
    "debian-handbook",
    "11.20220922",
    "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa",
    "CC-BY-SA-3.0 or GPL-2+",
)
LANGUAGES = ("de-DE", "fr-FR", "es-ES", "it-IT", "ru-RU", "ja-JP")
NUM_ENTRIES = 3000
NUM_PLANTED = 200
NUM_GLOSSES = 2000
FILES = 4
MIN_WORDS = 30


@dataclass(frozen=True)
class Row:
    """One document of the raw files.

    Attributes:
        kind: "entry", or what was planted.
        text: of it.
        other: the text that a duplicate was made of, the address that was put in.
    """

    kind: str
    text: str
    other: str = ""


def entries() -> list[str]:
    """FOLDOC's entries, without their headings, indentation and the braces of cross-references."""
    with gzip.open(fetch(FOLDOC) / "usr/share/dictd/foldoc.dict.dz", "rt", encoding="utf-8") as file:
        parts = re.split(r"\n(?=\S)", file.read())
    texts = ["\n".join(line.strip() for line in part.split("\n")[1:]).strip() for part in parts]
    texts = [re.sub(r"^<[^>]*> |[{}]", "", text) for text in texts]
    return sorted({text for text in texts if MIN_WORDS <= len(text.split()) <= 400})


def glosses() -> list[str]:
    """WordNet's glosses of nouns that decontamination can look for."""
    lines = (fetch(WORDNET) / "usr/share/wordnet/data.noun").read_text(encoding="latin-1").splitlines()
    texts = [line.partition(" | ")[2].strip() for line in lines if " | " in line]
    return sorted({text for text in texts if len(words_of(text)) >= 13})


def foreign() -> list[str]:
    """Paragraphs of the translations, unless they were left in English."""
    folder = fetch(HANDBOOK) / "usr/share/doc/debian-handbook/html"
    english = {run for text in paragraphs(folder / "en-US") for run in runs(text)}
    found = {text for name in LANGUAGES for text in paragraphs(folder / name)[:400]}
    # What was left in English, or in an older English, shares runs of words with the original.
    return sorted(text for text in found if len(runs(text) & english) < 0.2 * len(runs(text)) or not runs(text))


def paragraphs(folder: Path) -> list[str]:
    """Long paragraphs of a folder of pages."""
    pages = [html.fromstring(path.read_bytes()) for path in sorted(folder.glob("sect.*.html"))[:60]]
    texts = [" ".join(part.text_content().split()) for page in pages for part in page.find_class("para")]
    return [text for text in texts if len(text) > 200]


def changed(text: str, one_in: int, draw: random.Random) -> str:
    """The text with one word in so many replaced by another of its words."""
    words = text.split(" ")
    for place in draw.sample(range(len(words)), max(1, len(words) // one_in)):
        words[place] = draw.choice(words) + "s"
    return " ".join(words)


def planted(draw: random.Random) -> tuple[list[Row], list[str]]:
    """All documents in a random order, and the test set."""
    base = draw.sample(entries(), NUM_ENTRIES)
    tests = draw.sample(glosses(), NUM_GLOSSES)
    rows = [Row("entry", text) for text in base]
    chosen = iter(draw.sample(base, 3 * NUM_PLANTED))
    rows += [Row("exact duplicate", text, text) for text in (next(chosen) for _ in range(NUM_PLANTED))]
    for name, one_in in (("1 word in 50 changed", 50), ("1 word in 20 changed", 20)):
        rows += [Row(name, changed(text, one_in, draw), text) for text in (next(chosen) for _ in range(NUM_PLANTED))]
    rows += [Row("foreign text", text) for text in draw.sample(foreign(), NUM_PLANTED)]
    fresh = iter(draw.sample(sorted(set(entries()) - set(base)), 2 * NUM_PLANTED))
    rows += [Row("test-set leak", f"{next(fresh)}\n{text.upper()}", text) for text in draw.sample(tests, NUM_PLANTED)]
    for number in range(NUM_PLANTED):
        address = f"some.body{number}@mail{number}.org" if number % 2 else f"8.{number}.4.{number % 9 + 1}"
        rows.append(Row("private data", f"{next(fresh)}\nFor more ask {address} about it.", address))
    draw.shuffle(rows)
    return rows, tests


def measured(rows: list[Row], folder: Path, name: str) -> list[str]:
    """Curates and compares with what was planted: the rows of a table."""
    result = curate(
        f"{curation_recipe.__file__}:{name}", folder / "raw", folder / name, 2, "local", phi4.__version__, print
    )
    with gzip.open(folder / name / "removed.jsonl.gz", "rt") as file:
        removed = {item["id"]: item for item in map(json.loads, file)}
    kept = {record.id: record.answer for record in ShardedRecords.open(result.shards)}
    ids = {f"planted/{n % FILES}.jsonl#{n // FILES + 1}": row for n, row in enumerate(rows)}
    assert set(ids) == set(removed) | set(kept)
    step_of = {place: removed[place]["step"] if place in removed else "kept" for place in ids}
    copies: defaultdict[str, list[str]] = defaultdict(list)
    for place, row in ids.items():
        copies[row.other if "changed" in row.kind or "exact" in row.kind else row.text].append(place)
    lines = []
    for kind, step in (
        ("exact duplicate", "exact duplicates"),
        ("1 word in 50 changed", "near duplicates"),
        ("1 word in 20 changed", "near duplicates"),
    ):
        groups = [places for places in copies.values() if any(ids[place].kind == kind for place in places)]
        groups = [g for g in groups if not {step_of[p] for p in g} & {"language", "Gopher quality", "decontamination"}]
        found = sum(any(step_of[place] == step for place in places) for places in groups)
        lines.append(f"| {name} | {kind} | {len(groups)} | {found} | {100 * found / len(groups):.1f} % | |")
    for kind, step in (("foreign text", "language"), ("test-set leak", "decontamination")):
        earlier = {"language", "Gopher quality"} if step == "decontamination" else set()
        there = [place for place, row in ids.items() if row.kind == kind and step_of[place] not in earlier]
        missed = [place for place in there if step_of[place] != step]
        wrong = [place for place in ids if step_of[place] == step and ids[place].kind != kind]
        found = len(there) - len(missed)
        recall, precision = 100 * found / len(there), 100 * found / max(found + len(wrong), 1)
        lines.append(f"| {name} | {kind} | {len(there)} | {found} | {recall:.1f} % | {precision:.1f} % |")
        for title, places in (("wrong", wrong), ("missed", missed)):
            texts = [f"{removed.get(place, {}).get('reason', 'kept')}: {ids[place].text}" for place in places]
            (folder / f"{title}-{name}-{step}.txt").write_text("\n\n".join(texts))
    there = [place for place, row in ids.items() if row.kind == "private data" and place in kept]
    found = sum(ids[place].other not in kept[place] for place in there)
    lines.append(f"| {name} | private data | {len(there)} | {found} | {100 * found / len(there):.1f} % | |")
    lines += unplanted_duplicates(ids, step_of, kept, name)
    return lines


def unplanted_duplicates(ids: dict[str, Row], step_of: dict[str, str], kept: dict[str, str], name: str) -> list[str]:
    """How alike the unplanted entries that went as near duplicates are to what was kept."""
    runs_of = {place: runs(text) for place, text in kept.items()}
    index: defaultdict[str, list[str]] = defaultdict(list)
    for place, some in runs_of.items():
        for run in some:
            index[run].append(place)
    originals = {row.other for row in ids.values() if row.other}
    gone = [p for p, step in step_of.items() if step == "near duplicates" and ids[p].kind == "entry"]
    gone = [place for place in gone if ids[place].text not in originals]
    alike = []
    for place in gone:
        own = runs(ids[place].text)
        near = {other for run in own for other in index[run]}
        alike.append(max((len(own & runs_of[other]) / len(own | runs_of[other]) for other in near), default=0.0))
    true = sum(value >= 0.5 for value in alike)
    return [f"| {name} | unplanted, gone as near duplicates | {len(gone)} | {true} share half their 5-grams | | |"]


def runs(text: str) -> set[str]:
    """Runs of five words."""
    words = words_of(text)
    return {" ".join(words[start : start + 5]) for start in range(len(words) - 4)}


def main() -> None:
    """Plants, curates, prints the table."""
    folder = Path(sys.argv[1]).resolve()
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    rows, tests = planted(random.Random(0))
    for number in range(FILES):
        lines = [json.dumps({"text": row.text}) + "\n" for row in rows[number::FILES]]
        (folder / f"raw/{number}.jsonl").write_text("".join(lines))
    (folder / "evaluation.jsonl").write_text("".join(json.dumps({"question": text}) + "\n" for text in tests))
    table = [line for name in ("usual", "wide") for line in measured(rows, folder, name)]
    print("| recipe | planted | there | found | recall | precision |\n|---|---|---|---|---|---|", *table, sep="\n")


if __name__ == "__main__":
    main()
