"""Finds stages: public functions without arguments that return a `Stage`, in Python files called recipes."""

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from phi4.errors import ConfigError
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
        ConfigError: the file is missing or cannot be loaded.
    """
    if not path.is_file() or path.suffix != ".py":
        raise ConfigError(f"there is no recipe {path}; name a file and a stage in it, such as recipes/vision.py:align")
    module = _import_file(path)
    return {
        name: function()
        for name, function in vars(module).items()
        if not name.startswith("_") and _makes_stage(function, module)
    }


def _makes_stage(value: Any, module: ModuleType) -> bool:
    if not inspect.isfunction(value) or value.__module__ != module.__name__:
        return False
    # Where a recipe imports `annotations` from `__future__`, they are text.
    return value.__annotations__.get("return") in (Stage, "Stage") and not inspect.signature(value).parameters


def _import_file(path: Path) -> ModuleType:
    """Imports a file, with the folder that it was found from as a place for imports of its own."""
    # The name says nothing of the folder: it is in a recipe's digest, and a repository may be moved.
    name = f"recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    root = str(Path.cwd())
    if root not in sys.path:
        sys.path.insert(0, root)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file may raise
        raise ConfigError(
            f"the recipe {path} cannot be loaded: {type(error).__name__}: {error}. Its imports start at the folder "
            f"that the command is run in, {root}"
        ) from error
    return module
