"""The page for chats: its files are there for everybody, and it can do nothing but talk to this server."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager

from server.running import Running


def test_the_page_and_its_files_are_open_and_everything_else_asks_for_the_key(
    start: Callable[..., AbstractContextManager[Running]],
) -> None:
    with start(api_key="secret") as server:
        page = server.send("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        named = re.findall(r'(?:href|src)="(page/[\w.]+)"', page.body.decode())
        assert len(named) == 2
        assert all(server.send(f"/{name}").status == 200 for name in named)
        assert server.send("/v1/models").status == 401


def test_the_page_has_every_part_that_its_script_looks_for(server: Running) -> None:
    page, script = (server.send(path).body.decode() for path in ("/", "/page/script.js"))
    identifiers = set(re.findall(r'id="(\w+)"', page))
    assert set(re.findall(r'\$\("(\w+)"\)', script)) <= identifiers
    assert "innerHTML" not in script
