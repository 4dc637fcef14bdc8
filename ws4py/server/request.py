"""The head of an HTTP request, read strictly (RFC 9112). No input and output.

For a server that answers one request in a connection. What two programs could read in two ways, which is what smuggling
lives on, is refused: a bare line feed, a folded line, space before a colon, two Hosts, a body.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from ws4py.exc import HandshakeError

__all__ = ["MAX_HEADERS", "RequestHead", "RequestParser"]

MAX_HEADERS: Final = 128
"""The most lines of headers in a request."""

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = re.compile(r"[\x21-\x22\x24-\x7e]+")  # what is visible in ASCII, and no fragment
_VERSION: Final = re.compile(r"HTTP/([0-9])\.([0-9])")
_FORBIDDEN_IN_VALUES: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BARE_LINE_FEED: Final = re.compile(rb"(?:\A|[^\r])\n")
_SCHEMES: Final = frozenset({"http", "https", "ws", "wss"})
_ONCE: Final = ("host", "content-length", "transfer-encoding", "sec-websocket-key", "sec-websocket-version")
"""Headers that a request has at most once."""


class RequestHead(NamedTuple):
    """What stands in the head of a request."""

    method: str
    path: str
    """As it was sent, in percents."""
    query: str
    http_version: tuple[int, int]
    headers: dict[str, str]
    """Names are in lower case; the values of repeated ones are joined by commas."""


class RequestParser:
    """Reads the head of a request from bytes that come in any cuts; none is looked at twice.

    :param max_size: how many bytes it may have.
    :ivar rest: the bytes after it, which belong to the websocket.
    """

    __slots__ = ("_data", "_max_size", "_searched", "rest")

    def __init__(self, max_size: int) -> None:
        self.rest = b""
        self._max_size = max_size
        self._data = bytearray()
        self._searched = 0  # before this neither the head nor a bare line feed ends

    def receive(self, data: bytes) -> RequestHead | None:
        """Take bytes in; return the head, or None if more are needed.

        :raises HandshakeError: if it can't be taken: 400; 413 for a body; 431 if it is too large; 505 for a version of
            HTTP that is not spoken.
        """
        self._data += data
        buffer, start = self._data, max(0, self._searched - 3)
        end = buffer.find(b"\r\n\r\n", start, self._max_size)
        if _BARE_LINE_FEED.search(buffer, start, end if end >= 0 else len(buffer)):
            raise HandshakeError("A line of the request does not end with CR and LF")
        if end < 0:
            if len(buffer) >= self._max_size:
                raise HandshakeError(f"The head of the request is over {self._max_size} bytes", 431)
            if not buffer[:1].isalpha():
                raise HandshakeError("This is no request of HTTP")
            self._searched = len(buffer)
            return None
        self.rest = bytes(buffer[end + 4 :])
        return _parse(buffer[:end].decode("latin-1"))


def _parse(text: str) -> RequestHead:
    first, *lines = text.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]):
        raise HandshakeError("The first line is not that of a request")
    method, target, protocol = words
    version = _VERSION.fullmatch(protocol)
    if version is None:
        raise HandshakeError("The first line is not that of a request")
    if version[1] != "1":
        raise HandshakeError("HTTP/1.1 is spoken here", 505)
    http_version = 1, int(version[2])
    headers = _parse_headers(lines)
    if "host" not in headers and http_version >= (1, 1):
        raise HandshakeError("Header Host is not defined")
    authority, path, query = _parse_target(target)
    if authority:
        headers["host"] = authority  # it holds in place of the header (RFC 9112, section 3.2.2)
    _check_body(headers)
    return RequestHead(method, path, query, http_version, headers)


def _parse_headers(lines: list[str]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        raise HandshakeError(f"The request has over {MAX_HEADERS} headers", 431)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or _FORBIDDEN_IN_VALUES.search(value):
            raise HandshakeError("A line of the request is not a header")
        name, value = name.lower(), value.strip(" \t")
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            raise HandshakeError(f"Header {name.title()} is there twice")
        else:
            headers[name] = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}"
    return headers


def _parse_target(target: str) -> tuple[str, str, str]:
    """Return the authority that a target names, if it does, the path and the query."""
    if not _TARGET.fullmatch(target):
        raise HandshakeError("The target of the request has characters that may not be there")
    authority = ""
    if not target.startswith("/"):
        try:
            parts = urlsplit(target)
        except ValueError:
            raise HandshakeError("The target of the request is malformed") from None
        authority = parts.netloc.rpartition("@")[2]
        if parts.scheme not in _SCHEMES or not authority:
            raise HandshakeError("The target of the request is neither a path nor the address of one")
        target = target.partition("://")[2][len(parts.netloc) :]
        if not target.startswith("/"):
            target = f"/{target}"
    path, _, query = target.partition("?")
    return authority, path, query


def _check_body(headers: dict[str, str]) -> None:
    """Refuse a request that has a body: what is behind its head would be taken for frames."""
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers:
        raise HandshakeError("A request that has a body is not taken here", 400 if "content-length" in headers else 413)
    if not (length.isascii() and length.isdigit()):
        raise HandshakeError("Header Content-Length is not a number")
    if int(length[:20]):
        raise HandshakeError("A request that has a body is not taken here", 413)
