"""Fetches media from addresses in requests, and from nowhere inside the network that the server stands in.

A stranger chooses the address, so it must not lead to machines that only the server can reach. A name is resolved once,
every address it has is checked, and the connection goes to the address that was checked: a name that changes its mind
in between gains nothing. Redirects are followed by hand and checked the same way.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from urllib.parse import SplitResult, urljoin, urlsplit

from phi4.errors import InputError

MAX_REDIRECTS = 3
# IPv6 addresses that stand for IPv4 ones, private ones too: NAT64, 6to4, Teredo (RFC 6052, 3056, 4380).
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))
_PORTS = {"http": 80, "https": 443}


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: not private, loopback, link-local or reserved."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if any(parsed in network for network in _TRANSLATED):
            return False
        parsed = parsed.ipv4_mapped or parsed
    return parsed.is_global and not parsed.is_multicast


def fetch(url: str, max_bytes: int, timeout_s: float, is_allowed: Callable[[str], bool] = is_public) -> bytes:
    """Fetches the content behind an http or https address.

    Args:
        url: the address.
        max_bytes: most bytes that it may have.
        timeout_s: for all of it, redirects included.
        is_allowed: whether an IP address may be connected to.

    Raises:
        InputError: the address is not usable or not allowed, or what is there is too large, too slow or an error.
    """
    deadline = time.monotonic() + timeout_s
    try:
        for _ in range(MAX_REDIRECTS + 1):
            content, redirect = _fetch_once(_split(url), max_bytes, deadline, is_allowed)
            if redirect is None:
                return content
            url = urljoin(url, redirect)
    except TimeoutError as error:
        raise InputError(f"the medium was not there within {timeout_s:g} s; send it as a data URI") from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise InputError(f"the medium cannot be fetched: {error or type(error).__name__}") from error
    raise InputError(f"the medium's address redirects more than {MAX_REDIRECTS} times")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _PORTS and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or any(character.isspace() or not character.isprintable() for character in url):
        raise InputError("a medium's address must begin with http:// or https:// and name a host; a data URI works too")
    return parts


def _fetch_once(
    parts: SplitResult, max_bytes: int, deadline: float, is_allowed: Callable[[str], bool]
) -> tuple[bytes, str | None]:
    """One exchange: the content, and where it redirects to, if it does."""
    sock = _connect(parts, deadline, is_allowed)
    # A time limit of the socket holds for each packet; a server that drips must not take all the time there is.
    watch = threading.Timer(_remaining(deadline), socket.socket.shutdown, (sock, socket.SHUT_RDWR))
    watch.daemon = True
    watch.start()
    try:
        result = _exchange(sock, parts, max_bytes)
        _remaining(deadline)
        return result
    except (OSError, http.client.HTTPException):
        _remaining(deadline)
        raise
    finally:
        watch.cancel()
        sock.close()


def _exchange(sock: socket.socket, parts: SplitResult, max_bytes: int) -> tuple[bytes, str | None]:
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port or _PORTS[parts.scheme])
    connection.sock = sock
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", path, headers={"Accept": "image/*, audio/*", "User-Agent": "phi4", "Connection": "close"})
    with connection.getresponse() as response:
        if response.status in (301, 302, 303, 307, 308) and (location := response.headers["Location"]):
            return b"", location
        if response.status != 200:
            raise InputError(f"the medium's address answers with status {response.status}")
        content = response.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise InputError(f"the medium has more than {max_bytes:,} bytes, which is the most that is fetched")
    return content, None


def _connect(parts: SplitResult, deadline: float, is_allowed: Callable[[str], bool]) -> socket.socket:
    """Connects to an address of the host that was checked."""
    assert parts.hostname is not None
    port = parts.port or _PORTS[parts.scheme]
    addresses = _resolve(parts.hostname, port, deadline)
    if not all(isinstance(address, str) and is_allowed(address) for address in addresses):
        raise InputError(f"media are fetched from the public internet only, and {parts.hostname} is elsewhere")
    sock = socket.create_connection((str(addresses[0]), port), timeout=_remaining(deadline))
    try:
        sock.settimeout(_remaining(deadline))
        if parts.scheme == "https":
            return ssl.create_default_context().wrap_socket(sock, server_hostname=parts.hostname)
    except BaseException:
        sock.close()
        raise
    return sock


def _resolve(host: str, port: int, deadline: float) -> list[str | int]:
    """Asks for the addresses of a host in a thread that is left behind when it is late: resolvers know no deadline."""
    found: Future[list[str | int]] = Future()

    def ask() -> None:
        try:
            found.set_result([info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except (OSError, UnicodeError) as error:
            found.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return found.result(_remaining(deadline))


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining
