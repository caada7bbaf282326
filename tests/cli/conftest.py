"""Runs commands in this process, as `phi4 ARGUMENTS` would."""

import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest

from phi4.cli import main


@dataclass(frozen=True)
class Outcome:
    """Exit status and output of a command."""

    status: int
    stdout: str
    stderr: str


Phi4 = Callable[..., Outcome]


@pytest.fixture
def phi4(monkeypatch: pytest.MonkeyPatch) -> Phi4:
    """Runs a command; an exception that would print a traceback fails the test."""

    def run(*arguments: str, stdin: str = "") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        stdout, stderr = io.StringIO(), io.StringIO()
        with redirect_stdout(stdout), redirect_stderr(stderr), pytest.raises(SystemExit) as exit_info:
            main(list(arguments))
        return Outcome(int(exit_info.value.code or 0), stdout.getvalue(), stderr.getvalue())

    return run


@pytest.fixture
def phi4_json(phi4: Phi4) -> Callable[..., Any]:
    """Runs a command that must succeed and print one JSON object, nothing else, to stdout."""

    def run(*arguments: str, stdin: str = "") -> Any:
        outcome = phi4(*arguments, "--json", stdin=stdin)
        assert outcome.status == 0, outcome.stderr
        return json.loads(outcome.stdout)

    return run
