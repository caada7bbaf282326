"""On a graphics card the engine gives the tokens of the CPU, alone and in company, and quantised weights its bits."""

from pathlib import Path

import pytest
import torch

from cached_pass import cached_logits
from conversations import MODES, conversation
from phi4.checkpoint.quantise import SCHEMES, quantise
from phi4.checkpoint.rounding import round_weight
from phi4.checkpoint.weights import load_model
from phi4.engine.engine import Engine
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.kernels.quantised import PackedWeight, multiply_packed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA")


@pytest.mark.parametrize("cache_dtype", [None, torch.int8], ids=["auto", "int8"])
def test_the_tokens_are_those_of_the_cpu(tiny_directory: Path, cache_dtype: torch.dtype | None) -> None:
    found = []
    for device in ("cpu", "cuda"):
        loaded = load_model(tiny_directory, torch.float32, device)
        requests = [Request(conversation(loaded.config, m, 30, seed=1), Sampling(max_tokens=6)) for m in MODES]
        tokens: list[list[int]] = [[] for _ in requests]
        for index, token in Engine(loaded.model, (), cache_dtype=cache_dtype).generate(requests):
            tokens[index].append(token.token_id)
        found.append(tokens)
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def quantised(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoder, encoders and adapters."""
    directory = tmp_path_factory.mktemp("quantised") / "tiny"
    quantise(tiny_directory, directory, SCHEMES["mixed"], encoders=True, adapters=True)
    return directory


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("cache_dtype", "error"), [(None, 0.02), (torch.int8, 0.06)], ids=["auto", "int8"])
def test_a_quantised_model_scores_as_on_the_cpu(
    quantised: Path, mode: str, cache_dtype: torch.dtype | None, error: float
) -> None:
    """Not to the bit: what attention adds up in another order may be rounded to the next byte.

    Plain torch beside the kernels, both on a CPU, had half of these errors at most.
    """
    exact, found = (
        cached_logits(loaded.model, conversation(loaded.config, mode, 30, seed=1), 7, cache_dtype).cpu()
        for loaded in (load_model(quantised, torch.float32, device) for device in ("cpu", "cuda"))
    )
    assert (found - exact).norm() < error * exact.norm()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantised_products_have_the_bits_of_the_cpu(bits: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = round_weight(torch.randn(64, 640, generator=generator), bits)
    rows = torch.randn(50, 640, generator=generator).to(dtype)
    steps = None if weight.steps is None else weight.steps.cuda()
    on_card = PackedWeight(weight.codes.cuda(), steps, weight.scales.cuda())
    with torch.inference_mode():
        assert torch.equal(multiply_packed(rows.cuda(), on_card).cpu(), multiply_packed(rows, weight))
