"""A quantised directory is a model like any other to the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cli.conftest import Phi4
from data.samples import record
from phi4.checkpoint.quantise import SCHEMES, quantise
from phi4.data.shards import write_shards


@pytest.fixture(scope="module")
def quantised(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("quantised") / "tiny"
    quantise(tiny_directory, directory, SCHEMES["4bit"], encoders=True, adapters=True)
    return directory


def test_it_chats_and_transcribes(phi4: Phi4, quantised: Path, tmp_path: Path) -> None:
    chat = phi4("chat", "--model", str(quantised), "--max-tokens", "2", stdin="Hello\nAgain")
    assert (chat.status, chat.stderr.count(" tokens · ")) == (0, 2)
    soundfile.write(tmp_path / "sound.wav", np.sin(np.arange(8000) * 0.1) / 2, 16_000)
    heard = phi4("transcribe", "--model", str(quantised), "--max-tokens", "2", "--json", str(tmp_path / "sound.wav"))
    assert len(json.loads(heard.stdout)["files"][0]["token_ids"]) == 2


def test_it_is_measured_by_the_bytes_of_its_weights(phi4: Phi4, tiny_directory: Path, quantised: Path) -> None:
    sizes = ["--prompt-tokens", "5", "--new-tokens", "1", "--rows", "2", "--rounds", "1", "--json"]
    exact, rounded = (
        json.loads(phi4("bench", "--model", str(path), *sizes).stdout) for path in (tiny_directory, quantised)
    )
    assert rounded["step_bytes"] < 0.5 * exact["step_bytes"]
    assert rounded["decode_rows"]["tokens_per_s"] > 0


def test_it_is_evaluated(phi4: Phi4, quantised: Path, tmp_path: Path) -> None:
    write_shards([record(f"t{number}", split="test") for number in range(2)], tmp_path / "data" / "mixed")
    options = ["--tasks", "records", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--json"]
    outcome = phi4("eval", str(quantised), *options)
    assert outcome.status == 0, outcome.stderr
    assert list(json.loads(outcome.stdout)["tasks"]) == ["mixed.chat.text"]


def test_it_is_taken_apart_and_put_together(phi4: Phi4, quantised: Path, tmp_path: Path) -> None:
    assert phi4("convert", str(quantised), str(tmp_path / "split"), "--to", "packs").status == 0
    packs = [f"--pack={tmp_path / 'split' / name}.safetensors" for name in ("vision", "speech")]
    joined = tmp_path / "joined"
    assert phi4("convert", str(tmp_path / "split" / "base"), str(joined), *packs).status == 0
    assert (joined / "model.safetensors").read_bytes() == (quantised / "model.safetensors").read_bytes()


def test_parts_that_a_model_lacks_are_named(phi4: Phi4, tiny_directory: Path, tmp_path: Path) -> None:
    assert phi4("convert", str(tiny_directory), str(tmp_path / "split"), "--to", "packs").status == 0
    base, out = str(tmp_path / "split" / "base"), str(tmp_path / "out")
    outcome = phi4("quantize", base, out, "--encoders", "8bit")
    assert outcome.status == 2
    assert "put packs into it" in outcome.stderr
