"""`GET /`: a page for chats, three static files without a build step."""

from collections.abc import Awaitable, Callable
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_TYPES = {"index.html": "text/html", "style.css": "text/css", "script.js": "text/javascript"}
# Nothing from other places runs in the page, and no other page may frame it.
_POLICY = "default-src 'self'; img-src 'self' data:; media-src 'self' data:; base-uri 'none'; frame-ancestors 'none'"


def page_routes() -> list[Route]:
    """The page at `/`, and its files below `/page`."""
    return [Route("/" if name == "index.html" else f"/page/{name}", _file(name), methods=["GET"]) for name in _TYPES]


def page_paths() -> frozenset[str]:
    """Where they are; anybody may have them, since the page asks for the key."""
    return frozenset(route.path for route in page_routes())


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = resources.files("phi4.server").joinpath("page", name).read_bytes()
    headers = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}

    async def answer(_: Request) -> Response:
        return Response(content, media_type=_TYPES[name], headers=headers)

    return answer
