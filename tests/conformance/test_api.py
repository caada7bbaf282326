"""What OpenAI's interface promises to every client."""

import json
import os
from typing import Any

import openai
import pytest

from conformance.api import Api
from server.running import sound_bytes, user

HELLO = user("Hello")


def pieces(stream: Any, index: int = 0) -> str:
    """The text of one choice of a stream."""
    choices = [choice for chunk in stream for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def test_the_model_is_listed(api: Api) -> None:
    assert api.model in [model.id for model in api.client.models.list().data]


def test_a_greedy_answer_is_repeatable_and_the_same_when_streamed(api: Api) -> None:
    whole = api.text(HELLO)
    assert api.text(HELLO) == whole
    assert pieces(api.chat(HELLO, stream=True)) == whole


def test_a_limit_is_kept_under_both_of_its_names(api: Api) -> None:
    bias = {str(token_id): -100 for token_id in (*api.tokenize("<|end|>"), *api.tokenize("<|endoftext|>"))}
    for fields in ({"max_tokens": 5}, {"max_tokens": None, "max_completion_tokens": 5}):
        answer = api.chat(HELLO, logit_bias=bias, **fields)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 5
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5


def test_usage_of_a_stream_comes_in_its_last_chunk(api: Api) -> None:
    chunks = list(api.chat(HELLO, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens == api.prompt_tokens(HELLO)
    assert not any(chunk.usage for chunk in chunks[:-1])


def test_stop_strings_end_an_answer_wherever_tokens_begin(api: Api) -> None:
    bias = api.bias("Z", 100)
    assert api.text(HELLO, logit_bias=bias).startswith("ZZZZZZZZ")
    answer = api.chat(HELLO, logit_bias=bias, stop=["no", "ZZZ"])
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("", "stop")
    assert pieces(api.chat(HELLO, logit_bias=bias, stop="ZZZ", stream=True)) == ""


def test_a_seed_repeats_a_random_answer(api: Api) -> None:
    first, second, other = (api.text(HELLO, temperature=1, seed=seed) for seed in (1, 1, 2))
    assert first == second != other


def test_n_answers_come_with_their_indices(api: Api) -> None:
    choices = api.chat(HELLO, n=3, temperature=1, seed=1).choices
    assert [choice.index for choice in choices] == [0, 1, 2]
    assert len({choice.message.content for choice in choices}) > 1


def test_log_probabilities_are_sorted_and_hold_the_greedy_token(api: Api) -> None:
    for entry in api.chat(HELLO, logprobs=True, top_logprobs=3).choices[0].logprobs.content:
        best = [top.logprob for top in entry.top_logprobs]
        assert best == sorted(best, reverse=True)
        assert entry.logprob == best[0] <= 0


def test_json_follows_its_schema(api: Api) -> None:
    schema = {
        "type": "object",
        "properties": {"sure": {"type": "boolean"}},
        "required": ["sure"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    text = api.text(HELLO, response_format=form, max_tokens=100, logit_bias=api.bias(" \n\t\r", -100))
    assert list(json.loads(text)) == ["sure"]


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (openai.BadRequestError, {"temperature": -1}),
        (openai.BadRequestError, {"n": 0}),
        (openai.BadRequestError, {"top_p": 2}),
        (openai.BadRequestError, {"logit_bias": {"x": 1}}),
        (openai.BadRequestError, {"messages": []}),
        (openai.BadRequestError, {"messages": [{"role": "nobody", "content": "x"}]}),
        (openai.NotFoundError, {"model": "no-such-model"}),
    ],
)
def test_what_is_wrong_has_its_own_error(api: Api, error: type[openai.APIStatusError], fields: dict[str, Any]) -> None:
    asked: Any = {"model": api.model, "messages": HELLO} | fields
    with pytest.raises(error) as raised:
        api.client.chat.completions.create(**asked)
    assert isinstance(raised.value.body, dict)
    assert {"message", "type", "param", "code"} <= set(raised.value.body)


def test_a_stream_that_is_left_does_not_disturb_the_next_request(api: Api) -> None:
    expected = api.text(HELLO)
    for _ in range(3):
        with api.chat(HELLO, stream=True, max_tokens=200) as stream:
            next(iter(stream))
    assert api.text(HELLO) == expected


def test_prompts_may_be_token_ids_and_many(api: Api) -> None:
    ids = [api.tokenize(text) for text in ("One two", "Three")]
    create = api.client.completions.create
    together = create(model=api.model, prompt=ids, max_tokens=6, temperature=0).choices
    alone = [create(model=api.model, prompt=[own], max_tokens=6, temperature=0).choices[0] for own in ids]
    assert [choice.text for choice in together] == [choice.text for choice in alone]
    assert [choice.index for choice in together] == [0, 1]


def test_an_echoed_prompt_is_scored_as_lm_evaluation_harness_reads_it(api: Api) -> None:
    ids = api.tokenize("The quick brown fox")
    (choice,) = api.client.completions.create(
        model=api.model, prompt=[ids], max_tokens=1, temperature=0, logprobs=1, echo=True
    ).choices
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.top_logprobs is not None
    assert len(choice.logprobs.token_logprobs) == len(ids) + 1
    assert choice.logprobs.token_logprobs[0] is None
    for logprob, top in zip(choice.logprobs.token_logprobs[1:], choice.logprobs.top_logprobs[1:], strict=True):
        assert logprob <= max(top.values()) <= 0


def test_a_sound_is_transcribed(api: Api) -> None:
    file = ("sound.wav", sound_bytes(0.5))
    try:
        text = api.client.audio.transcriptions.create(model=api.model, file=file, response_format="verbose_json")
    except openai.BadRequestError as error:
        if "CONFORMANCE_URL" not in os.environ:
            raise  # our own model hears
        pytest.skip(f"no speech: {error}")
    assert text.duration == pytest.approx(0.5, abs=0.05)
