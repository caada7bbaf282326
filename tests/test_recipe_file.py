"""Which files a recipe is made of."""

from pathlib import Path

from phi4.recipe_file import imported_files


def test_files_that_a_recipe_imports_in_any_way_are_found(tmp_path: Path) -> None:
    (tmp_path / "steps").mkdir()
    files = {
        "recipe": "from steps.clean import f",
        "steps/__init__": "",
        "steps/clean": "from .rules import R",
        "steps/rules": "from . import more",
        "steps/more": "",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    found = imported_files(tmp_path / "recipe.py", tmp_path)
    assert [path.stem for path in found] == ["__init__", "clean", "more", "rules"]
