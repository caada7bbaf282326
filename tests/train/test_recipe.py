import sys
import textwrap
from pathlib import Path

import pytest

from phi4.errors import ConfigError
from phi4.train.recipe import load_stage, load_stages
from phi4.train.run import stage_digest
from train import stages
from train.conftest import RECIPE


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with more in it than stages."""
    path = tmp_path / "recipe.py"
    path.write_text(
        textwrap.dedent("""
            from __future__ import annotations
            from phi4.train.stage import Source, Stage
            from train.stages import align as borrowed

            def second() -> Stage:
                return first()

            def first(steps: int = 1) -> Stage:
                return _part("name", steps)

            def third() -> Stage:
                return _part("third", 3)

            def _part(name: str, steps: int) -> Stage:
                return Stage(name, ("vision",), (Source("a"),), steps, 1e-3)

            def other() -> int:
                raise AssertionError("is no stage")

            VALUE = second()
        """)
    )
    return path


def test_stages_are_public_functions_without_arguments_that_return_one(recipe: Path) -> None:
    found = load_stages(recipe)
    assert list(found) == ["second", "third"]
    assert found["third"].steps == 3


def test_a_stage_is_loaded_by_file_and_name() -> None:
    assert load_stage(f"{RECIPE}:align").name == stages.align().name


def test_a_recipe_imports_from_the_folder_that_it_is_run_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_sizes_for_a_test.py").write_text("STEPS = 7\n")
    (tmp_path / "recipe.py").write_text(
        "from my_sizes_for_a_test import STEPS\nfrom phi4.train.stage import Source, Stage\n"
        "def only() -> Stage:\n    return Stage('only', ('vision',), (Source('a'),), STEPS, 1e-3)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_stage("recipe.py:only").steps == 7


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no/such.py:align", "no recipe no/such.py"),
        ("pyproject.toml:align", "no recipe pyproject.toml"),
        (f"{RECIPE}:alien", "no stage 'alien'; it has mixed, paused, align, contrast, listen"),
        (str(RECIPE), "no stage ''"),
    ],
)
def test_what_is_not_there_is_named(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_stage(reference)


def test_a_stage_has_the_same_digest_wherever_its_recipe_stands(tmp_path: Path) -> None:
    text = (
        "from phi4.train.stage import Source, Stage\n"
        "def only() -> Stage:\n    return Stage('only', ('vision',), (Source('a'),), 1, 1e-3, augment=change)\n"
        "def change(record, generator):\n    return record\n"
    )
    digests = set()
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "moved.py").write_text(text)
        digests.add(stage_digest(load_stage(f"{tmp_path / folder / 'moved.py'}:only")))
    assert len(digests) == 1


@pytest.mark.parametrize("text", ["from nowhere_at_all import x", "def broken(:", "raise RuntimeError('mine')"])
def test_a_recipe_that_cannot_be_loaded_says_why(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.py cannot be loaded: \w+: .*Its imports start at the folder"):
        load_stages(tmp_path / "bad.py")
