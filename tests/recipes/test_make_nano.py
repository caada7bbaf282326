"""`make nano` and `make nano-long` go through every stage, each from the packs of the one before, and go on."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from phi4.checkpoint.keymap import empty_model
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.nano import PACKS, pull_nano
from phi4.checkpoint.packs import add_packs
from phi4.cli import main
from phi4.train.parts import copy_parts, select_trained
from phi4.train.recipe import load_stages
from phi4.train.stage import Stage

ROOT = Path(__file__).parents[2]
RECIPES = {"nano": ("nano_vision", "nano_speech", "nano_joint"), "nano-long": ("nano_long",)}

# Stands for every command of the Makefile: notes what it was told, and writes what it should, or fails.
STUB = """\
#!/bin/sh
echo "$*" >> "$TOLD"
case "$*" in *"$FAILS"*) exit 1;; esac
while [ $# -gt 0 ]; do [ "$1" = --out ] && out=$2; shift; done
case "$out" in
    *.*) mkdir -p "${out%/*}" && touch "$out";;
    *) mkdir -p "$out" && touch "$out/vision.safetensors" "$out/speech.safetensors";;
esac
"""


def stages(target: str) -> Iterator[tuple[str, Stage]]:
    for recipe in RECIPES[target]:
        for name, stage in load_stages(ROOT / f"recipes/{recipe}.py").items():
            yield f"recipes/{recipe}.py:{name}", stage


def commands(target: str, folder: Path, *options: str) -> list[list[str]]:
    """The commands that `make` would run, without those that set up the environment."""
    command = ["make", "--dry-run", target, f"NANO={folder}", *options]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = [shlex.split(line) for line in printed.splitlines()]
    return [line for line in words if any(word.startswith("recipes") for word in line)]


def names(lines: list[list[str]]) -> list[str]:
    """Of each command, the stage that it trains or the module that it runs."""
    return [next(word for word in line if word.startswith("recipes")) for line in lines]


def make_with_stubs(folder: Path, fails: str = "no command", target: str = "nano", *options: str) -> list[str]:
    """Runs `make` with stubs; returns what they were told, the one that fails last."""
    (folder / "bin").mkdir(exist_ok=True)
    for program in ("python", "phi4"):
        (folder / "bin" / program).write_text(STUB)
        (folder / "bin" / program).chmod(0o755)
    told = folder / "told"
    told.write_text("")
    # The environment is there, whatever its files say.
    command = [
        "make",
        target,
        f"NANO={folder / 'nano'}",
        f"BIN={folder / 'bin'}",
        "--old-file=.venv/dev-installed",
        *options,
    ]
    environment = os.environ | {"TOLD": str(told), "FAILS": fails}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = told.read_text().splitlines()
    assert bool(result.returncode) == any(fails in line for line in lines), result.stderr
    return lines


@pytest.mark.parametrize("target", RECIPES)
def test_every_stage_is_trained_in_the_order_of_the_recipes(target: str, tmp_path: Path) -> None:
    trained = [name for name in names(commands(target, tmp_path)) if name.startswith("recipes/")]
    assert trained == [name for name, _ in stages(target)]


@pytest.mark.parametrize(
    "fails", ["build speech", "nano.begin", "nano.guide", "nano_vision.py:name", "nano_joint.py:joint", "nano.evaluate"]
)
def test_what_was_stopped_is_gone_on_with_and_nothing_is_done_twice(tmp_path: Path, fails: str) -> None:
    before = make_with_stubs(tmp_path, fails)
    behind = make_with_stubs(tmp_path)
    done = set(before[:-1]) & set(behind)
    # Both halves of the data are one step; the second keeps what the first built.
    assert done <= {line for line in before if "build pictures" in line or "nano.report" in line}
    assert before[-1] in behind[:2]
    assert make_with_stubs(tmp_path) == []


def test_a_new_environment_is_no_reason_to_train_again(tmp_path: Path) -> None:
    make_with_stubs(tmp_path)
    assert commands("nano", tmp_path / "nano", "--what-if=.venv/dev-installed") == []


@pytest.mark.parametrize(("modality", "alone"), [("vision", []), ("speech", ["hear", "instruct"])])
def test_new_packs_of_the_package_are_trained_further(tmp_path: Path, modality: str, alone: list[str]) -> None:
    make_with_stubs(tmp_path, target="nano-long")
    assert commands("nano-long", tmp_path / "nano") == []
    shipped = f"src/phi4/checkpoint/nano_packs/{modality}.safetensors"
    # Not a dry run: in one, make does not see that both packs of a stage are new.
    lines = [shlex.split(line) for line in make_with_stubs(tmp_path, "no command", "nano-long", f"--what-if={shipped}")]
    assert lines[0][lines[0].index("--pack") + 1] == shipped
    trained = [name for name in names(lines) if name.startswith("recipes/")]
    assert trained == [f"recipes/nano_long.py:{stage}" for stage in (*alone, "joint", "words")]


# What a rehearsal adds to a command that has this word.
SHORTER = {
    "train": ["--steps", "3"],
    "speech": ["--quick"],
    "recipes.nano.guide": ["--steps", "6"],
    "recipes.nano.gather": ["--steps", "3"],
    "recipes.nano.sharpen": ["--steps", "3"],
    "recipes.nano.settle": ["--steps", "3"],
    "recipes.nano.tell": ["--steps", "3"],
    "recipes.nano.evaluate": ["--limit", "2"],
}


@pytest.mark.parametrize("target", RECIPES)
def test_a_rehearsal_has_every_command_for_a_moment(target: str, tmp_path: Path) -> None:
    whole, rehearsal = commands(target, tmp_path), commands(target, tmp_path, "TRIAL=1")
    for words, short in zip(whole, rehearsal, strict=True):
        added = [option for word in words for option in SHORTER.get(word, [])]
        assert sorted(short) == sorted(words + added)


@pytest.mark.parametrize("target", RECIPES)
def test_training_takes_the_options_that_are_given(target: str, tmp_path: Path) -> None:
    usual, asked = commands(target, tmp_path), commands(target, tmp_path, "OPTIONS=--dtype float32")
    for words, others in zip(usual, asked, strict=True):
        assert sorted(others) == sorted(words + (["--dtype", "float32"] if "train" in words else []))


def test_a_rehearsal_stays_out_of_the_folder_of_the_real_thing() -> None:
    command = ["make", "--dry-run", "--always-make", "nano", "TRIAL=1"]
    environment = {name: value for name, value in os.environ.items() if name != "NANO"}
    printed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert "build/trial/results.json" in printed
    assert "build/nano" not in printed


def test_every_stage_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    for target in RECIPES:
        assert all("--resume" in line for line in commands(target, tmp_path) if "train" in line)


def run_with_help(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in this process; with `--help` it ends when its options are known."""
    if "-m" in words:
        module, *arguments = words[words.index("-m") + 1 :]
        monkeypatch.setattr(sys, "argv", [module, *arguments, "--help"])
        runpy.run_path(str(ROOT / f"{module.replace('.', '/')}.py"), run_name="__main__")
    else:
        main([*words[1:], "--help"])


@pytest.mark.parametrize("target", RECIPES)
def test_every_command_knows_its_options(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A rehearsal has all options of the real thing, and some more.
    for words in commands(target, tmp_path, "TRIAL=1"):
        with pytest.raises(SystemExit) as ended:
            run_with_help(words, monkeypatch)
        assert not ended.value.code, words


@pytest.mark.parametrize("target", RECIPES)
def test_every_stage_names_parts_that_the_packs_have(target: str) -> None:
    model = empty_model(add_packs(open_checkpoint(pull_nano()), PACKS).config)
    for _, stage in stages(target):
        assert select_trained(model, stage.trains)
        copy_parts(model, stage.copies)


def test_the_pages_table_has_every_stage() -> None:
    page = (ROOT / "docs" / "nano.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (nano .+?) \| (.+?) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    assert rows == [
        (
            stage.name,
            # Separators go with the projector.
            ", ".join(part.partition(".")[2] for part in stage.trains if "separator" not in part),
            ", ".join(source.dataset for source in stage.sources),
            f"{stage.steps:,} × {stage.rows_per_step * stage.tokens_per_row:,} tokens",
        )
        for target in RECIPES
        for _, stage in stages(target)
    ]
