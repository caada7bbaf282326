"""A beginning that examples share is computed once, and nothing else about them changes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from data.samples import record as text_record
from phi4.data.example import Example
from phi4.data.record import Record
from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.messages import Message
from phi4.train.objectives import layout as layouts
from phi4.train.objectives.answers import AnswerLoss
from phi4.train.objectives.layout import count_shared_tokens, lay_out
from train.conftest import Setting
from train.toys import colours

Encode = Callable[[Record], Example]
SYSTEM = Message("system", "You look at pictures and say what they show.")


def with_system(record: Record) -> Record:
    return replace(record, messages=(SYSTEM, *record.messages))


@pytest.fixture
def model(setting: Setting) -> Phi4Multimodal:
    model = setting.load(dtype=torch.float32).model
    assert isinstance(model, Phi4Multimodal)
    return model


@pytest.fixture
def examples(encode: Encode) -> list[Example]:
    texts = [text_record(f"text-{n}") for n in range(2)]
    return [encode(with_system(record)) for record in (*colours(3, "train"), *texts)]


def loss_and_gradients(model: Phi4Multimodal, examples: list[Example]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    model.requires_grad_(True)
    model.language.model.embed_tokens.requires_grad_(False)
    total = AnswerLoss(recompute=False)(model, examples).total
    total.backward()
    return total.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_loss_and_gradients_are_those_of_unshared_examples(
    model: Phi4Multimodal, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, shared_gradients = loss_and_gradients(model, examples)
    monkeypatch.setattr(layouts, "MIN_SHARED_TOKENS", 10**6)
    plain, plain_gradients = loss_and_gradients(model, examples)
    torch.testing.assert_close(shared, plain, rtol=1e-5, atol=0)
    assert shared_gradients.keys() == plain_gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in plain_gradients.values())
    for name, gradient in plain_gradients.items():
        # Some gradients are zero but for rounding, such as those of the biases of keys.
        torch.testing.assert_close(shared_gradients[name], gradient, rtol=1e-3, atol=1e-6 * largest)


def test_a_beginning_is_computed_once_for_each_adapter(model: Phi4Multimodal, examples: list[Example]) -> None:
    layout = lay_out(model, examples)
    prefixes = {segment.prefix for segment in layout.segments if segment.prefix is not None}
    assert {layout.segments[index].adapter for index in prefixes} == {"vision", None}
    saved = sum(len(e.inputs.token_ids) for e in examples) - len(layout.token_ids)
    assert saved == sum(layout.segments[s.prefix].length for s in layout.segments if s.prefix is not None) - sum(
        layout.segments[index].length for index in prefixes
    )


def test_targets_stand_behind_their_rows(model: Phi4Multimodal, examples: list[Example]) -> None:
    layout = lay_out(model, examples)
    expected = {
        (example.inputs.token_ids[row], target)
        for example in examples
        for row, target in zip(example.output_rows, example.targets, strict=True)
    }
    pairs = zip(layout.output_rows, layout.targets, strict=True)
    assert {(layout.token_ids[row], target) for row, target in pairs} == expected


def test_nothing_is_shared_from_the_first_medium_or_target_on(encode: Encode) -> None:
    """Equal conversations could share everything, but for what is learnt or encoded in each."""
    example = encode(with_system(colours(1, "train")[0]))
    assert count_shared_tokens([example, example]) == example.inputs.media[0].start
    text = encode(with_system(text_record("same")))
    assert count_shared_tokens([text, text]) == text.output_rows[0]
    assert count_shared_tokens([text]) == 0
