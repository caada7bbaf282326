"""A server on loopback with the tiny multimodal model."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from phi4 import Assistant
from phi4.server.limits import ServerLimits
from server.process import Launch, Process
from server.running import Running, running_server


@pytest.fixture(scope="session")
def assistant(tiny_directory: Path) -> Assistant:
    return Assistant.load(tiny_directory, dtype=torch.float32, device="cpu")


@pytest.fixture(scope="session")
def server(assistant: Assistant) -> Iterator[Running]:
    with running_server(assistant, ServerLimits()) as running:
        yield running


@pytest.fixture
def start(assistant: Assistant) -> Callable[..., AbstractContextManager[Running]]:
    """Starts a server with limits or a key of its own."""
    return lambda limits=None, api_key=None: running_server(assistant, limits or ServerLimits(), api_key)


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
