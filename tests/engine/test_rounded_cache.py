"""What rounding the cache to bytes costs: nano on real text, its answers, and a number hidden in a long prompt."""

from pathlib import Path

import pytest
import torch

from cached_pass import cached_logits
from conversations import MODES, conversation
from phi4.assistant import Assistant
from phi4.checkpoint.weights import LoadedModel
from phi4.engine.engine import Engine
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.errors import ConfigError
from phi4.inputs import ModelInputs
from phi4.model import step
from phi4.processing.messages import Message

# Not the capital of France: in bf16 its first words "The" and "L" are so close that rounding decides.
QUESTIONS = ("What is 2 + 2?", "Who wrote Hamlet?", "Name three colours.")
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
PASSKEY = "The pass key is 71432. Remember it. 71432 is the pass key. "


@pytest.fixture(scope="module")
def nano() -> Assistant:
    return Assistant.load("nano", device="cpu", packs=())


@pytest.fixture(scope="module")
def rounded(nano: Assistant) -> Assistant:
    return Assistant(nano.loaded, nano.processor, torch.int8)


def test_scores_of_real_text_are_close_to_those_of_an_exact_cache() -> None:
    """Twice to four times what was measured: a mean KL divergence of 0.0006 in fp32, where bf16 has 0.0014."""
    assistant = Assistant.load("nano", dtype=torch.float32, device="cpu", packs=())
    text = (Path(__file__).parent.parent.parent / "CONTRIBUTING.md").read_text()
    inputs = ModelInputs(tuple(assistant.processor.tokenizer.encode(text, allow_special=False)[:320]), ())
    exact, close = (
        torch.log_softmax(cached_logits(assistant.loaded.model, inputs, 160, dtype), -1) for dtype in (None, torch.int8)
    )
    divergences = (exact.exp() * (exact - close)).sum(-1)
    assert divergences.mean() < 0.002
    assert divergences.max() < 0.1
    assert (exact.argmax(-1) == close.argmax(-1)).float().mean() > 0.96


@pytest.mark.parametrize("question", QUESTIONS)
def test_short_answers_are_those_of_an_exact_cache(nano: Assistant, rounded: Assistant, question: str) -> None:
    sampling = Sampling(max_tokens=16)
    assert rounded.ask(question, sampling=sampling).text == nano.ask(question, sampling=sampling).text


@pytest.mark.parametrize(
    ("repeats", "share_before"),
    [(10, 0.1), (10, 0.5), (10, 0.9), (20, 0.1), (20, 0.9), (40, 0.5), (72, 0.9)],
)
def test_a_pass_key_is_found_where_an_exact_cache_finds_it(
    nano: Assistant, rounded: Assistant, repeats: int, share_before: float
) -> None:
    """In 317 to 1,805 tokens. In longer prompts, and far from the end of these, nano finds it with neither."""
    before = int(repeats * share_before)
    parts = ("There is an important number hidden in this text. Find it.\n", FILLER * before, PASSKEY)
    prompt = "".join((*parts, FILLER * (repeats - before), "\nWhat is the pass key?"))
    for assistant in (nano, rounded):
        assert "71432" in assistant.reply([Message("user", prompt)], sampling=Sampling(max_tokens=12)).answer.text


@pytest.mark.parametrize("mode", MODES)
def test_plain_torch_serves_rounded_caches_too(monkeypatch: pytest.MonkeyPatch, tiny: LoadedModel, mode: str) -> None:
    """It attends in fp32, and another order of sums may round a key to the next byte."""
    request = Request(conversation(tiny.config, mode, 30, seed=1), Sampling(max_tokens=6, logprobs=0))
    kernel = list(Engine(tiny.model, (), cache_dtype=torch.int8).submit(request))
    monkeypatch.setattr(step, "can_attend", lambda stored, dtype: False)
    plain = list(Engine(tiny.model, (), cache_dtype=torch.int8).submit(request))
    assert [token.token_id for token in plain] == [token.token_id for token in kernel]
    for one, other in zip(plain, kernel, strict=True):
        assert one.log_probabilities is not None
        assert other.log_probabilities is not None
        assert abs(one.log_probabilities.chosen - other.log_probabilities.chosen) < 0.1


def test_other_types_are_refused(tiny: LoadedModel) -> None:
    with pytest.raises(ConfigError, match=r"torch.int8 or the model's type, torch.float32, not torch.float16"):
        Engine(tiny.model, (), cache_dtype=torch.float16)
