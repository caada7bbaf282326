"""The language model against transformers' Phi3, which is right across the LongRoPE switch (facts sheet 1.5)."""

import pytest
import torch

from parity.reference import VOCABULARY, Pair, assert_parity
from phi4.engine.engine import Engine
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.engine.whole_pass import score
from phi4.inputs import ModelInputs


def prompt(length: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(length)
    return tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist())


@pytest.mark.parametrize("length", [1, 7, 300, 4095, 4096, 4097, 4500])
def test_logits_agree(text: Pair, length: int) -> None:
    ids = prompt(length)
    with torch.inference_mode():
        theirs = text.theirs(torch.tensor([ids])).logits[0]
    (ours,) = score(text.ours, [ModelInputs(ids)])
    assert_parity(ours, theirs)


@pytest.mark.parametrize("length", [5, 4060, 4096])
def test_64_greedy_tokens_agree(text: Pair, length: int) -> None:
    """4060 crosses the switch in the middle of the answer, 4096 with its first token."""
    ids = prompt(length)
    theirs = text.theirs.generate(
        torch.tensor([ids]), max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
    )[0, length:]
    request = Request(ModelInputs(ids), Sampling(max_tokens=64))
    ours = [token.token_id for token in Engine(text.ours, eos_token_ids=()).submit(request)]
    assert ours == theirs.tolist()
