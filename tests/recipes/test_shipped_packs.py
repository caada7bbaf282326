"""The packs that come with nano."""

import json
import re
from pathlib import Path

import pytest
import torch

from phi4 import Assistant
from phi4.checkpoint.nano import BASE_DIGEST, PACKS, pull_nano
from phi4.checkpoint.packs import Pack, read_pack
from phi4.files import file_digest
from phi4.verify import verify
from recipes.nano.evaluate import MEASURES

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def packs() -> list[Pack]:
    return [read_pack(path) for path in PACKS]


@pytest.fixture(scope="module")
def nano() -> Assistant:
    return Assistant.load("nano", device="cpu")


def test_they_are_small_in_bf16_and_for_the_pinned_base(packs: list[Pack]) -> None:
    assert sum(path.stat().st_size for path in PACKS) <= 40e6
    assert {pack.modality for pack in packs} == {"vision", "speech"}
    for pack in packs:
        assert pack.base_digest == BASE_DIGEST
        assert {tensor.dtype for tensor in pack.tensors.values()} == {torch.bfloat16}


def test_everything_that_they_were_trained_on_is_attributed(packs: list[Pack]) -> None:
    """Each source of each stage, by package and version."""
    attribution = (PACKS[0].parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in attribution.partition("## Language model")[0]
    sources = {
        source
        for pack in packs
        for stage in pack.trained_on["stages"]
        for own in stage["sources"].values()
        for source in own
    }
    assert sources
    for source in sources:
        named = re.search(r"([\w@/.-]+)[ @](\d[\w.+-]*)", source)
        assert named, source
        assert f"`{named[1]}` {named[2]}" in attribution, source


def test_text_is_that_of_the_bare_model(nano: Assistant) -> None:
    question = "What is the capital of France?"
    bare = Assistant.load("nano", device="cpu", packs=())
    assert not bare.loaded.config.adapters
    assert nano.ask(question).token_ids == bare.ask(question).token_ids


def test_the_language_model_is_untouched_and_no_pack_changes_the_answers_of_another() -> None:
    proof = verify(pull_nano(), PACKS, ROOT / "examples" / "held_out", limit=1)
    assert proof.passed
    assert len(proof.logits) >= 3
    assert {answers.media for answers in proof.answers} == {"vision", "speech", "vision+speech"}


def test_the_pages_table_is_what_was_measured_beside_what_should_be_reached() -> None:
    results = json.loads((ROOT / "docs" / "nano-results.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "nano.md").read_text(encoding="utf-8")
    assert results.keys() == MEASURES.keys()
    for task, measure in MEASURES.items():
        result = results[task]
        assert result["target"] == measure.target
        # Some results are older than this note.
        assert result.get("packs") in (None, {path.name: file_digest(path) for path in PACKS}), task
        row = f"| {task} | {measure.name} | {result['records']:,} | {result['value']:.1%} | {measure.target_text} |"
        assert row in page, task
