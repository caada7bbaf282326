"""Whatever is sent, the answer is one that the document foresees; schemathesis makes up what is sent."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from server.running import Running

TESTS = Path(__file__).parents[1]
OPTIONS = "--max-examples 15 --seed 1 --generation-deterministic --no-color --checks all"
OPTIONS += " --suppress-health-check all --continue-on-failure --phases examples,coverage,fuzzing --request-timeout 120"


def test_no_request_is_answered_otherwise_than_described(
    start: Callable[..., AbstractContextManager[Running]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi4.server.transcriptions.MAX_PIECE_TOKENS", 4)
    with start(api_key="secret") as server:
        root = f"http://127.0.0.1:{server.port}"
        run = subprocess.run(
            [
                *(Path(sys.executable).parent / "schemathesis", "run", f"{root}/openapi.json", *OPTIONS.split()),
                *("--header", "Authorization: Bearer secret"),
            ],
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "server.schemathesis_hooks", "PYTHONPATH": str(TESTS)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    assert run.returncode == 0, run.stdout
