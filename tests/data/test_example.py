"""Examples: what is learnt is what the model will say when it is served, token by token."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.samples import media_record, png, record, wav
from phi4.checkpoint.hub import resolve, shipped_packs
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.packs import add_packs
from phi4.checkpoint.weights import LoadedModel
from phi4.data.example import Example, cut_into_runs, encode_example, encode_preference, encode_text
from phi4.errors import DataError, InputError
from phi4.processing.messages import Image, Message, Sound
from phi4.processing.processor import Processor
from phi4.processing.template import ChatTemplate
from phi4.processing.tools import ToolCall

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["<|end|>", " x", "\n\nx", "<|endoftext|>", "<|assistant|>", "x \n"]
)


BEGIN, END = 1, 2


def test_of_a_text_every_token_is_learnt_and_nothing_stands_around_it(processor: Processor) -> None:
    text = record("t", Message("user", ""), Message("assistant", "Low <|end|> tide."))
    example = encode_text(text, processor, BEGIN, END)
    plain = processor.tokenizer.encode("Low <|end|> tide.", allow_special=False)
    assert example.inputs.token_ids == (BEGIN, *plain, END)
    assert example.targets == (*plain, END)
    assert example.output_rows == tuple(range(len(plain) + 1))


@pytest.mark.parametrize("length", [2, 3, 7, 50, 100])
def test_the_runs_of_a_text_learn_each_of_its_tokens_once(processor: Processor, length: int) -> None:
    text = record("t", Message("user", ""), Message("assistant", "So long a text that no row holds it."))
    example = encode_text(text, processor, BEGIN, END)
    runs = cut_into_runs(example, length)
    assert sum((run.targets for run in runs), ()) == example.targets
    assert all(run.num_tokens <= length for run in runs)
    assert all(run.targets == tuple(run.inputs.token_ids[row + 1] for row in run.output_rows) for run in runs)


def test_a_conversation_is_no_text(processor: Processor) -> None:
    with pytest.raises(DataError, match="is a conversation; a text has an empty question"):
        encode_text(record("a"), processor, BEGIN, END)


def test_a_preference_is_one_conversation_with_two_endings(processor: Processor) -> None:
    end = end_tokens(processor, "<|end|>")
    example = encode_preference(record("a", rejected="Who knows?"), processor, end)
    assert example.rejected is not None
    assert learnt(example, processor) == "It is a.<|end|>"
    assert learnt(example.rejected, processor) == "Who knows?<|end|>"
    assert example.num_tokens == len(example.inputs.token_ids) + len(example.rejected.inputs.token_ids)
    with pytest.raises(DataError, match="no rejected answer"):
        encode_preference(record("a"), processor, end)


def end_tokens(processor: Processor, *texts: str) -> list[int]:
    return [processor.tokenizer.added.by_text[text].token_id for text in texts]


@pytest.fixture(scope="module")
def nano_processor() -> Processor:
    checkpoint = add_packs(open_checkpoint(resolve("nano")), shipped_packs("nano"))
    return Processor.load(checkpoint.directory, checkpoint.config, checkpoint.preprocessor)


def with_template(processor: Processor, source: str) -> Processor:
    return replace(processor, template=ChatTemplate(source, {"eos_token": "<|endoftext|>"}))


def learnt(example: Example, processor: Processor) -> str:
    return processor.tokenizer.decode(example.targets, skip_special=False)


def check_invariants(example: Example, processor: Processor, end: Sequence[int]) -> None:
    messages, token_ids, rows = example.record.messages, example.inputs.token_ids, np.array(example.output_rows)
    assert token_ids == processor.prepare(messages, add_generation_prompt=False).token_ids
    assert example.targets == tuple(token_ids[row + 1] for row in rows)
    # Every run of rows begins at the last token of a prompt as it is served, and ends before an end token.
    prompts = [
        processor.prepare(messages[:index]).token_ids
        for index, message in enumerate(messages)
        if message.role == "assistant"
    ]
    assert all(token_ids[: len(prompt)] == prompt for prompt in prompts)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    assert [run[0] for run in runs] == [len(prompt) - 1 for prompt in prompts]
    assert all([token_ids[row + 1] in end for row in run] == [False] * (len(run) - 1) + [True] for run in runs)


def test_only_the_answer_and_its_end_are_learnt(processor: Processor, tiny: LoadedModel) -> None:
    example = encode_example(media_record(3), processor, tiny.generation.eos_token_ids)
    assert learnt(example, processor) == "Number 3.<|end|>"
    whole = processor.tokenizer.decode(example.inputs.token_ids, skip_special=False)
    assert whole.endswith("Name both.<|end|><|assistant|>Number 3.<|end|><|endoftext|>")
    assert example.answer == "Number 3."
    assert [medium.modality for medium in example.inputs.media] == ["vision", "speech"]
    check_invariants(example, processor, tiny.generation.eos_token_ids)


def test_every_answer_of_a_conversation_is_learnt_behind_its_own_media(processor: Processor, tiny: LoadedModel) -> None:
    turns = (
        Message("system", "Be brief."),
        Message("user", ("a", Image(png(0)), Sound(wav(0)))),
        Message("assistant", "first"),
        Message("user", (Sound(wav(1)), Sound(wav(2)), "b")),
        Message("assistant", ""),
        Message("user", ("c", Image(png(1)))),
        Message("assistant", ("la", "st")),
    )
    example = encode_example(record("x", *turns), processor, tiny.generation.eos_token_ids)
    assert learnt(example, processor) == "first<|end|><|end|>last<|end|>"
    assert example.answer == "last"
    check_invariants(example, processor, tiny.generation.eos_token_ids)


def test_spelled_answers_are_the_same_text_in_tokens_of_single_letters(nano_processor: Processor) -> None:
    turns = (
        Message("user", ("Read the text.", Image(png(0)))),
        Message("assistant", "The same 12"),
        Message("user", ("And the other?", Image(png(1)))),
        Message("assistant", "then"),
    )
    (end,) = end_tokens(nano_processor, "<|im_end|>")
    plain = encode_example(record("x", *turns), nano_processor, [end])
    spelled = encode_example(record("x", *turns), nano_processor, [end], spelled=True)
    assert learnt(spelled, nano_processor) == learnt(plain, nano_processor) == "The same 12<|im_end|>then<|im_end|>"
    assert [nano_processor.tokenizer.token_bytes(token) for token in spelled.targets if token != end] == [
        letter.encode() for letter in "The same 12then"
    ]
    assert spelled.targets == tuple(spelled.inputs.token_ids[row + 1] for row in spelled.output_rows)
    assert text_of(spelled, nano_processor) == text_of(plain, nano_processor)
    more = len("The same 12") + 1 - plain.targets.index(end) - 1
    assert more > 0
    assert [medium.start for medium in spelled.inputs.media] == [
        plain.inputs.media[0].start,
        plain.inputs.media[1].start + more,
    ]


def text_of(example: Example, processor: Processor) -> str:
    return processor.tokenizer.decode(example.inputs.token_ids, skip_special=False)


def test_a_call_is_part_of_the_answer(processor: Processor, tiny: LoadedModel) -> None:
    turns = (
        Message("system", "", tools='[{"name": "now"}]'),
        Message("user", "When?"),
        Message("assistant", "", tool_calls=(ToolCall("now", {}),)),
        Message("tool", "noon"),
        Message("assistant", "At noon."),
    )
    example = encode_example(record("x", *turns), processor, tiny.generation.eos_token_ids)
    call = '<|tool_call|>[{"name": "now", "arguments": {}}]<|/tool_call|>'
    assert learnt(example, processor) == f"{call}<|end|>At noon.<|end|>"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
def test_any_conversation_is_trained_as_it_is_served(
    processor: Processor, tiny: LoadedModel, turns: list[tuple[str, str]]
) -> None:
    messages = [Message(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
    example = encode_example(record("x", *messages), processor, tiny.generation.eos_token_ids)
    check_invariants(example, processor, tiny.generation.eos_token_ids)


def test_nano_learns_its_answers_in_chat_ml(nano_processor: Processor) -> None:
    turns = (
        Message("user", "2 + 2?"),
        Message("assistant", "4"),
        Message("user", "And 3?"),
        Message("assistant", " It is\n\n5.\n"),
    )
    end = end_tokens(nano_processor, "<|im_end|>")
    example = encode_example(record("x", *turns), nano_processor, end)
    assert learnt(example, nano_processor) == "4<|im_end|> It is\n\n5.\n<|im_end|>"
    check_invariants(example, nano_processor, end)


def test_an_answer_that_joins_its_opener_is_refused(nano_processor: Processor) -> None:
    """The line break behind `assistant` makes one token with the answer's first."""
    turns = (Message("user", "a"), Message("assistant", "\n\nb"))
    with pytest.raises(DataError, match=r"'x': with the answer of message 2 behind it.*white space"):
        encode_example(record("x", *turns), nano_processor, end_tokens(nano_processor, "<|im_end|>"))


def test_an_answer_without_an_end_token_is_refused(processor: Processor) -> None:
    with pytest.raises(DataError, match=r"message 2, an answer, with none of the end tokens \[5\]"):
        encode_example(record("x"), processor, [5])
    # Of a question's end nothing can be learnt: the second turn's may not stand for the first's.
    source = (
        "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
        "{% if message.role == 'user' %}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    turns = [Message(role, "a") for role in ("user", "assistant", "user", "assistant")]
    with pytest.raises(DataError, match="message 2, an answer, with none"):
        encode_example(record("x", *turns), with_template(processor, source), end_tokens(processor, "<|end|>"))


def test_a_template_that_forgets_earlier_answers_is_refused(processor: Processor) -> None:
    source = (
        "{% for message in messages %}<|{{ message.role }}|>"
        "{% if message.role == 'user' or loop.last %}{{ message.content }}{% endif %}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    turns = [Message(role, "a") for role in ("user", "assistant", "user", "assistant")]
    with pytest.raises(DataError, match="changes message 2, an answer, when the conversation goes on"):
        encode_example(record("x", *turns), with_template(processor, source), end_tokens(processor, "<|end|>"))


@pytest.mark.parametrize("part", [Image(b"\x89PNG\r\n\x1a\n"), Image(png(0)[:-40]), Sound(wav(0)[:30]), Sound(b"")])
def test_a_broken_medium_is_refused(processor: Processor, tiny: LoadedModel, part: Image | Sound) -> None:
    broken = record("x", Message("user", (part, "?")), Message("assistant", "?"))
    with pytest.raises(InputError, match=r"(image|audio) 1: the (image|audio) "):
        encode_example(broken, processor, tiny.generation.eos_token_ids)
