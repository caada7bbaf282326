"""The published document is what the server does: its paths, what it takes, and what it answers."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jsonschema_rs
import pytest
from starlette.routing import Route

from phi4.server.app import build_app
from phi4.server.openapi import OPERATIONS, document
from server.running import Reply, Running

DOCUMENT = document(has_key=False)
EXAMPLES = [
    pytest.param(path, example["value"], id=f"{path.rpartition('/')[2]}-{name}")
    for path, operations in DOCUMENT["paths"].items()
    for operation in operations.values()
    for name, example in operation.get("requestBody", {})
    .get("content", {})
    .get("application/json", {})
    .get("examples", {})
    .items()
]


def validator(schema: dict[str, Any]) -> Any:
    return jsonschema_rs.Draft202012Validator(schema | {"components": DOCUMENT["components"]})


def check(reply: Reply, path: str, method: str = "post") -> None:
    """Whether an answer is what the document says of its path and status."""
    described = DOCUMENT["paths"][path][method]["responses"][str(reply.status)]
    content_type = reply.headers["content-type"].partition(";")[0]
    schema = described["content"][content_type]["schema"]
    if content_type == "text/event-stream":
        for event in reply.body.decode().split("\n\n")[:-1]:
            data = event.removeprefix("data: ")
            validator(schema).validate({"data": data})
            if data != "[DONE]":
                validator(schema["properties"]["data"]["anyOf"][1]["contentSchema"]).validate(json.loads(data))
    else:
        validator(schema).validate(reply.json if content_type == "application/json" else reply.body.decode())
    assert {name for name in reply.headers if name.startswith("phi4-")} <= described["headers"].keys()


def test_every_path_of_the_server_is_described_and_no_other(server: Running) -> None:
    routes = [route for route in build_app(server.service).routes if isinstance(route, Route)]
    served = {f"{method} {route.path.replace(':path', '')}" for route in routes for method in route.methods or ()}
    assert set(OPERATIONS) == {one for one in served if not one.startswith("HEAD ")}


@pytest.mark.parametrize(("path", "example"), EXAMPLES)
def test_an_example_is_answered_as_described(server: Running, path: str, example: Any) -> None:
    validator(DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]).validate(example)
    reply = server.send(path, example)
    assert reply.status == 200, reply.body
    check(reply, path)


@pytest.mark.parametrize("path", [place.partition(" ")[2] for place in OPERATIONS if place.startswith("GET ")])
def test_what_is_fetched_is_as_described(server: Running, path: str) -> None:
    check(server.send(path.replace("{name}", "tiny")), path, "get")


@pytest.mark.parametrize("path", [place.partition(" ")[2] for place in OPERATIONS if place.startswith("POST ")])
@pytest.mark.parametrize("body", [b"", b"{", b'{"model": "other", "messages": [], "prompt": "a", "tokens": []}'])
def test_what_is_refused_is_as_described(server: Running, path: str, body: bytes) -> None:
    reply = server.send(path, body)
    assert 400 <= reply.status < 500
    check(reply, path)


def test_the_document_is_open_and_says_whether_a_key_is_needed(
    start: Callable[..., AbstractContextManager[Running]],
) -> None:
    with start(api_key="secret") as server:
        described = server.send("/openapi.json").json
        assert described["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
        assert described["paths"]["/health"]["get"]["security"] == []
        assert not any(operation["security"] for path in DOCUMENT["paths"].values() for operation in path.values())
