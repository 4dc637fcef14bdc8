"""The URLs of websockets (RFC 6455, section 3), and of websockets on unix sockets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from ws4py.exc import HandshakeError
from ws4py.labels import printable

__all__ = ["Target", "host_and_port", "host_header", "parse_url", "redirected", "split_url", "without_login"]

DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}
MAX_HOST: Final = 253
"""The most characters of a name in the DNS (RFC 1035, section 2.3.4: 255 bytes, two more than its text has)."""

_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True)
class Target:
    """Where a websocket is.

    :ivar scheme: ws, wss, ws+unix or wss+unix.
    :ivar host: in ASCII, an IPv6 address without its brackets; localhost for a unix socket.
    :ivar port: None for a unix socket.
    :ivar resource: the path and the query to ask for.
    :ivar unix_socket_path: None for TCP.
    :ivar username: of the URL, decoded; None if it has none.
    :ivar password: likewise.
    """

    scheme: str
    host: str
    port: int | None
    resource: str
    unix_socket_path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def without_login(url: str) -> str:
    """Return a URL, or what was meant to be one, as errors and logs may have it: without the name and the password.

    A password may hold by mistake what ends the host's part of a URL. So of one that makes no sense nothing is left
    before its last ``@``.
    """
    try:
        host, _ = host_and_port(split_url(url))
    except ValueError:
        host = ""
    login = "[^/?#]*@" if host else ".*@"
    return re.sub(rf"(?s)^([^/?#@]*//)?{login}", r"\1...@", url)


def split_url(url: str) -> SplitResult:
    """Split a URL.

    :raises ValueError: if it is none. No part of it is in the text, since that could be the password.
    """
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("it can't be split into its parts") from None


def host_and_port(parts: SplitResult) -> tuple[str, int | None]:
    """Return the host of a URL in ASCII, empty if it has none, and its port, None if none is named.

    :raises ValueError: for a port that is none, or a host that can't be looked up; likewise.
    """
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port is not one from 0 to 65535") from None
    try:
        host = (parts.hostname or "").encode("idna").decode()
    except UnicodeError:
        raise ValueError("its host is no name") from None
    if len(host) > MAX_HOST or _UNSAFE.search(host):
        raise ValueError("its host is no name")
    return host, port


def parse_url(url: str) -> Target:
    """Read a URL: ``ws://[user[:password]@]host[:port][/path][?query]``, ``wss://...``,
    ``ws+unix:///path/of/the.socket``.

    A unix socket's resource is ``/`` with the query, unless the socket's path is the quoted host:
    ``ws+unix://%2Frun%2Fx/chat``.

    :raises ValueError: if it is none of these.
    """
    scheme, colon, _ = url.partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in ("ws", "wss", "ws+unix", "wss+unix"):
        raise ValueError(
            f"Invalid scheme in {without_login(url)!r}: a websocket's URL begins with ws://, wss:// or ws+unix://"
        )
    try:
        parts = split_url(url)
        host, port = ("localhost", None) if scheme.endswith("+unix") else host_and_port(parts)
    except ValueError as error:
        raise ValueError(f"Invalid URL {without_login(url)!r}: {error}") from None
    path = _UNSAFE.sub(lambda match: quote(match[0]), parts.path) or "/"
    query = "?" + _UNSAFE.sub(lambda match: quote(match[0]), parts.query) if parts.query else ""
    if scheme.endswith("+unix"):
        if "%2f" in parts.netloc.lower():
            return Target(scheme, host, None, path + query, unquote(parts.netloc))
        if parts.path in ("", "/"):
            raise ValueError(f"Invalid URL {without_login(url)!r}: the path of the unix socket is missing")
        return Target(scheme, host, None, "/" + query, unquote(parts.path))
    if not host:
        raise ValueError(f"Invalid hostname in {without_login(url)!r}")
    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Target(scheme, host, port or DEFAULT_PORTS[scheme], path + query, None, username, password)


def host_header(scheme: str, host: str, port: int | None) -> str:
    """Return the value of Host: with the port only if it is not the scheme's own (section 4.1)."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None or port == DEFAULT_PORTS.get(scheme) else f"{name}:{port}"


def redirected(scheme: str, host: str, port: int | None, resource: str, location: str) -> str:
    """Return the URL that a redirection leads to, as one of ws:// or wss://.

    :param location: as the answer has it, absolute or relative to the other parameters.
    :raises HandshakeError: if it leads somewhere else, or away from TLS, or is no URL.
    """
    secure = scheme.startswith("wss")
    base = f"{'https' if secure else 'http'}://{host_header(scheme, host, port)}{resource}"
    shown = repr(printable(without_login(location)))
    try:
        url = urljoin(base, re.sub(r"(?i)^ws(s?):", r"http\1:", location.strip()))
    except ValueError:
        raise HandshakeError(f"Redirected to {shown}, which is no URL") from None
    match = re.match(r"(?i)http(s?):", url)
    if match is None:
        raise HandshakeError(f"Redirected to {shown}, which is no websocket")
    if secure and not match[1]:
        raise HandshakeError(f"Redirected from TLS to {shown}, which is not encrypted")
    return f"ws{match[1].lower()}:{url[match.end() :]}"
