"""Large requests take turns, so that the memory that they take has a bound; small ones pass them by."""

import asyncio
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from phi4.errors import ConfigError
from phi4.server import bodies
from phi4.server.bodies import Bodies
from phi4.server.errors import RefusedError
from phi4.server.limits import ServerLimits
from server.process import Launch, status
from server.running import WAIT_S, Running, user, wait_until

Start = Callable[..., AbstractContextManager[Running]]
MIB = 2**20
HELLO = {"messages": user("Hello"), "max_tokens": 2}


def open_upload(server: Running, num_bytes: int, sent: bytes = b"{") -> socket.socket:
    """Declares a body, and sends only the beginning of it."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json"]
    connection.sendall("\r\n".join([*head, f"Content-Length: {num_bytes}", "", ""]).encode() + sent)
    return connection


def test_bodies_come_in_the_order_of_their_arrival() -> None:
    async def run() -> None:
        room = Bodies(10 * MIB)
        first, second = await room.take(6 * MIB), await room.take(4 * MIB)
        waiting = [asyncio.create_task(room.take(size * MIB)) for size in (8, 1)]
        await asyncio.sleep(0)
        second.leave()
        second.leave()
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)  # the small one does not overtake: the large one would starve
        first.leave()
        for task in waiting:
            (await task).leave()
        assert room.num_bytes == 0

    asyncio.run(run())


def test_who_gives_up_waiting_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "TURN_S", 0.05)

    async def run() -> None:
        room = Bodies(MIB)
        held = await room.take(MIB)
        with pytest.raises(RefusedError) as refused:
            await room.take(MIB)
        assert (refused.value.status, refused.value.body.code) == (429, "bodies_full")
        cancelled = asyncio.create_task(room.take(MIB))
        await asyncio.sleep(0)
        late = asyncio.create_task(room.take(MIB))
        await asyncio.sleep(0)
        held.leave()
        cancelled.cancel()  # its turn had just come
        (await late).leave()
        assert (room.num_bytes, cancelled.cancelled()) == (0, True)

    asyncio.run(run())


def test_small_requests_pass_while_large_ones_wait(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    with start(ServerLimits(max_body_bytes=MIB, max_bodies_bytes=2 * MIB)) as server:
        uploads = [open_upload(server, MIB) for _ in range(3)]
        wait_until(lambda: server.service.bodies.num_bytes == 2 * MIB)
        assert server.send("/v1/chat/completions", HELLO).status == 200
        monkeypatch.setattr(bodies, "TURN_S", 0.05)
        refused = server.send("/v1/chat/completions", HELLO | {"user": "x" * 100_000})
        assert (refused.status, refused.json["error"]["code"]) == (429, "bodies_full")
        assert int(refused.headers["retry-after"]) > 0
        for one in uploads:
            one.close()
        wait_until(lambda: server.service.bodies.num_bytes == 0)
        assert server.send("/v1/chat/completions", HELLO | {"user": "x" * 100_000}).status == 200
        assert server.service.bodies.num_bytes == 0


def test_a_stream_gives_its_room_back_with_its_first_token(server: Running) -> None:
    body = b'{"stream": true, "max_tokens": 4000, "temperature": 0, "messages": [{"role": "user", "content": "Hi"}],'
    body += b'"user": "' + b"x" * MIB + b'"}'
    connection = open_upload(server, len(body), body)
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert server.service.bodies.num_bytes == 0
    connection.close()
    server.wait_until_idle()


@pytest.mark.parametrize("num_bytes", [10**8, 10**13])
def test_a_body_that_says_that_it_is_too_large_is_refused_before_it_is_sent(server: Running, num_bytes: int) -> None:
    connection = open_upload(server, num_bytes)
    reply = connection.recv(10_000)
    assert reply.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in reply
    connection.close()


def test_all_together_may_have_no_less_than_one() -> None:
    with pytest.raises(ConfigError, match="all together"):
        ServerLimits(max_body_bytes=2, max_bodies_bytes=1)


def peak_bytes(pid: int) -> int:
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024


def test_many_large_bodies_at_once_take_little_memory(launch: Launch) -> None:
    server = launch("--max-body-mb", "16", "--max-bodies-mb", "32")
    body = HELLO | {"user": "x" * (15 * MIB)}
    assert status(server.ask(body)) == 200
    before = peak_bytes(server.process.pid)
    with ThreadPoolExecutor(32) as pool:
        large = [pool.submit(lambda: status(server.ask(body))) for _ in range(32)]
        small = [pool.submit(lambda: status(server.ask(HELLO))) for _ in range(4)]
        assert {one.result() for one in (*large, *small)} == {200}
    # Of 480 MiB sent, 32 are there at a time, and a copy of each while a buffer grows.
    assert peak_bytes(server.process.pid) - before < 100 * MIB
    assert "Traceback" not in server.log.read_text()
