"""Servers that are processes of their own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from server.running import WAIT_S, wait_until

ENVIRONMENT = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


class Process:
    """A server that listens."""

    def __init__(self, directory: Path, log: Path, *options: str) -> None:
        self.log = log
        self.opened: list[Any] = []
        command = [sys.executable, "-m", "phi4", "serve", "--model", str(directory), "--port", "0", "--device", "cpu"]
        # Many processors have no arithmetic for bf16.
        command += ["--dtype", "float32"]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*command, "--cache-tokens", "8192", *options], stderr=file, stdout=file, env=ENVIRONMENT
            )
        wait_until(lambda: self._find_port() or self.process.poll() is not None)
        self.port = self._find_port()
        assert self.port, log.read_text()

    def _find_port(self) -> int:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.log.read_text())
        return int(found[1]) if found else 0

    def ask(self, body: Any = None, path: str = "/v1/chat/completions") -> HTTPResponse:
        """Sends a request; its answer may be read later."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        content = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, content, {"content-type": "application/json"})
        response = connection.getresponse()
        self.opened += [connection, response]
        return response


Launch = Callable[..., Process]


def status(response: HTTPResponse) -> int:
    response.read()
    return response.status
