"""Models, token counts, health and numbers."""

from phi4 import Assistant, Message
from server.running import Running, picture_part, text_part, user


def test_the_base_and_each_pack_are_listed(server: Running) -> None:
    cards = server.send("/v1/models").json["data"]
    assert [(card["id"], card["parent"], card["modality"]) for card in cards] == [
        ("tiny", None, None),
        ("tiny:vision", "tiny", "vision"),
        ("tiny:speech", "tiny", "speech"),
    ]
    assert server.send("/v1/models/tiny:speech").json == cards[2]
    assert server.send("/v1/models/other").status == 404


def test_tokens_are_counted_as_the_chat_counts_them(server: Running, assistant: Assistant) -> None:
    messages = user(picture_part(), text_part("What?"))
    counted = server.send("/tokenize", {"messages": messages}).json
    answered = server.send("/v1/chat/completions", {"messages": messages, "max_tokens": 1}).json
    assert counted["count"] == len(counted["tokens"]) == answered["usage"]["prompt_tokens"]
    plain = server.send("/tokenize", {"messages": user("Hello")}).json["tokens"]
    assert tuple(plain) == assistant.processor.prepare([Message("user", "Hello")]).token_ids


def test_tokens_become_the_text_that_they_came_from(server: Running) -> None:
    text = "<|user|>Ünï🙂<|end|>"
    tokens = server.send("/tokenize", {"prompt": text}).json["tokens"]
    assert server.send("/detokenize", {"tokens": tokens}).json == {"prompt": text}
    assert server.send("/detokenize", {"tokens": [-1]}).status == 400


def test_health_is_open_and_numbers_are_told(server: Running) -> None:
    assert server.send("/health").json == {"status": "ok"}
    server.send("/v1/chat/completions", {"messages": user("Hello"), "max_tokens": 3})
    text = server.send("/metrics").body.decode()
    numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(numbers["phi4_generated_tokens_total"]) >= 3
    assert float(numbers["phi4_first_token_seconds_count"]) >= 1
    assert float(numbers["phi4_token_gap_seconds_count"]) >= 2
    assert float(numbers['phi4_http_responses_total{path="/v1/chat/completions",status="200"}']) >= 1
    for name in ("phi4_rows_waiting", "phi4_cache_use_ratio", "phi4_preemptions_total", "phi4_rotary_switches_total"):
        assert float(numbers[name]) >= 0


def test_what_does_not_exist_is_said_in_the_same_shape(server: Running) -> None:
    nothing = server.send("/v2/nothing")
    assert (nothing.status, nothing.json["error"]["type"]) == (404, "not_found_error")
    assert server.send("/v1/models", {}).status == 405
    unlabelled = server.send("/v1/chat/completions", b"{}", headers={"content-type": "text/plain"})
    assert unlabelled.status == 415
