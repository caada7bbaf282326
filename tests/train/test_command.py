"""`phi4 train` as it is typed."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from phi4.cli import main
from phi4.data.shards import write_shards
from train.conftest import RECIPE, Setting, losses
from train.stages import align
from train.toys import broken, colours


def run(*arguments: str) -> int:
    """Runs a command and returns its exit status."""
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    return int(exit_info.value.code or 0)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_the_list_is_a_table_of_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--list", str(RECIPE)) == 0
    output = capsys.readouterr().out
    for word in ("trains", "frozen", "data", "steps", "vision.separator", "all else", "colours × 2", "tones × 1"):
        assert word in output
    for name in ("mixed", "align", "contrast", "listen"):
        assert f":{name}" in output


def test_a_stage_that_trains_the_language_model_freezes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--list", str(Path(__file__).parents[2] / "recipes" / "language.py")) == 0
    output = capsys.readouterr().out
    assert "nothing" in output
    assert "all else" not in output


def test_the_list_takes_all_recipes_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.py").write_text(RECIPE.read_text())
    monkeypatch.chdir(tmp_path)
    assert run("train", "--list") == 0
    assert "recipes/mine.py:mixed" in capsys.readouterr().out


def test_a_stage_is_trained_and_its_packs_are_printed(
    setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*setting.arguments("align", tmp_path / "run"), "--device=cpu", "--steps=2") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'run' / 'vision.safetensors'}\n"
    assert re.search(r"align .* 2/2 colours \d+\.\d{3}  [\d,]+ tokens/s 0:00:00", captured.err)
    assert "skipped" not in captured.err
    assert max(report["step"] for report in losses(tmp_path / "run")) == 2 < align().steps


def test_what_was_left_out_is_told_at_the_end(
    setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shards([broken("broken"), *colours(2, "train")], tmp_path / "data" / "colours")
    started = replace(setting, data=tmp_path / "data")
    assert run(*started.arguments("align", tmp_path / "run"), "--device=cpu") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'run' / 'vision.safetensors'}\n"
    told = re.search(
        r"^skipped (\d+) draws of records that cannot be used \(colours: InputError (\d+)\); "
        r"the first: colours, record 'broken': .+$",
        captured.err,
        re.MULTILINE,
    )
    assert told
    assert told[1] == told[2]
    assert f"tokens/s  {told[1]} skipped" in captured.err


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        ("alien", (), "no stage 'alien'"),
        ("align", ("--data=/no/such/data",), "/no/such/data"),
        ("align", ("--pack=/no/such/pack",), "/no/such/pack"),
        ("align", ("--model=/no/such/model",), "/no/such/model"),
        ("align", ("--steps=0",), "steps is 0"),
        ("align", ("--device=mps",), "has no mps"),
    ],
)
def test_a_mistake_ends_with_one_line_and_status_2(
    setting: Setting,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    assert run(*setting.arguments(stage, tmp_path / "run"), *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_folder_with_a_run_needs_resume(setting: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = setting.arguments("align", tmp_path / "run")
    assert run(*arguments) == 0
    capsys.readouterr()
    assert run(*arguments) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {tmp_path / 'run'} holds a run already; continue it with --resume, or name another folder"
    ]
    assert run(*arguments, "--resume") == 0


@pytest.mark.parametrize("arguments", [("train", f"{RECIPE}:align"), ("train", f"{RECIPE}:align", "--data=x")])
def test_what_is_missing_is_said(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert "--data and --out" in capsys.readouterr().err
