"""Completions: prompts in all forms, and their log-probabilities against one pass over the whole text."""

import json
from typing import Any

import pytest
import torch

from phi4 import Assistant, Sampling
from server.running import Running

GREEDY = {"model": "tiny", "temperature": 0, "max_tokens": 6}
PROMPT = "<|user|>Hello<|end|><|assistant|>"


def complete(server: Running, **fields: Any) -> Any:
    reply = server.send("/v1/completions", GREEDY | fields)
    assert reply.status == 200, reply.body
    return reply.json


def test_text_and_token_ids_are_the_same_prompt(server: Running, assistant: Assistant) -> None:
    token_ids = assistant.processor.tokenizer.encode(PROMPT, allow_special=True)
    texts = [complete(server, prompt=prompt)["choices"][0]["text"] for prompt in (PROMPT, token_ids, [token_ids])]
    expected = assistant.ask("Hello", sampling=Sampling(max_tokens=6)).text
    assert texts == [expected] * 3


def test_a_list_of_prompts_gives_each_its_choices_in_order(server: Running) -> None:
    alone = [complete(server, prompt=prompt, n=2, seed=1)["choices"] for prompt in ("One", "Two three")]
    together = complete(server, prompt=["One", "Two three"], n=2, seed=1)
    assert [choice["text"] for choice in together["choices"]] == [one["text"] for own in alone for one in own]
    assert [choice["index"] for choice in together["choices"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_an_echoed_prompt_has_the_log_probabilities_of_a_whole_pass(
    server: Running, assistant: Assistant, max_tokens: int
) -> None:
    token_ids = assistant.processor.tokenizer.encode("The quick brown fox", allow_special=False)
    reply = complete(server, prompt=[token_ids], echo=True, logprobs=1, max_tokens=max_tokens)
    (choice,) = reply["choices"]
    logprobs = choice["logprobs"]
    expected = torch.log_softmax(assistant.logits(token_ids).float(), dim=-1)
    assert logprobs["token_logprobs"][0] is None
    found = logprobs["token_logprobs"][1 : len(token_ids)]
    wanted = [float(expected[place, token_id]) for place, token_id in enumerate(token_ids[1:])]
    assert found == pytest.approx(wanted, abs=1e-4)
    best = [max(top.values()) for top in logprobs["top_logprobs"][1 : len(token_ids)]]
    assert best == pytest.approx(expected[:-1].max(dim=-1).values.tolist(), abs=1e-4)
    assert len(logprobs["tokens"]) == len(token_ids) + max_tokens
    assert choice["text"].startswith("The quick brown fox")
    assert reply["usage"]["completion_tokens"] == max_tokens
    assert logprobs["text_offset"][: len(token_ids)] == [*range(len(token_ids))]


def test_a_stream_gives_the_same_text(server: Running) -> None:
    with server.client.completions.create(
        model="tiny",
        prompt=["One", "Two"],
        temperature=0,
        max_tokens=6,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    texts = ["".join(c.text for chunk in chunks for c in chunk.choices if c.index == index) for index in range(2)]
    assert texts == [choice["text"] for choice in complete(server, prompt=["One", "Two"])["choices"]]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": [[99999999]]}, "token ids outside"),
        ({"prompt": ""}, "empty"),
        ({"prompt": "<|image_1|>"}, "placeholders"),
        ({"prompt": "x", "logprobs": 99}, "logprobs"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(server: Running, fields: dict[str, Any], complaint: str) -> None:
    reply = server.send("/v1/completions", GREEDY | fields)
    assert reply.status == 400
    assert complaint in reply.json["error"]["message"]


def test_an_echo_stands_in_front_of_the_completion(server: Running, assistant: Assistant) -> None:
    text = complete(server, prompt=PROMPT, echo=True, logprobs=0)["choices"][0]["text"]
    assert text == PROMPT + assistant.ask("Hello", sampling=Sampling(max_tokens=6)).text


def test_offsets_are_those_of_the_text_and_go_on_in_a_stream(server: Running) -> None:
    (choice,) = complete(server, prompt="a🙂b", echo=True, logprobs=0, max_tokens=0)["choices"]
    assert choice["logprobs"]["text_offset"] == [0, 1, 1, 1, 1, 2]
    whole = complete(server, prompt="One", logprobs=0)["choices"][0]["logprobs"]["text_offset"]
    reply = server.send("/v1/completions", GREEDY | {"prompt": "One", "logprobs": 0, "stream": True})
    chunks = [json.loads(event.removeprefix("data: ")) for event in reply.body.decode().split("\n\n")[:-2]]
    assert [place for chunk in chunks for place in chunk["choices"][0]["logprobs"]["text_offset"]] == whole


def test_a_prompt_is_scored_as_often_as_it_is_asked_for(server: Running) -> None:
    choices = complete(server, prompt="abc", echo=True, logprobs=1, max_tokens=0, n=2)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]
    assert choices[0]["logprobs"] == choices[1]["logprobs"]
