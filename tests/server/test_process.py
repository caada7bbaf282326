"""The server as a process of its own: how it starts, drains and stops."""

import signal
from http.client import HTTPResponse
from typing import Any

from phi4.checkpoint.presets import load_preset
from server.process import Launch, Process, status
from server.running import WAIT_S, user, wait_until

# The end tokens of the tiny model, which would end its noise anywhere.
NO_END = {str(token_id): -100 for token_id in load_preset("tiny").generation["eos_token_id"]}
LONG = {"temperature": 0, "max_tokens": 400, "messages": user("Hello"), "logit_bias": NO_END}


def begin_stream(server: Process, **fields: Any) -> HTTPResponse:
    """A stream whose first piece is there."""
    response = server.ask(LONG | fields | {"stream": True})
    assert response.readline().startswith(b"data: ")
    return response


def test_it_drains_at_the_first_signal(launch: Launch) -> None:
    server = launch("--drain-seconds", "600")
    short, long = begin_stream(server), begin_stream(server, max_tokens=7000)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: status(server.ask(path="/health")) == 503)
    assert status(server.ask(LONG)) == 503
    assert short.read().endswith(b"data: [DONE]\n\n")
    long.close()  # a client that hangs up is not waited for
    assert server.process.wait(WAIT_S) == 0
    assert "Traceback" not in server.log.read_text()


def test_it_waits_no_longer_than_it_was_told(launch: Launch) -> None:
    server = launch("--drain-seconds", "0")
    stream = begin_stream(server, max_tokens=7000)
    server.process.send_signal(signal.SIGTERM)
    assert b"is about to stop" in stream.read()
    assert server.process.wait(WAIT_S) == 0


def test_it_stops_at_the_second_signal(launch: Launch) -> None:
    server = launch()
    begin_stream(server, max_tokens=7000)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: status(server.ask(path="/health")) == 503)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(WAIT_S)


def test_it_can_be_killed_and_started_again(launch: Launch) -> None:
    first = launch()
    begin_stream(first)
    first.process.kill()
    first.process.wait(WAIT_S)
    second = launch("--port", str(first.port))
    assert status(second.ask(LONG)) == 200
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(WAIT_S) == 0
