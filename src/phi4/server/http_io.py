"""Bodies of requests, streams of events, and clients that hang up."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from phi4.errors import ClosedError
from phi4.server.admission import RETRY_AFTER_S
from phi4.server.errors import ErrorBody, ErrorResponse, RefusedError, describe_error

_Result = TypeVar("_Result")

DONE = b"data: [DONE]\n\n"
# How long the rest of a body that is too large is read and dropped: a client that is still sending would not see why it
# was refused.
DROP_S = 20.0
# How long a body may take to arrive.
BODY_S = 60.0


class HungUpError(Exception):
    """The client is gone: nobody is there to answer."""


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A struct as JSON."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def error_response(error: Exception) -> Response:
    """An error in OpenAI's shape."""
    status, body = describe_error(error)
    headers = error.headers if isinstance(error, RefusedError) else {}
    if isinstance(error, ClosedError):
        headers = {"Retry-After": str(RETRY_AFTER_S)}
    return json_response(ErrorResponse(body), status, headers)


async def refuse_unread(error: RefusedError, receive: Receive, send: Send) -> None:
    """Refuses a request before its body is read. What the client is still sending is dropped, so that it sees why."""
    response = error_response(error)
    response.headers["connection"] = "close"
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    await _drop_rest(receive, {"more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def read_json_body(request: Request) -> bytearray:
    """Reads the body of a request that must be JSON. The request does not keep it.

    Raises:
        RefusedError: it is declared to be something else, or is too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # A page of another site may send other kinds to this server without asking it first.
    if kind != "application/json":
        message = f"the body must have the content type application/json, not {kind or 'none'!r}"
        raise RefusedError(415, ErrorBody(message, "invalid_request_error"))
    body = bytearray()
    async for piece in request.stream():
        body += piece
    return body


def too_large_error(max_bytes: int) -> RefusedError:
    """What the sender of a body that is too large is told."""
    text = f"the request has more than {max_bytes:,} bytes, which is the most that this server takes"
    return RefusedError(413, ErrorBody(text, "invalid_request_error", code="request_too_large"))


def bounded(receive: Receive, max_bytes: int) -> Receive:
    """A way to receive a body that refuses one with more bytes, with status 413, or a slow one, with status 408."""
    num_bytes = 0
    deadline: float | None = asyncio.get_running_loop().time() + BODY_S

    async def receive_bounded() -> Message:
        nonlocal num_bytes, deadline
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            text = f"the request was not there within {BODY_S:g} s"
            raise RefusedError(408, ErrorBody(text, "invalid_request_error")) from None
        if not message.get("more_body"):
            deadline = None  # what comes now is at most a client that hangs up
        num_bytes += len(message.get("body", b""))
        if num_bytes > max_bytes:
            await _drop_rest(receive, message)
            raise too_large_error(max_bytes)
        return message

    return receive_bounded


async def until_hung_up(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Does some work, and stops it when the client hangs up. The body must have been read.

    Raises:
        HungUpError: the client is gone.
    """
    return await _unless_hung_up(request.receive, work)


class EventStream(Response):
    """Server-sent events. `close` is called whatever ends them, a client that hangs up included."""

    def __init__(
        self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str], close: Callable[[], None]
    ) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self.headers["content-type"] = "text/event-stream; charset=utf-8"
        self.headers["cache-control"] = "no-cache"
        self._events = events
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events as they come."""
        try:
            with contextlib.suppress(HungUpError):
                await _unless_hung_up(receive, self._send(send))
        finally:
            self._close()
            await self._events.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for event in self._events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        except Exception as error:
            _, body = describe_error(error)
            await send({"type": "http.response.body", "body": event_of(ErrorResponse(body)), "more_body": True})
            if body.type == "server_error":
                raise
        finally:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def event_of(value: Any) -> bytes:
    """A struct as one server-sent event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


async def _unless_hung_up(receive: Receive, work: Coroutine[Any, Any, _Result]) -> _Result:
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_wait_for_hang_up(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise HungUpError
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _wait_for_hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drop_rest(receive: Receive, message: Message) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DROP_S):
            while message.get("more_body"):
                message = await receive()
