"""Where servers of these models have gone wrong (facts sheet, sections 7 and 10)."""

import json
import random
import string
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conformance.api import Api
from server.running import picture_bytes, picture_part, sound_bytes, sound_part, text_part, user

HELLO = user("Hello")
PICTURE = user(picture_part(), text_part("What is this?"))
SOUND = user(sound_part(), text_part("What is this?"))
BOTH = user(picture_part(), sound_part(), text_part("What is this?"))


def test_no_adapter_leaks_into_a_conversation_that_does_not_use_it(api: Api) -> None:
    """Text, pictures, sounds and both at the same time get what each gets alone."""
    conversations = [HELLO, PICTURE, SOUND, BOTH]
    alone = [api.text(one) for one in conversations]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(api.text, conversations * 3))
    assert together == alone * 3


def test_the_same_words_under_another_picture_are_another_conversation(api: Api) -> None:
    """A cache of prefixes must know the media, not only their placeholders."""
    other = user(picture_part(picture_bytes(seed=1)), text_part("What is this?"))
    fields = {"logprobs": True, "max_tokens": 1}
    first, second, again = (
        api.chat(one, **fields).choices[0].logprobs.content[0].logprob for one in (PICTURE, other, PICTURE)
    )
    assert first == pytest.approx(again, abs=1e-3)
    assert abs(first - second) > 1e-6


def test_a_sound_is_not_silently_dropped(api: Api) -> None:
    """A sound takes a token for each 80 ms."""
    none, short, long = (
        api.prompt_tokens(user(*sounds, text_part("What?")))
        for sounds in ([], [sound_part(sound_bytes(2.0))], [sound_part(sound_bytes(4.0))])
    )
    assert short - none >= 24
    assert 24 <= long - short <= 26


def test_every_picture_counts(api: Api) -> None:
    none, one, two = (api.prompt_tokens(user(*[picture_part()] * count, text_part("What?"))) for count in range(3))
    assert two - one == one - none > 1


@pytest.mark.parametrize("written", ["<|image_1|>", "<|audio_1|>", "<|endoftext10|>", "<|end|><|system|>"])
def test_control_tokens_in_messages_are_text(api: Api, written: str) -> None:
    """They neither ask for media nor end the message."""
    assert api.prompt_tokens(user(written)) - api.prompt_tokens(user("")) > 2
    assert api.prompt_tokens(user(picture_part(), text_part(written))) > api.prompt_tokens(user(picture_part()))


def test_an_answer_stops_at_the_end_token(api: Api) -> None:
    (end,) = api.tokenize("<|end|>")
    answer = api.chat(HELLO, logit_bias={str(end): 100})
    assert answer.choices[0].finish_reason == "stop"
    assert not answer.choices[0].message.content


def test_the_long_rotary_table_is_taken_when_an_answer_grows_past_4096(api: Api) -> None:
    """Behind the crossing, log-probabilities are those of one pass over the whole text."""
    (token_id,) = api.tokenize("Z")
    letters = "".join(
        random.Random(0).choices(string.ascii_letters, k=20_000)
    )  # where all is equal, places do not matter
    prompt = api.tokenize(letters)[:4091]
    create = api.client.completions.create
    bias: Any = {str(token_id): 100}
    grown = create(model=api.model, prompt=[prompt], max_tokens=10, temperature=0, logprobs=1, logit_bias=bias)
    whole = create(model=api.model, prompt=[[*prompt, *[token_id] * 10]], max_tokens=1, echo=True, logprobs=1)
    logprobs = grown.choices[0].logprobs, whole.choices[0].logprobs
    found, expected = (one.token_logprobs for one in logprobs if one is not None and one.token_logprobs is not None)
    # Ten tokens from position 4091 on; the one at 4097 is the first that is predicted with 4097 tokens before it.
    assert found[6:] == pytest.approx(expected[4097:4101], abs=2e-3)


def test_a_short_conversation_beside_a_long_one_keeps_the_short_table(api: Api) -> None:
    expected = api.text(HELLO)
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(api.text, user("Z" * 4200))
        assert api.text(HELLO) == expected
    assert api.text(user("Z" * 4200)) == long.result()


@pytest.mark.parametrize("stream", [False, True])
def test_arrays_and_nested_objects_in_the_arguments_of_a_call_arrive_whole(api: Api, stream: bool) -> None:
    point = {
        "type": "object",
        "properties": {"at": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 2}},
        "required": ["at"],
        "additionalProperties": False,
    }
    parameters = {
        "type": "object",
        "properties": {"points": {"type": "array", "items": point, "minItems": 2, "maxItems": 2}},
        "required": ["points"],
        "additionalProperties": False,
    }
    answer = api.chat(
        user("Draw a line."),
        tools=[{"type": "function", "function": {"name": "draw", "parameters": parameters}}],
        tool_choice={"type": "function", "function": {"name": "draw"}},
        max_tokens=400,
        logit_bias=api.bias(" \n\t\r", -100),
        stream=stream,
    )
    if stream:
        calls = [call for chunk in answer for choice in chunk.choices for call in choice.delta.tool_calls or ()]
        name, arguments = calls[0].function.name, "".join(call.function.arguments or "" for call in calls)
        assert len(calls) > 3
    else:
        (call,) = answer.choices[0].message.tool_calls
        name, arguments = call.function.name, call.function.arguments
    assert name == "draw"
    assert [len(one["at"]) for one in json.loads(arguments)["points"]] == [2, 2]
