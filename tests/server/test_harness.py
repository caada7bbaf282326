"""What lm-evaluation-harness asks of a server, request by request, without it (tests/eval/test_harness.py has it)."""

from typing import Any

import pytest

from phi4 import Assistant, Sampling
from phi4.eval.likelihood import Continuation, encode_continuation, score_continuations
from server.running import Running, user

# Two of them have the same beginning; the last is followed by an end token (see below).
PAIRS = (("What can fly?", " a bird"), ("What can fly?", " a dog that barks"), ("", "The sea"))


def ask_for_scores(server: Running, pieces: list[Continuation]) -> list[dict[str, Any]]:
    """`LocalCompletionsAPI._create_payload` without `generate`: batches of token ids."""
    prompts = [[*one.context, *one.scored] for one in pieces]
    fields = {"model": "tiny", "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}
    reply = server.send("/v1/completions", {"prompt": prompts, **fields}, headers={"Authorization": "Bearer "})
    assert reply.status == 200, reply.body
    choices: list[dict[str, Any]] = sorted(reply.json["choices"], key=lambda choice: choice["index"])
    return choices


def test_continuations_have_the_log_likelihoods_that_the_engine_gives(server: Running, assistant: Assistant) -> None:
    tokenizer, generation = assistant.processor.tokenizer, assistant.loaded.generation
    ended = next(
        (first, first + 1)
        for first in range(32, 126)
        if int(assistant.logits([first, first + 1])[-1].argmax()) in generation.eos_token_ids
    )
    pieces = [encode_continuation(tokenizer, *pair, generation.prefix_id) for pair in PAIRS]
    pieces.append(Continuation(ended[:1], ended[1:]))
    for one, expected, choice in zip(
        pieces, score_continuations(server.service.engine, pieces), ask_for_scores(server, pieces), strict=True
    ):
        # The harness leaves out the context, and the last token, which it takes for the generated one.
        places = slice(len(one.context), -1)
        found = choice["logprobs"]["token_logprobs"][places]
        assert len(found) == len(one.scored)
        assert sum(found) == pytest.approx(expected.log_likelihood, abs=1e-4)
        best = [max(top.values()) for top in choice["logprobs"]["top_logprobs"][places]]
        assert (found == best) == expected.is_greedy


@pytest.mark.parametrize("prompts", [["One", "Two three"], [[79, 110, 101]]])
def test_prompts_are_continued_up_to_its_stop_strings(
    server: Running, assistant: Assistant, prompts: list[Any]
) -> None:
    """`LocalCompletionsAPI._create_payload` with `generate`."""
    stop = ["\n\n", assistant.processor.tokenizer.decode([assistant.loaded.generation.prefix_id], skip_special=False)]
    fields = {"model": "tiny", "max_tokens": 6, "temperature": 0, "stop": stop, "seed": 1234}
    reply = server.send("/v1/completions", {"prompt": prompts, **fields})
    assert reply.status == 200, reply.body
    texts = {choice["index"]: choice["text"] for choice in reply.json["choices"]}
    for place, prompt in enumerate(prompts):
        alone = server.send("/v1/completions", {"prompt": prompt, "max_tokens": 6, "temperature": 0}).json
        assert texts[place] == alone["choices"][0]["text"]


def test_a_chat_is_answered_up_to_its_stop_strings(server: Running, assistant: Assistant) -> None:
    """`LocalChatCompletion._create_payload`; where a task has no stop strings, there is an empty list."""
    for stop in ([], ["\n\n"]):
        fields = {"model": "tiny", "max_tokens": 6, "temperature": 0, "stop": stop, "seed": 1234}
        reply = server.send("/v1/chat/completions", {"messages": user("Hello"), **fields})
        assert reply.status == 200, reply.body
        expected = assistant.ask("Hello", sampling=Sampling(max_tokens=6), stop=stop).text
        assert reply.json["choices"][0]["message"]["content"] == expected


def test_it_can_encode_with_the_servers_tokenizer(server: Running, assistant: Assistant) -> None:
    """`lm_eval.utils.RemoteTokenizer`: without a token for the beginning, the one for the end stands in front."""
    info = server.send("/tokenizer_info").json
    asked = {"prompt": info["eos_token"], "add_special_tokens": False}
    assert server.send("/tokenize", asked).json["tokens"] == [assistant.loaded.generation.prefix_id]
    assert info["bos_token"] is None
    assert "add_generation_prompt" in info["chat_template"]
