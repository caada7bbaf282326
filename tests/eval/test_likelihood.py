"""Choices of one question are scored together, and the question is read once."""

from pathlib import Path

import pytest
import torch

from phi4.assistant import Assistant
from phi4.eval.ask import ask_items
from phi4.eval.likelihood import encode_continuation
from phi4.eval.task import Choose, Item


def test_the_text_that_choices_continue_is_read_once(tiny_directory: Path) -> None:
    assistant = Assistant.load(tiny_directory, packs=(), dtype=torch.float32, device="cpu")
    item = Item(
        "1", context="The lighthouse stood on the cliff. " * 8 + "Its light was", choices=(" a", " b", " on", " x")
    )
    tokenizer, prefix_id = assistant.processor.tokenizer, assistant.loaded.generation.prefix_id
    pieces = [encode_continuation(tokenizer, item.context, choice, prefix_id) for choice in item.choices]
    full_blocks = (len(pieces[0].context) - 1) // 32 * 32
    assert full_blocks > 64
    (together,) = ask_items(assistant, Choose(), [item])
    assert assistant.engine.counts.reused_tokens == 3 * full_blocks

    expected = []
    for one in pieces:
        logits = assistant.logits([*one.context, *one.scored]).float().log_softmax(-1)
        places = range(len(one.context) - 1, len(one.context) + len(one.scored) - 1)
        expected.append(sum(float(logits[place, token]) for place, token in zip(places, one.scored, strict=True)))
    assert together.log_likelihoods == pytest.approx(expected, abs=1e-4)
