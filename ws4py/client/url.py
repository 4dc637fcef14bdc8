"""The URLs of websockets (RFC 6455, section 3), and of websockets on unix sockets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from ws4py.exc import HandshakeError

__all__ = ["Target", "parse_url", "redirected"]

DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}
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
    password: str | None = None


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
        raise ValueError(f"Invalid scheme in {url!r}: a websocket's URL begins with ws://, wss:// or ws+unix://")
    parts = urlsplit(url)
    path = _UNSAFE.sub(lambda match: quote(match[0]), parts.path) or "/"
    query = "?" + _UNSAFE.sub(lambda match: quote(match[0]), parts.query) if parts.query else ""
    if scheme.endswith("+unix"):
        if "%2f" in parts.netloc.lower():
            return Target(scheme, "localhost", None, path + query, unquote(parts.netloc))
        if parts.path in ("", "/"):
            raise ValueError(f"Invalid URL {url!r}: the path of the unix socket is missing")
        return Target(scheme, "localhost", None, "/" + query, unquote(parts.path))
    try:
        port = parts.port or DEFAULT_PORTS[scheme]
        host = _ascii(parts.hostname or "")
    except ValueError as error:
        raise ValueError(f"Invalid URL {url!r}: {error}") from None
    if not host or not parts.netloc or _UNSAFE.search(host):
        raise ValueError(f"Invalid hostname in {url!r}")
    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Target(scheme, host, port, path + query, None, username, password)


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode()


def host_header(scheme: str, host: str, port: int | None) -> str:
    """Return the value of Host: with the port only if it is not the scheme's own (section 4.1)."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None or port == DEFAULT_PORTS.get(scheme) else f"{name}:{port}"


def redirected(scheme: str, host: str, port: int | None, resource: str, location: str) -> str:
    """Return the URL that a redirection leads to, as one of ws:// or wss://.

    :param location: as the answer has it, absolute or relative to the other parameters.
    :raises HandshakeError: if it leads somewhere else, or away from TLS.
    """
    secure = scheme.startswith("wss")
    base = f"{'https' if secure else 'http'}://{host_header(scheme, host, port)}{resource}"
    url = re.sub(r"(?i)^ws(s?):", r"http\1:", location.strip())
    url = urljoin(base, url)
    match = re.match(r"(?i)http(s?):", url)
    if match is None:
        raise HandshakeError(f"Redirected to {location!r}, which is no websocket")
    if secure and not match[1]:
        raise HandshakeError(f"Redirected from TLS to {location!r}, which is not encrypted")
    return f"ws{match[1].lower()}:{url[match.end() :]}"
