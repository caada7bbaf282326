"""The application: which path is answered by what, who may ask, and how errors are told."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phi4.errors import Phi4Error
from phi4.server.chat import chat_completions
from phi4.server.completions import completions
from phi4.server.errors import ErrorBody, ErrorType, RefusedError
from phi4.server.http_io import HungUpError, bounded, error_response, refuse_unread, too_large_error
from phi4.server.listing import detokenize, list_models, show_model, tokenize, tokenizer_info
from phi4.server.monitoring import health, metrics
from phi4.server.openapi import openapi
from phi4.server.page_files import page_paths, page_routes
from phi4.server.service import Service
from phi4.server.transcriptions import transcriptions, translations

# What anybody may have, key or not.
OPEN_PATHS = frozenset({"/health", "/openapi.json"}) | page_paths()


def build_app(service: Service) -> Starlette:
    """Builds the application around a service."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
            Route("/v1/audio/translations", translations, methods=["POST"]),
            Route("/v1/models", list_models, methods=["GET"]),
            Route("/v1/models/{name:path}", show_model, methods=["GET"]),
            Route("/tokenize", tokenize, methods=["POST"]),
            Route("/detokenize", detokenize, methods=["POST"]),
            Route("/tokenizer_info", tokenizer_info, methods=["GET"]),
            Route("/health", health, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
            Route("/openapi.json", openapi, methods=["GET"]),
            *page_routes(),
        ],
        middleware=[Middleware(Gate, service=service)],
        exception_handlers={
            Phi4Error: _tell,
            RefusedError: _tell,
            HTTPException: _tell_http,
            HungUpError: _tell_nobody,
            ClientDisconnect: _tell_nobody,
            Exception: _tell,
        },
        lifespan=lifespan,
    )
    app.state.service = service
    return app


class Gate:
    """What every request passes first: it needs the key, and room for its body; its status is counted."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Only paths that exist as they are: a client must not be able to invent labels.
                path = scope["path"] if "endpoint" in scope and not scope["path_params"] else "other"
                self._service.metrics.responses.labels(path, str(message["status"])).inc()
            await send(message)

        headers = Headers(scope=scope)
        if not self._may_enter(scope["path"], headers):
            await error_response(wrong_key_error())(scope, receive, count)
            return
        max_bytes = self._service.limits.max_body_bytes
        num_bytes = max_bytes if "transfer-encoding" in headers else int(headers.get("content-length", 0))
        try:
            if num_bytes > max_bytes:
                raise too_large_error(max_bytes)
            room = await self._service.bodies.take(num_bytes)
        except RefusedError as error:
            await refuse_unread(error, receive, count)
            return

        async def leave_and_count(message: Message) -> None:
            # Of a stream whose first token is there nothing else is needed any more.
            room.leave()
            await count(message)

        try:
            await self._app(scope, bounded(receive, max_bytes), leave_and_count)
        finally:
            room.leave()

    def _may_enter(self, path: str, headers: Headers) -> bool:
        key = self._service.api_key
        return key is None or path in OPEN_PATHS or is_key(headers.get("authorization", ""), key)


def is_key(authorization: str, key: str) -> bool:
    """Whether a header holds the key; how long that takes tells nothing about it."""
    scheme, _, given = authorization.partition(" ")
    # Headers arrive as Latin-1, whatever they are.
    digests = [hashlib.sha256(text).digest() for text in (given.strip().encode("latin-1"), key.encode())]
    return hmac.compare_digest(*digests) and scheme.lower() == "bearer"


def wrong_key_error() -> RefusedError:
    """What a client without the key is told."""
    message = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
    body = ErrorBody(message, "authentication_error", code="invalid_api_key")
    return RefusedError(401, body, {"WWW-Authenticate": "Bearer"})


async def _tell(_: Request, error: Exception) -> Response:
    return error_response(error)


async def _tell_http(request: Request, error: Exception) -> Response:
    """Paths and methods that do not exist."""
    assert isinstance(error, HTTPException)
    message = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.url.path} is not asked with {request.method}",
    }.get(error.status_code, error.detail)
    kind: ErrorType = "not_found_error" if error.status_code == 404 else "invalid_request_error"
    return error_response(RefusedError(error.status_code, ErrorBody(message, kind), error.headers or {}))


async def _tell_nobody(_: Request, error: Exception) -> Response:
    """The client is gone; 499 is what proxies write into their logs for that."""
    return Response(status_code=499)
