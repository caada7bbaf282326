"""Finds stages: public functions without arguments that return a `Stage`, in Python files called recipes."""

from pathlib import Path

from phi4.errors import ConfigError
from phi4.recipe_file import call, functions_returning
from phi4.train.stage import Stage


def load_stage(reference: str) -> Stage:
    """Loads one stage.

    Args:
        reference: file and function, such as "recipes/vision.py:align".

    Raises:
        ConfigError: there is no such file or stage.
    """
    path, _, name = reference.partition(":")
    stages = load_stages(Path(path))
    if name not in stages:
        raise ConfigError(f"{path} has no stage {name!r}; it has {', '.join(stages) or 'none'}")
    return stages[name]


def load_stages(path: Path) -> dict[str, Stage]:
    """Returns all stages of a recipe by the names of their functions, in the order of the file.

    Raises:
        ConfigError: the file is missing or cannot be loaded, or one of its functions fails.
    """
    found = functions_returning(Stage, path, "recipes/vision.py:align")
    return {name: call(Stage, path, function) for name, function in found.items()}
