"""`phi4 eval` and `phi4 compare` on the tiny checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Phi4
from data.samples import png, record
from phi4.checkpoint.convert import convert
from phi4.data.shards import write_shards
from phi4.processing.messages import Message, user_message


@pytest.fixture
def packed(tiny_directory: Path, tmp_path: Path) -> Path:
    """The tiny model as a base with two packs, and data of text and pictures beside it."""
    convert(tiny_directory, tmp_path / "split", "packs")
    picture = user_message("What?", [png(1)])
    records = [
        *(record(f"t{number}", split="test") for number in range(3)),
        record("p", picture, Message("assistant", "Noise."), split="test", task="look"),
    ]
    write_shards(records, tmp_path / "data" / "mixed")
    return tmp_path


def test_the_commands_evaluate_compare_and_show_that_packs_do_not_interfere(phi4: Phi4, packed: Path) -> None:
    packs = [f"--pack={packed}/split/{name}.safetensors" for name in ("vision", "speech")]
    common = [str(packed / "split" / "base"), *packs, "--tasks", "records", "--data", str(packed / "data")]
    outcome = phi4("eval", *common, "--out", str(packed / "packs"), "--interference", "--dtype", "float32", "--json")
    assert outcome.status == 0, outcome.stderr
    report: dict[str, Any] = json.loads(outcome.stdout)
    sets = ["base", "base+vision", "base+speech", "base+vision+speech"]
    assert list(report["mixed.chat.text"]["different"].items()) == [(name, 0) for name in sets]
    assert list(report["mixed.look.vision"]["values"]) == ["base+vision", "base+vision+speech"]
    assert "| mixed.chat.text | 3 | exact match |" in (packed / "packs" / "interference.md").read_text()
    assert "mixed.look.vision, base+vision" in (packed / "packs" / "interference.svg").read_text()
    base, seeing = (json.loads((packed / f"packs/{name}/results.json").read_text()) for name in sets[:2])
    assert (base["model"]["packs"], list(seeing["model"]["packs"])) == ({}, ["vision.safetensors"])
    assert base["model"]["base_digest"] == seeing["model"]["base_digest"]
    told = {"command", "phi4", "python", "libraries", "kernels", "device", "threads", "machine"}
    assert base["environment"].keys() == seeing["environment"].keys() == told
    folders = [str(packed / "packs" / "base"), str(packed / "packs" / "base+vision")]
    compared = phi4("compare", *folders, "--out", str(packed / "moved"), "--json")
    assert (packed / "moved" / "comparison.svg").read_text().startswith("<svg")
    found = json.loads(compared.stdout)
    assert {row["verdict"] for row in found["tasks"]} == {"same"}
    assert found["only_second"] == ["mixed.look.vision"]


def test_a_mistake_ends_with_a_message(phi4: Phi4, tmp_path: Path) -> None:
    outcome = phi4("eval", "nano", "--tasks", "gsm9k", "--out", str(tmp_path / "out"))
    assert (outcome.status, outcome.stderr.startswith("error: there is no task gsm9k")) == (2, True)
    outcome = phi4("eval", "nano")
    assert "needs --tasks and --out" in outcome.stderr
    outcome = phi4("compare", str(tmp_path), str(tmp_path))
    assert outcome.status == 2
    assert "holds no evaluation" in outcome.stderr


def test_the_list_of_tasks_says_what_they_read(phi4: Phi4, tmp_path: Path) -> None:
    outcome = phi4("eval", "nano", "--list")
    assert outcome.status == 0
    assert "gsm8k" in outcome.stdout
    assert "records" in outcome.stdout
