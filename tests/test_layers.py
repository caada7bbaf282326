"""The table of who may import whom (docs/tour.md), read from the imports themselves."""

import ast
import re
from pathlib import Path

import phi4

PACKAGE = Path(phi4.__file__).parent

# A module may import its own package and everything listed for it.
ALLOWED = {
    "errors": set(),
    "config": {"errors", "modality"},
    "inputs": set(),
    "files": {"errors"},
    "json_file": {"errors"},
    "modality": {"errors"},
    "recipe_file": {"errors"},
    "byte_level": set(),
    "memory": set(),
    "svg_plots": set(),
    "kernels": set(),
    "model": {"config", "errors", "inputs", "kernels"},
    "processing": {"byte_level", "config", "errors", "inputs", "json_file", "modality"},
    "checkpoint": {
        "byte_level",
        "config",
        "errors",
        "files",
        "inputs",
        "json_file",
        "kernels",
        "memory",
        "modality",
        "model",
    },
    "data": {"config", "errors", "files", "inputs", "json_file", "processing", "recipe_file", "svg_plots"},
    "engine": {"config", "errors", "inputs", "kernels", "memory", "model"},
    "assistant": {"config", "errors", "inputs", "modality", "processing", "checkpoint", "engine"},
    "train": {
        "config",
        "errors",
        "files",
        "inputs",
        "json_file",
        "modality",
        "model",
        "processing",
        "recipe_file",
        "checkpoint",
        "data",
    },
    "score": {"errors", "inputs", "processing", "data", "engine", "assistant"},
    "text_logits": {"errors", "inputs", "model", "processing", "engine", "assistant"},
    "verify": {"config", "errors", "modality", "processing", "checkpoint", "assistant", "score", "text_logits"},
    "eval": {
        "config",
        "errors",
        "files",
        "inputs",
        "json_file",
        "kernels",
        "processing",
        "checkpoint",
        "engine",
        "assistant",
        "score",
        "svg_plots",
    },
    "agreement": {
        "assistant",
        "data",
        "engine",
        "errors",
        "inputs",
        "model",
        "processing",
        "score",
        "train",
    },
    "server": {"errors", "inputs", "processing", "engine", "assistant"},
    "bench": {"config", "errors", "inputs", "kernels", "memory", "model", "engine", "assistant"},
    "cli": {
        "kernels",
        "config",
        "errors",
        "inputs",
        "json_file",
        "processing",
        "checkpoint",
        "data",
        "engine",
        "assistant",
        "train",
        "verify",
        "eval",
        "server",
        "bench",
    },
    "__init__": {"errors", "modality", "processing", "engine", "assistant"},
    "__main__": {"cli"},
}


def imported_parts(path: Path) -> set[str]:
    """The first name behind `phi4.` of everything that a file imports."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "phi4" else [f"phi4.{alias.name}" for alias in node.names]
        parts |= {name.split(".")[1] for name in names if name.startswith("phi4.")}
    return parts


def test_every_module_imports_only_what_its_layer_may() -> None:
    broken = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        broken += [f"{path.name} imports {name}" for name in imported_parts(path) - ALLOWED[part] - {part}]
    assert not broken


def test_the_model_knows_no_files_strings_or_pictures() -> None:
    for path in (PACKAGE / "model").glob("*.py"):
        roots = {
            (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        assert roots <= {"torch", "math", "dataclasses", "collections", "itertools", "types", "typing", "phi4"}, (
            path.name
        )


def test_processing_and_data_know_no_neural_networks() -> None:
    network = re.compile(
        r"^from torch import .*\bnn\b|^import torch\.nn|^from torch\.nn import (?!functional$)|\bnn\.Module\b",
        re.MULTILINE,
    )
    for part in ("processing", "data"):
        assert not [path.name for path in (PACKAGE / part).rglob("*.py") if network.search(path.read_text())]
