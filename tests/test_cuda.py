"""On a graphics card the engine gives the tokens of the CPU, alone and in company."""

from pathlib import Path

import pytest
import torch

from conversations import MODES, conversation
from phi4.checkpoint.weights import load_model
from phi4.engine.engine import Engine
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA")


def test_the_tokens_are_those_of_the_cpu(tiny_directory: Path) -> None:
    found = []
    for device in ("cpu", "cuda"):
        loaded = load_model(tiny_directory, torch.float32, device)
        requests = [Request(conversation(loaded.config, m, 30, seed=1), Sampling(max_tokens=6)) for m in MODES]
        tokens: list[list[int]] = [[] for _ in requests]
        for index, token in Engine(loaded.model, ()).generate(requests):
            tokens[index].append(token.token_id)
        found.append(tokens)
    assert found[0] == found[1]
