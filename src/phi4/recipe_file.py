"""Finds what a recipe offers: public functions without arguments that return one kind of value, in a Python file."""

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from phi4.errors import ConfigError, Phi4Error

Made = TypeVar("Made")


def functions_returning(kind: type[Made], path: Path, example: str) -> dict[str, Callable[[], Made]]:
    """Loads a recipe and returns its functions of one kind by name, in the order of the file.

    Args:
        kind: the class that they are annotated to return.
        path: of the recipe.
        example: a reference such as "recipes/vision.py:align", for the message about a missing file.

    Raises:
        ConfigError: the file is missing or cannot be loaded.
    """
    if not path.is_file() or path.suffix != ".py":
        raise ConfigError(
            f"there is no recipe {path}; name a file and a {kind.__name__.lower()} in it, such as {example}"
        )
    module = _import_file(path)
    return {
        name: function
        for name, function in vars(module).items()
        if not name.startswith("_") and _makes(kind, function, module)
    }


def call(kind: type[Made], path: Path, function: Callable[[], Made]) -> Made:
    """Returns what a function of a recipe makes.

    Raises:
        ConfigError: it fails, or returns something else than it says.
    """
    try:
        made = function()
    except Phi4Error:
        raise
    except Exception as error:  # whatever a user's function may raise
        raise ConfigError(f"{path}:{function.__name__} fails: {type(error).__name__}: {error}") from error
    if not isinstance(made, kind):
        raise ConfigError(f"{path}:{function.__name__} returns a {type(made).__name__}, not a {kind.__name__}")
    return made


def imported_files(path: Path, root: Path) -> list[Path]:
    """The files below a folder that a recipe imports, and those that they import, as the text of their imports says.

    Args:
        path: of the recipe.
        root: the folder that its imports start from.
    """
    found: list[Path] = []
    waiting = [path]
    while waiting:
        for place in _imported_places(waiting.pop(), root):
            for candidate in (place.with_suffix(".py"), place / "__init__.py"):
                if candidate.is_file() and candidate not in found:
                    found.append(candidate)
                    waiting.append(candidate)
    return sorted(found)


def _imported_places(path: Path, root: Path) -> list[Path]:
    """Where all modules lie that a file may import, without endings: of `from a.b import c`, a, a/b and a/b/c."""
    places: list[Path] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            start, names = root, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # One dot is the folder of the file, each further one the folder above it.
            start = path.parents[node.level - 1] if node.level else root
            names = [f"{node.module or ''}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = [part for part in name.split(".") if part]
            places += [start.joinpath(*parts[:length]) for length in range(1, len(parts) + 1)]
    return places


def _makes(kind: type, value: Any, module: ModuleType) -> bool:
    if not inspect.isfunction(value) or value.__module__ != module.__name__:
        return False
    # Where a recipe imports `annotations` from `__future__`, they are text.
    return value.__annotations__.get("return") in (kind, kind.__name__) and not inspect.signature(value).parameters


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
