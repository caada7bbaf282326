"""`phi4 curate` and `phi4 learn-quality`, one after the other."""

import json
from pathlib import Path

import pytest

from cli.conftest import Phi4
from data.curate.recipes import HEAD, PROSE, write_json_lines
from phi4.data.shards import ShardedRecords

GOOD = [" ".join(text.split()[: 8 + number % 9]) + f" number {number}" for number in range(60) for text in PROSE]
BAD = [f"click here buy now {number} click {number * number}" for number in range(360)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_classifier_is_learnt_from_labels_and_used_by_a_curation(phi4: Phi4, folder: Path) -> None:
    labels = [{"text": text, "good": text in GOOD} for text in (*GOOD, *BAD)]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels))
    learnt = phi4("learn-quality", "labelled.jsonl", "--out", "quality.safetensors")
    assert learnt.status == 0, learnt.stderr
    assert "accuracy 1.000, AUC 1.000" in learnt.stdout
    write_json_lines(folder / "raw/0.jsonl", [PROSE[0], "click here, buy now and click again"], licence="CC0-1.0")
    collection = 'Collection("text", "*.jsonl", JsonLines())'
    (folder / "recipe.py").write_text(
        "from pathlib import Path\nfrom phi4.data.curate.quality import quality"
        f'{HEAD}    return Curation(({collection},), (quality(Path("quality.safetensors")),))\n'
    )
    command = ("curate", "recipe.py:check", "--in", "raw", "--out", "curated")
    curated = phi4(*command)
    assert curated.status == 0, curated.stderr
    assert curated.stdout.splitlines() == [str(folder / "curated/check"), str(folder / "curated/report.md")]
    assert [record.answer for record in ShardedRecords.open(folder / "curated/check")] == [PROSE[0]]
    assert "is complete already" in phi4(*command).stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("curate recipe.py:check --in raw --out out", "there is no recipe "),
        ("learn-quality none.jsonl --out out", "none.jsonl"),
        ("learn-quality . --out out", ". is no file"),
    ],
)
def test_a_mistake_ends_with_a_message(command: str, message: str, phi4: Phi4, folder: Path) -> None:
    outcome = phi4(*command.split())
    assert outcome.status == 2
    assert outcome.stderr.startswith("error: ")
    assert message in outcome.stderr
