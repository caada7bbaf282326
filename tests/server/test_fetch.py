"""Remote media: from the public internet only, whatever names and redirects say, and neither too large nor too slow."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from phi4.errors import InputError
from phi4.server import media
from phi4.server.conversation import read_conversation
from phi4.server.fetch import fetch, is_public
from phi4.server.limits import ServerLimits
from phi4.server.schema import ChatMessage, ImagePart, ImageUrl
from server.running import picture_bytes


class Site(http.server.BaseHTTPRequestHandler):
    """Pages that behave and pages that do not."""

    def do_GET(self) -> None:
        match self.path:
            case "/picture":
                self.answer(200, picture_bytes())
            case "/inside":
                self.answer(302, b"", location="http://127.0.0.2:1/secret")
            case "/circle":
                self.answer(302, b"", location="/circle")
            case "/moved":
                self.answer(301, b"", location="/picture")
            case "/drip":
                self.send_response(200)
                self.end_headers()
                try:
                    for _ in range(200):
                        self.wfile.write(b"x")
                        time.sleep(0.05)
                except OSError:
                    pass
            case "/slow-head":
                try:
                    for _ in range(200):
                        self.wfile.write(b"H")
                        time.sleep(0.05)
                except OSError:
                    pass
            case _:
                self.answer(404, b"")

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def is_the_site(address: str) -> bool:
    return address == "127.0.0.1"


@pytest.mark.parametrize("path", ["/picture", "/moved"])
def test_a_medium_is_fetched_through_redirects(site: str, path: str) -> None:
    assert fetch(site + path, 10**6, 10.0, is_the_site) == picture_bytes()


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/inside", "127.0.0.2 is elsewhere"),
        ("/circle", "redirects more than 3"),
        ("/missing", "status 404"),
        ("/drip", "within 0.5 s"),
        ("/slow-head", "within 0.5 s"),
    ],
)
def test_pages_that_misbehave_are_refused(site: str, path: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        fetch(site + path, 10**6, 0.5, is_the_site)


def test_a_medium_that_is_too_large_is_refused(site: str) -> None:
    size = len(picture_bytes())
    assert len(fetch(site + "/picture", size, 10.0, is_the_site)) == size
    with pytest.raises(InputError, match="more than"):
        fetch(site + "/picture", size - 1, 10.0, is_the_site)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "::1", "::", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1",
        "ff02::1",
    ],
)  # fmt: skip
def test_addresses_inside_a_network_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_other_addresses_are_public(address: str) -> None:
    assert is_public(address)


def test_a_name_is_judged_by_all_addresses_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(InputError, match=r"innocent\.example is elsewhere"):
        fetch("http://innocent.example/", 10, 1.0)


@pytest.mark.parametrize(
    "url", ["http://", "ftp://x/", "http://x:99999/", "http://[::1", "http://x/a b", "http://x/\r\nHost: y", "gopher:x"]
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="must begin with http"):
        fetch(url, 10, 1.0)


def test_nothing_is_fetched_unless_it_is_allowed(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = ServerLimits()
    with pytest.raises(InputError, match="--allow-remote-media"):
        media.read_address(site + "/picture", limits)
    with pytest.raises(InputError, match="elsewhere"):
        media.read_address(site + "/picture", replace(limits, allow_remote_media=True))


def test_a_name_that_nobody_knows_in_time_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(30) and [])
    with pytest.raises(InputError, match=r"not there within 0\.2 s"):
        fetch("http://slow.example/picture.png", 1000, timeout_s=0.2)
    answered.set()


def test_a_name_that_does_not_exist_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(InputError, match=r"cannot be fetched.*not known"):
        fetch("http://nowhere.example/picture.png", 1000, timeout_s=5)


def test_data_uris_are_read_in_both_forms() -> None:
    limits = ServerLimits()
    assert media.read_address("data:text/plain,a%20b", limits) == b"a b"
    assert media.read_address("DATA:image/png;base64,YWI%3D", limits) == b"ab"
    for broken in ("data:image/png;base64", "data:image/png;base64,!!", "data:;base64,YQ"):
        with pytest.raises(InputError):
            media.read_address(broken, limits)


def test_few_media_are_fetched_for_one_request() -> None:
    part = ImagePart(ImageUrl("http://127.0.0.1/a.png"))
    with pytest.raises(InputError, match="17 media would have to be fetched"):
        read_conversation([ChatMessage("user", [part] * 17)], ServerLimits(allow_remote_media=True))
