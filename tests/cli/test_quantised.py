"""A quantised directory is a model like any other to the commands."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cli.conftest import Phi4
from conversations import MODES, conversation
from data.samples import png, record, wav
from phi4.checkpoint.quantise import SCHEMES, quantise
from phi4.checkpoint.weights import load_model
from phi4.data.shards import write_shards
from phi4.engine.whole_pass import score
from phi4.kernels.instructions import LEVELS
from train.conftest import RECIPE, write_toys
from train.toys import colours, tones

# `phi4` where nothing was compiled: the module of the kernels cannot be imported.
WITHOUT_KERNELS = """
import sys

sys.modules["phi4.kernels.native"] = None
from phi4.cli import main
from phi4.kernels.instructions import NATIVE

assert NATIVE is None
main()
"""


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
    # Bytes multiply faster than what a limit of their own type would say.
    assert rounded["machine"]["product"] == ("bytes" if LEVELS else rounded["dtype"])
    assert exact["machine"]["product"] == exact["dtype"]


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


@pytest.mark.parametrize("with_media", [False, True], ids=["text", "media and a cache of bytes"])
def test_it_answers_without_native_kernels(quantised: Path, tmp_path: Path, with_media: bool) -> None:
    """Which tokens is not asked: its products have the same bits there, but norms and attention add up otherwise."""
    (tmp_path / "picture.png").write_bytes(png(1))
    (tmp_path / "sound.wav").write_bytes(wav(1))
    media = ["--image", "picture.png", "--audio", "sound.wav", "--kv-cache-dtype", "int8"] if with_media else []
    options = ["--model", str(quantised), "--device", "cpu", "--max-tokens", "3", "--json", *media]
    command = [sys.executable, "-c", WITHOUT_KERNELS, "ask", *options, "Hello"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert len(json.loads(outcome.stdout)["token_ids"]) == 3


def test_new_packs_for_it_are_trained_on_its_source_and_change_its_answers_to_media_alone(
    phi4: Phi4, tiny_directory: Path, tmp_path: Path
) -> None:
    base, rounded, run = tmp_path / "split" / "base", tmp_path / "rounded", tmp_path / "run"
    new = [tmp_path / f"{name}.safetensors" for name in ("vision", "speech")]
    assert phi4("convert", str(tiny_directory), str(base.parent), "--to", "packs").status == 0
    assert phi4("quantize", str(base), str(rounded)).status == 0
    for pack in new:
        outcome = phi4("new-pack", pack.stem, str(pack), "--model", str(rounded), "--like", "tiny")
        assert outcome.status == 0, outcome.stderr
    write_toys(tmp_path / "data", {"colours": colours, "tones": tones})
    # The first step draws no sound.
    options = [f"--data={tmp_path / 'data'}", f"--out={run}", "--steps=2", "--device=cpu"]
    outcome = phi4("train", f"{RECIPE}:mixed", f"--model={base}", *(f"--pack={pack}" for pack in new), *options)
    assert outcome.status == 0, outcome.stderr
    before, after = (load_model(rounded, packs=packs) for packs in (new, [run / pack.name for pack in new]))
    for mode in MODES:
        inputs = [conversation(after.config, mode, 12, seed=1)]
        untrained, trained = (score(loaded.model, inputs)[0] for loaded in (before, after))
        assert torch.equal(untrained, trained) == (mode == "text"), mode


def test_parts_that_a_model_lacks_are_named(phi4: Phi4, tiny_directory: Path, tmp_path: Path) -> None:
    assert phi4("convert", str(tiny_directory), str(tmp_path / "split"), "--to", "packs").status == 0
    base, out = str(tmp_path / "split" / "base"), str(tmp_path / "out")
    outcome = phi4("quantize", base, out, "--encoders", "8bit")
    assert outcome.status == 2
    assert "put packs into it" in outcome.stderr
