"""The packs that come with nano."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch

from phi4 import Assistant
from phi4.checkpoint.nano import BASE_DIGEST, PACKAGE, PACKS, VERSION, pull_nano
from phi4.checkpoint.packs import Pack, read_pack
from phi4.files import file_digest
from phi4.verify import verify
from recipes.nano import packages
from recipes.nano.emoji_drawings import HELD_OUT_STYLES
from recipes.nano.evaluate import MEASURES
from recipes.nano.packages import FONTS, FURTHER_STYLES, ICON_SETS, STYLES, Package
from recipes.nano.voices import ALL, TRAINING

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def packs() -> list[Pack]:
    return [read_pack(path) for path in PACKS]


@pytest.fixture(scope="module")
def nano() -> Assistant:
    return Assistant.load("nano", device="cpu")


@pytest.fixture(scope="module")
def sources(packs: list[Pack]) -> set[str]:
    """What the packs were trained on, as their stages tell it: package and voice, with licence."""
    stages = [stage for pack in packs for stage in pack.trained_on["stages"]]
    return {source for stage in stages for own in stage["sources"].values() for source in own}


@pytest.fixture(scope="module")
def attribution() -> str:
    return (PACKS[0].parent / "ATTRIBUTION.md").read_text(encoding="utf-8")


def pinned_packages() -> Iterator[Package]:
    """All that stand in recipes/nano/packages.py: alone, in a tuple, or by name."""
    for value in vars(packages).values():
        group = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        yield from (package for package in group if isinstance(package, Package))


def test_they_are_small_in_bf16_and_for_the_pinned_base(packs: list[Pack]) -> None:
    assert sum(path.stat().st_size for path in PACKS) <= 40e6
    assert {pack.modality for pack in packs} == {"vision", "speech"}
    for pack in packs:
        assert pack.base_digest == BASE_DIGEST
        assert {tensor.dtype for tensor in pack.tensors.values()} == {torch.bfloat16}


def test_everything_that_they_were_trained_on_is_attributed(sources: set[str], attribution: str) -> None:
    """Each source of each stage, by package and version."""
    assert "Apache-2.0" in attribution.partition("## Language model")[0]
    assert sources
    for source in sources:
        named = re.search(r"([\w@/.-]+)[ @](\d[\w.+-]*)", source)
        assert named, source
        assert f"`{named[1]}` {named[2]}" in attribution, source


def test_every_pinned_package_is_attributed(attribution: str) -> None:
    """Not all are sources of records: some gave names, words, sentences or parts of a voice."""
    pinned = {(package.name, package.version) for package in pinned_packages()}
    assert len(pinned) >= 30
    for name, version in {*pinned, (PACKAGE, VERSION)}:
        assert f"`{name}` {version}" in attribution, name


def test_nothing_was_trained_on_that_is_held_out(sources: set[str]) -> None:
    """All else was, which shows that a source is found by the names that are looked for."""

    def trained(names: Iterable[str]) -> set[str]:
        return {name for name in names if any(f"{name} " in source for source in sources)}

    voices, heard = ({f"{voice.engine} {voice.name}" for voice in some} for some in (ALL, TRAINING))
    assert trained(voices) == heard
    styles = {package.name for package in STYLES.values()}
    assert trained(styles) == styles - {STYLES[style].name for style in HELD_OUT_STYLES}
    further = {package.name for package in (*FURTHER_STYLES.values(), *ICON_SETS.values())}
    assert trained(further) == further
    fonts = {package.name for package in FONTS.values()}
    # C059 came with families that were for training: the package tells nothing about it.
    assert trained(fonts) == fonts - {FONTS["lato"].name, FONTS["courier-prime"].name}
    recordings = [packages.ASTERISK_SOUNDS, packages.ASTERISK_TRANSCRIPTS, packages.SPHINX_SOUNDS]
    assert trained(package.name for package in recordings) == set()


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
