"""`GET /health` and `GET /metrics`: for those who watch the server."""

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from phi4.server.http_io import json_response
from phi4.server.responses import Health
from phi4.server.service import service_of


async def health(request: Request) -> Response:
    """Whether the server takes requests: status 200, or 503 when it is about to stop."""
    is_draining = service_of(request).admission.is_draining
    return json_response(Health("stopping" if is_draining else "ok"), 503 if is_draining else 200)


async def metrics(request: Request) -> Response:
    """All numbers in Prometheus's text format."""
    return Response(service_of(request).metrics.expose(), headers={"content-type": CONTENT_TYPE_LATEST})
