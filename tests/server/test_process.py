"""The server as a process of its own: how it starts, drains and stops."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from phi4.checkpoint.presets import load_preset
from server.running import WAIT_S, user, wait_until

ENVIRONMENT = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
# The end tokens of the tiny model, which would end its noise anywhere.
NO_END = {str(token_id): -100 for token_id in load_preset("tiny").generation["eos_token_id"]}
LONG = {"temperature": 0, "max_tokens": 400, "messages": user("Hello"), "logit_bias": NO_END}


class Process:
    """A server that listens."""

    def __init__(self, directory: Path, log: Path, *options: str) -> None:
        self.log = log
        self.opened: list[Any] = []
        command = [sys.executable, "-m", "phi4", "serve", "--model", str(directory), "--port", "0", "--device", "cpu"]
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


@pytest.fixture
def launch(tiny_directory: Path, tmp_path: Path) -> Iterator[Launch]:
    """Starts servers, and ends those that a test has left running."""
    servers: list[Process] = []

    def start(*options: str) -> Process:
        servers.append(Process(tiny_directory, tmp_path / f"log-{len(servers)}", *options))
        return servers[-1]

    yield start
    for server in servers:
        for one in server.opened:
            one.close()
        server.process.kill()
        server.process.wait()


def status(response: HTTPResponse) -> int:
    response.read()
    return response.status


def begin_stream(server: Process, **fields: Any) -> HTTPResponse:
    """A stream whose first piece is there."""
    response = server.ask(LONG | fields | {"stream": True})
    assert response.readline().startswith(b"data: ")
    return response


def test_it_drains_at_the_first_signal(launch: Launch) -> None:
    server = launch("--drain-seconds", "600")
    short, long = begin_stream(server), begin_stream(server, max_tokens=7000)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: status(server.ask(path="/health")) == 503)
    assert status(server.ask(LONG)) == 503
    assert short.read().endswith(b"data: [DONE]\n\n")
    long.close()  # a client that hangs up is not waited for
    assert server.process.wait(WAIT_S) == 0
    assert "Traceback" not in server.log.read_text()


def test_it_waits_no_longer_than_it_was_told(launch: Launch) -> None:
    server = launch("--drain-seconds", "0")
    stream = begin_stream(server, max_tokens=7000)
    server.process.send_signal(signal.SIGTERM)
    assert b"is about to stop" in stream.read()
    assert server.process.wait(WAIT_S) == 0


def test_it_stops_at_the_second_signal(launch: Launch) -> None:
    server = launch()
    begin_stream(server, max_tokens=7000)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: status(server.ask(path="/health")) == 503)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(WAIT_S)


def test_it_can_be_killed_and_started_again(launch: Launch) -> None:
    first = launch()
    begin_stream(first)
    first.process.kill()
    first.process.wait(WAIT_S)
    second = launch("--port", str(first.port))
    assert status(second.ask(LONG)) == 200
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(WAIT_S) == 0
