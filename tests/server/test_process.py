"""The server as a process of its own: how it starts, drains and stops."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse, IncompleteRead, RemoteDisconnected
from typing import Any

import pytest

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_once_and_quietly_at_the_second_signal(launch: Launch, number: signal.Signals) -> None:
    server = launch()
    stream = begin_stream(server, max_tokens=7000)
    server.process.send_signal(number)
    wait_until(lambda: status(server.ask(path="/health")) == 503)
    log = server.log.read_text()
    server.process.send_signal(number)
    assert server.process.wait(WAIT_S) == 128 + number
    assert all('"GET /health' in line for line in server.log.read_text()[len(log) :].splitlines())
    with pytest.raises((IncompleteRead, ConnectionError)):
        stream.read()


def test_clients_of_a_killed_server_see_it_and_the_next_one_serves_at_once(launch: Launch) -> None:
    first = launch()
    expected = first.ask(LONG).read()
    with ThreadPoolExecutor(6) as pool:
        streams = [begin_stream(first, max_tokens=7000) for _ in range(6)]
        whole = [pool.submit(lambda: status(first.ask(LONG | {"max_tokens": 7000}))) for _ in range(6)]
        wait_until(lambda: b"phi4_requests 12.0" in first.ask(path="/metrics").read())
        first.process.kill()
        for stream in streams:
            with pytest.raises((IncompleteRead, ConnectionError)):
                stream.read()
        for one in whole:
            assert isinstance(one.exception(), RemoteDisconnected | ConnectionError)
    first.process.wait(WAIT_S)
    with pytest.raises(ConnectionError):
        first.ask(LONG)
    second = launch("--port", str(first.port))
    again = second.ask(LONG)
    answers = [json.loads(body)["choices"] for body in (expected, again.read())]
    assert answers[0] == answers[1]
    assert b"phi4_requests 0.0" in second.ask(path="/metrics").read()
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(WAIT_S) == 0
