"""The server under test: the one at CONFORMANCE_URL, or a tiny one of our own on loopback.

    CONFORMANCE_URL=http://127.0.0.1:8000/v1 CONFORMANCE_MODEL=... CONFORMANCE_API_KEY=... pytest tests/conformance

The suite asks through OpenAI's client alone. What a random model would not do by itself is brought about with
logit_bias, for which the ids of tokens come from `/tokenize`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import torch

from conformance.api import Api
from phi4 import Assistant
from phi4.server.limits import ServerLimits
from server.running import running_server

TIMEOUT_S = 300.0


@pytest.fixture(scope="session")
def api(tiny_directory: Path) -> Iterator[Api]:
    url = os.environ.get("CONFORMANCE_URL")
    if url is None:
        assistant = Assistant.load(tiny_directory, dtype=torch.float32, device="cpu")
        with running_server(assistant, ServerLimits()) as server:
            yield Api(server.client, "tiny")
        return
    client = openai.OpenAI(base_url=url, api_key=os.environ.get("CONFORMANCE_API_KEY", "none"), timeout=TIMEOUT_S)
    yield Api(client, os.environ.get("CONFORMANCE_MODEL") or client.models.list().data[0].id)
