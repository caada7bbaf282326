"""What must not hurt anybody else: clients that hang up, read slowly, send too much or what explodes."""

import io
import json
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import PIL.Image
import pytest

from phi4.server import http_io
from phi4.server.limits import ServerLimits
from piped_flac import piped_flac
from server.running import (
    WAIT_S,
    Running,
    num_rows,
    picture_bytes,
    picture_part,
    sound_bytes,
    sound_part,
    text_part,
    user,
    wait_until,
)

Start = Callable[..., AbstractContextManager[Running]]
LONG = {"model": "tiny", "temperature": 0, "max_tokens": 4000, "messages": user("Hello")}


def png_of(width: int, height: int) -> bytes:
    """A picture of one colour, which compresses a thousandfold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def open_request(server: Running, body: Any) -> socket.socket:
    """Sends a request by hand, so that the connection can be treated badly."""
    content = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json"]
    connection.sendall("\r\n".join([*head, f"Content-Length: {len(content)}", "", ""]).encode() + content)
    return connection


def test_a_client_that_hangs_up_ends_its_answer(server: Running) -> None:
    for stream in (False, True):
        connection = open_request(server, LONG | {"stream": stream})
        if stream:
            assert connection.recv(100)
        wait_until(lambda: server.service.engine.num_running > 0)
        connection.close()
        server.wait_until_idle()
    assert server.service.admission.num_waiting == 0


def test_others_go_on_while_one_hangs_up(server: Running) -> None:
    alone = server.send("/v1/chat/completions", LONG | {"max_tokens": 40}).json["choices"]
    connection = open_request(server, LONG | {"stream": True})
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(server.send("/v1/chat/completions", LONG | {"max_tokens": 40}).json["choices"])
    )
    thread.start()
    connection.close()
    thread.join()
    assert answers == [alone]
    server.wait_until_idle()


def test_more_requests_than_may_wait_are_told_when_to_come_back(start: Start) -> None:
    with start(ServerLimits(max_waiting=1)) as server:
        release = threading.Event()
        server.service._preparation.submit(release.wait)  # the threads are busy, so that a request has to wait
        for _ in range(3):
            server.service._preparation.submit(release.wait)
        first = open_request(server, LONG | {"max_tokens": 2})
        wait_until(lambda: server.service.admission.num_waiting == 1)
        refused = server.send("/v1/chat/completions", LONG)
        assert (refused.status, refused.json["error"]["type"]) == (429, "rate_limit_error")
        assert int(refused.headers["retry-after"]) > 0
        release.set()
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        first.close()
        server.wait_until_idle()


def test_a_body_of_100_megabytes_is_refused_and_others_go_on(server: Running) -> None:
    body = b'{"messages": "' + b"x" * 100_000_000
    reply = server.send("/v1/chat/completions", body)
    assert (reply.status, reply.json["error"]["code"]) == (413, "request_too_large")
    assert server.send("/v1/chat/completions", LONG | {"max_tokens": 2}).status == 200


def test_a_body_that_does_not_arrive_is_not_waited_for_for_ever(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_io, "BODY_S", 0.2)
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json", "Content-Length: 10"]
    connection.sendall("\r\n".join([*head, "", "{"]).encode())
    assert connection.recv(100).startswith(b"HTTP/1.1 408")
    connection.close()


TOOL_OF_DEPTH = '"tools": [{"name": "f", "parameters": DEPTH}]'
SCHEMA = '"response_format": {"type": "json_schema", "json_schema": {"schema": DEPTH}}'
CALL = '"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": DEPTH}]}]'


@pytest.mark.parametrize(
    ("field", "depth"),
    [
        ('"messages": DEPTH', 50_000),
        (TOOL_OF_DEPTH, 50_000),
        (TOOL_OF_DEPTH, 480),
        (TOOL_OF_DEPTH, 200),
        (SCHEMA, 400),
        (SCHEMA, 20),
        (CALL, 480),
        (CALL.replace("DEPTH", '"{"'), 0),
        ('"messages": [{"role": "user", "content": "\\ud800"}]', 0),
        (SCHEMA.replace("DEPTH", '{"type": "no such type"}'), 0),
        ('"seed": 99999999999999999999', 0),
        ('"temperature": 1e308', 0),
        ('"logit_bias": {"999999999999": 1}', 0),
        ('"logit_bias": {"' + "9" * 5000 + '": 1}', 0),
        ('"stop_token_ids": [-5]', 0),
        ('"max_tokens": 0', 0),
        ('"messages": [{"role": "tool", "content": null}, {"role": "system", "content": []}]', 0),
    ],
)
def test_hostile_requests_are_answered_or_refused_but_break_nothing(server: Running, field: str, depth: int) -> None:
    value = '{"a": [' * depth + "1" + "]}" * depth
    # Of fields that are given twice, the last one counts.
    body = '{"max_tokens": 2, "messages": [{"role": "user", "content": "x"}], FIELD}'.replace("FIELD", field)
    reply = server.send("/v1/chat/completions", body.replace("DEPTH", value).encode())
    assert reply.status in (200, 400), reply.body
    server.wait_until_idle()


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        (lambda: picture_part(png_of(20_000, 20_000)), "pixels"),
        (lambda: picture_part(png_of(9_000, 9_000)), "pixels"),
        (lambda: picture_part(picture_bytes()[:-40]), "image 1"),
        (lambda: picture_part(b"GIF89a" + bytes(50)), "image 1"),
        (lambda: sound_part(sound_bytes(3.0)), "at most 2 s"),
        (lambda: sound_part(piped_flac(np.zeros(48_000))), "at most 2 s"),
        (lambda: sound_part(sound_bytes()[:100]), "audio 1"),
    ],
)
def test_media_that_explode_or_are_damaged_are_refused(start: Start, part: Any, complaint: str) -> None:
    with start(ServerLimits(max_audio_s=2.0)) as server:
        reply = server.send("/v1/chat/completions", LONG | {"messages": user(part(), text_part("What?"))})
        assert reply.status == 400
        assert complaint in reply.json["error"]["message"]
        assert server.send("/v1/chat/completions", LONG | {"max_tokens": 2}).status == 200


def test_a_picture_within_the_limit_is_answered(start: Start) -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (300, 300)).save(file, "PNG")
    with start(ServerLimits(max_image_pixels=90_000)) as server:
        message = {"messages": user(picture_part(file.getvalue())), "max_tokens": 2}
        assert server.send("/v1/chat/completions", message).status == 200


def test_a_prompt_larger_than_the_cache_fails_alone(server: Running) -> None:
    connection = open_request(server, LONG | {"max_tokens": 60, "stream": True})
    reply = server.send("/v1/chat/completions", LONG | {"messages": user("x" * 20_000)})
    assert (reply.status, reply.json["error"]["code"]) == (400, "context_length_exceeded")
    received = b""
    while b"[DONE]" not in received:
        piece = connection.recv(65536)
        assert piece
        received += piece
    connection.close()
    server.wait_until_idle()


def test_a_shorter_context_can_be_set(start: Start) -> None:
    with start(ServerLimits(max_context=40)) as server:
        assert server.send("/v1/models").json["data"][0]["max_model_len"] == 40
        whole = server.send("/v1/chat/completions", LONG).json
        assert whole["usage"]["total_tokens"] == 40
        assert server.send("/v1/chat/completions", LONG | {"messages": user("x" * 50)}).status == 400


def test_the_key_is_asked_for_everywhere_but_at_health(start: Start) -> None:
    with start(api_key="sésame") as server:
        for given in (None, "Bearer wrong", "Bearer ", "Basic s\xc3\xa9same"):
            headers = {} if given is None else {"authorization": given}
            reply = server.send("/v1/models", headers=headers)
            assert (reply.status, reply.json["error"]["code"]) == (401, "invalid_api_key")
        assert server.send("/v1/chat/completions", LONG).status == 401
        assert server.send("/metrics").status == 401
        assert server.send("/health").status == 200
        assert server.send("/v1/models", headers={"authorization": "Bearer s\xc3\xa9same"}).status == 200
        assert num_rows(server.service.engine) == 0


def test_a_request_to_an_engine_that_was_closed_is_told_to_come_back(start: Start) -> None:
    with start() as server:
        server.service.engine.close()
        reply = server.send("/v1/chat/completions", {"messages": user("Hello")})
    assert (reply.status, reply.json["error"]["code"]) == (503, "stopping")
    assert int(reply.headers["retry-after"]) > 0
