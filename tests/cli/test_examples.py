"""What the commands' help and the pages show can be typed: commands and options of those names exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from phi4.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def shown(text: str) -> Iterator[tuple[str, list[str]]]:
    """Name and long options of each command in a text that may cut long lines with a backslash."""
    for line in text.replace("\\\n", " ").splitlines():
        if found := re.search(r"(?:^\s*(?:\$ )?|[A-Z_\d]+=\S+ |-m |&& )phi4 ([a-z][\w-]*)([^#|;&]*)", line):
            yield found[1], re.findall(r"(?<=\s)--[a-z][\w-]*", found[2])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_with_options_that_exist(name: str) -> None:
    examples = [options for command, options in shown(COMMANDS[name].help or "") if command == name]
    assert examples
    assert {option for options in examples for option in options} <= options_of(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_of_a_page_exist(page: Path) -> None:
    blocks = re.findall(r"^```(?:bash|text)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    for name, options in shown("\n".join(blocks)):
        assert name in COMMANDS
        assert set(options) <= options_of(name)


def options_of(name: str) -> set[str]:
    return {option for parameter in COMMANDS[name].params for option in parameter.opts} | {"--help"}
