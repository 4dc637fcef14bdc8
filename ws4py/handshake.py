"""The opening handshake, in both roles (RFC 6455, section 4). No input and output.

A server calls :func:`negotiate` with the request; it returns an :class:`Acceptance`, or raises
:class:`~ws4py.exc.HandshakeError` with the status of the refusal. A client sends :func:`build_request` and hands what
came back to :func:`parse_response` and :func:`check_response`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from ws4py.exc import HandshakeError
from ws4py.extensions import Agreement, Extension, Parameters
from ws4py.extensions.header import format_extension, parse_extensions

__all__ = [
    "WS_KEY",
    "WS_VERSION",
    "Acceptance",
    "Response",
    "ResponseParser",
    "accept_key",
    "build_request",
    "check_response",
    "format_head",
    "generate_key",
    "is_allowed_host",
    "negotiate",
    "offer_extensions",
    "parse_response",
]

WS_KEY: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""The GUID that a server appends to the client's key (RFC 6455, section 1.3)."""

WS_VERSION: Final = (8, 13)
"""The versions of the protocol that are spoken; their frames are the same."""

MAX_HEAD: Final = 65536
"""The most bytes that the head of a response may have."""

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_STATUS_LINE: Final = re.compile(r"HTTP/1\.([0-9]) ([0-9]{3})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?")
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_FORBIDDEN_IN_VALUES: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HOST: Final = re.compile(r"(\[[^\[\]/?#@\\\s]+\]|[^\[\]/?#@\\\s:]+)(?::([0-9]+))?")


@dataclass(frozen=True)
class Acceptance:
    """What a server grants.

    :ivar headers: of the 101 response, (name, value) each, complete but for what the HTTP server adds.
    :ivar protocol: the one subprotocol chosen, or None.
    :ivar extensions: the extensions accepted, by name.
    :ivar agreement: what came of the one among them that changes messages: its codec is for the stream. None if there
        is none.
    """

    headers: tuple[tuple[str, str], ...]
    protocol: str | None
    extensions: tuple[str, ...]
    agreement: Agreement | None = None


@dataclass(frozen=True)
class Response:
    """The head of an HTTP response; header names are in lower case, repeated ones in their order."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]

    def get_all(self, name: str) -> list[str]:
        """Return the values of a header, by its name in lower case."""
        return [value for key, value in self.headers if key == name]


def generate_key() -> str:
    """Return a new Sec-WebSocket-Key: 16 random bytes in base64."""
    return base64.b64encode(os.urandom(16)).decode()


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + WS_KEY, usedforsecurity=False).digest()).decode()


def _tokens(value: str) -> list[str]:
    """Split a comma-separated list; empty elements are allowed and dropped (RFC 9110, section 5.6.1)."""
    return [item for item in (part.strip(" \t") for part in value.split(",")) if item]


def _names(names: Sequence[str]) -> Sequence[str]:
    """Return names that may have been given as one string, such as a configuration file has."""
    return _tokens(names) if isinstance(names, str) else names


# --- the server -------------------------------------------------------------------------------------------------------


def negotiate(
    method: str,
    headers: Mapping[str, str],
    *,
    protocols: Sequence[str] = (),
    extensions: Sequence[str | Extension] = (),
    origins: Iterable[str] | None = None,
    hosts: Iterable[str] | None = None,
    versions: Sequence[int] = WS_VERSION,
    http_version: tuple[int, int] = (1, 1),
    scheme: str | None = None,
) -> Acceptance:
    """Decide about a request to open a websocket (section 4.2).

    :param method: of the request.
    :param headers: of the request. ``get`` is called with names such as ``Sec-WebSocket-Key``; repeated headers are
        joined by commas.
    :param protocols: the subprotocols that this endpoint speaks, the best first. The client's first wish among them is
        granted.
    :param extensions: those that this endpoint speaks: objects, and the names of those that it leaves to the
        application, which are granted if they are offered without parameters. Of the offers for objects the first that
        is acceptable is granted; none after it, since a message can have the mark of one extension only.
    :param origins: which pages may connect: origins such as ``https://example.org``, ``"*"`` for all. None stands for
        the pages of this host. A request without Origin does not come from a page, and passes.
    :param hosts: by which names this server may be asked: see :func:`is_allowed_host`. None stands for any name.
    :param versions: the protocol versions spoken.
    :param http_version: of the request.
    :param scheme: of the request, ``http`` or ``https``, as the server sees it. If it is https, an http page is not one
        of this host. Nothing follows from http, since a proxy may have ended TLS. An X-Forwarded-Proto takes
        precedence: a proxy sets it, and no page can.
    :raises HandshakeError: with the status of the refusal: 400, 403 (host or origin), 405 (method), 426 (no upgrade
        asked for, or to a version not spoken).
    """
    supported = ", ".join(str(version) for version in sorted(versions, reverse=True))
    if not (1, 1) <= http_version < (2, 0):  # from 2 on there is no Upgrade (RFC 9113, section 8.6)
        raise HandshakeError("A websocket needs HTTP/1.1")
    if method != "GET":
        raise HandshakeError("HTTP method must be a GET", 405, [("Allow", "GET")])
    upgrade_required = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", supported),
    ]
    for name, expected in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        value = headers.get(name) or ""
        if not value:
            raise HandshakeError(f"Header {name} is not defined", 426, upgrade_required)
        if expected not in [token.lower() for token in _tokens(value)]:
            raise HandshakeError(f"Illegal value for header {name}: {value}", 426, upgrade_required)
    version = (headers.get("Sec-WebSocket-Version") or "").strip()
    if version not in [str(spoken) for spoken in versions]:
        raise HandshakeError("Unhandled or missing WebSocket version", 426, upgrade_required)
    key = (headers.get("Sec-WebSocket-Key") or "").strip()
    _check_key(key)
    # The drafts up to the tenth, which are version 8, gave it the longer name.
    origin = headers.get("Origin") or headers.get("Sec-WebSocket-Origin")
    host = headers.get("Host") or ""
    if not is_allowed_host(host, hosts):
        raise HandshakeError(f"Host {host} is not served here", 403)
    forwarded = (headers.get("X-Forwarded-Proto") or "").partition(",")[0].strip()
    _check_origin(origin, host, origins, secure=(forwarded or scheme or "").lower() in ("https", "wss"))
    answer = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(key)),
    ]
    offered = _tokens(headers.get("Sec-WebSocket-Protocol") or "")
    if not all(_TOKEN.fullmatch(name) for name in offered):
        raise HandshakeError("Header Sec-WebSocket-Protocol is malformed")
    protocol = next((name for name in offered if name in _names(protocols)), None)
    if protocol is not None:
        answer.append(("Sec-WebSocket-Protocol", protocol))
    granted, agreement = _choose_extensions(headers.get("Sec-WebSocket-Extensions") or "", extensions)
    if granted:
        elements = [format_extension(name, parameters) for name, parameters in granted]
        answer.append(("Sec-WebSocket-Extensions", ", ".join(elements)))
    return Acceptance(tuple(answer), protocol, tuple(name for name, _ in granted), agreement)


def _choose_extensions(
    value: str, extensions: Sequence[str | Extension]
) -> tuple[list[tuple[str, Parameters]], Agreement | None]:
    """Answer the client's offers in their order, the first of each being the one it likes best (section 9.1)."""
    granted: list[tuple[str, Parameters]] = []
    agreement: Agreement | None = None
    if not value:
        return granted, agreement
    listed, objects = _sort_extensions(extensions)
    names = set(listed)  # that were not granted yet: a client may offer one any number of times
    try:
        offers = parse_extensions(value)
    except ValueError as error:
        raise HandshakeError(str(error)) from None
    for name, parameters in offers:
        extension = objects.get(name)
        if extension is None:
            if name in names and not parameters:
                granted.append((name, ()))
                names.discard(name)
        elif agreement is None:
            chosen = extension.accept(parameters)
            if chosen is not None:
                granted.append((name, chosen[0]))
                agreement = chosen[1]
    return granted, agreement


def _sort_extensions(extensions: Sequence[str | Extension]) -> tuple[list[str], dict[str, Extension]]:
    """Return the extensions that are mere names, and the others by their names."""
    if isinstance(extensions, str):
        return _tokens(extensions), {}
    names = [item for item in extensions if isinstance(item, str)]
    return names, {item.name: item for item in extensions if not isinstance(item, str)}


def _check_key(key: str) -> None:
    if not key:
        raise HandshakeError("Header Sec-WebSocket-Key is not defined")
    try:
        nonce = base64.b64decode(key.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise HandshakeError("WebSocket key is not base64") from None
    if len(nonce) != 16:
        raise HandshakeError("WebSocket key's length is invalid")


def is_allowed_host(host: str, hosts: Iterable[str] | None) -> bool:
    """Tell whether a Host header names one of ``hosts``.

    A page of an attacker whose name has come to mean this server's address (DNS rebinding) is a page of this host to
    every other check, but its requests carry the attacker's name.

    :param host: the header.
    :param hosts: names such as ``example.org`` for any port, or ``example.org:8443``; ``"*"`` or None for all.
    """
    if hosts is None:
        return True
    wanted = [item.lower() for item in ([hosts] if isinstance(hosts, str) else hosts)]
    if "*" in wanted:
        return True
    match = _HOST.fullmatch(host.strip().lower())
    if match is None:
        return False
    name, port = match.groups()
    return name in wanted or any(f"{name}:{number}" in wanted for number in ([port] if port else ["80", "443"]))


def _check_origin(origin: str | None, host: str, origins: Iterable[str] | None, secure: bool) -> None:
    """Refuse a page that may not connect (section 10.2). Ports count: to a browser another port is another origin.

    :param secure: the browser has asked over TLS.
    """
    if not origin:
        return
    if origins is None:
        page = _host_and_port(origin)
        allowed = page is not None and page == _host_and_port(f"{_scheme(origin)}://{host}")
        if secure and _scheme(origin) != "https":
            allowed = False
    else:
        wanted = [origins] if isinstance(origins, str) else list(origins)
        allowed = "*" in wanted or origin.rstrip("/").lower() in [item.rstrip("/").lower() for item in wanted]
    if not allowed:
        raise HandshakeError(f"Origin {origin} is not allowed here", 403)


def _scheme(url: str) -> str:
    """Return the scheme of an origin, in lower case."""
    return url.partition("://")[0].lower()


def _host_and_port(url: str) -> tuple[str, int] | None:
    """Return host and port, the scheme's own port where none is named; None if there is no making sense of it."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "ws": 80, "https": 443, "wss": 443}.get(parts.scheme)
        return (parts.hostname, port) if parts.hostname and port else None
    except ValueError:
        return None


# --- the client -------------------------------------------------------------------------------------------------------


def build_request(resource: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of the request for ``resource``, with ``headers`` as they are given.

    What is not ASCII in ``resource`` is sent as its UTF-8 in percents, as a browser does.

    :raises HandshakeError: if a name is no token, or a value or the resource would break out of its line or is not
        Latin-1.
    """
    if not resource.startswith("/") or re.search(r"[\x00-\x20\x7f\ud800-\udfff]", resource):
        raise HandshakeError(f"{resource!r} is not a resource that can be asked for")
    return format_head(f"GET {_NOT_ASCII.sub(lambda match: quote(match[0]), resource)} HTTP/1.1", headers)


def format_head(first: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a request or a response.

    :param first: its first line.
    :raises HandshakeError: if a name is no token, or a value would break out of its line or is not Latin-1.
    """
    lines = [first]
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or _FORBIDDEN_IN_VALUES.search(value):
            raise HandshakeError(f"Header {name!r} can't be sent")
        lines.append(f"{name}: {value}")
    try:
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
    except UnicodeEncodeError:
        raise HandshakeError("A header has characters that are not in Latin-1") from None


class ResponseParser:
    """Reads the head of an HTTP response from bytes that come in any cuts; none is looked at twice.

    Interim responses before it are passed over (RFC 9110, section 15.2).

    :ivar head: the bytes of the head, without the interim ones, when it is there.
    :ivar rest: the bytes after it, which belong to the websocket.
    """

    def __init__(self) -> None:
        self.head = self.rest = b""
        self._data = bytearray()
        self._start = 0  # of the head that is being read
        self._searched = 0  # before this no head ends

    def receive(self, data: bytes) -> Response | None:
        """Take bytes in; return the response, or None if more are needed.

        :raises HandshakeError: if it is not HTTP, or longer than :data:`MAX_HEAD`, interim responses included.
        """
        self._data += data
        while (end := self._data.find(b"\r\n\r\n", self._searched, MAX_HEAD + 4)) >= 0:
            head = bytes(self._data[self._start : end + 4])
            response = _parse_head(head[:-4].decode("latin-1"))
            self._start = self._searched = end + 4
            if response.status == 101 or response.status >= 200:
                self.head, self.rest = head, bytes(self._data[end + 4 :])
                return response
        if len(self._data) >= MAX_HEAD + 4:
            raise HandshakeError(f"The head of the response is over {MAX_HEAD} bytes")
        if not b"HTTP/1.".startswith(self._data[self._start : self._start + 7]):
            raise HandshakeError("The server does not answer in HTTP/1.1")
        self._searched = max(self._start, len(self._data) - 3)
        return None


def parse_response(data: bytes) -> tuple[Response, bytes] | None:
    """Read the head of an HTTP response from the start of ``data``; see :class:`ResponseParser`.

    :returns: the head, and the bytes after it; None if more is needed.
    :raises HandshakeError: likewise.
    """
    parser = ResponseParser()
    response = parser.receive(data)
    return None if response is None else (response, parser.rest)


def _parse_head(head: str) -> Response:
    first, *lines = head.split("\r\n")
    status = _STATUS_LINE.fullmatch(first)
    if status is None:
        raise HandshakeError(f"{first[:80]!r} is not the first line of an HTTP response")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or _FORBIDDEN_IN_VALUES.search(value):
            raise HandshakeError(f"{line[:80]!r} is not a header of an HTTP response")
        headers.append((name.lower(), value.strip(" \t")))
    return Response(int(status[2]), status[3] or "", tuple(headers))


def check_response(
    response: Response, key: str, *, protocols: Sequence[str] = (), extensions: Sequence[str | Extension] = ()
) -> Acceptance:
    """Check a server's answer to the request that had ``key`` (section 4.1).

    :param protocols: the subprotocols that were offered.
    :param extensions: the extensions that were offered: objects, whose ``offers`` were, or names.
    :raises HandshakeError: if the websocket was refused, with the ``status`` that came, or the answer breaks a rule.
    """
    if response.status != 101:
        raise HandshakeError(
            f"Invalid response status: {response.status} {response.reason}".rstrip(),
            response.status,
            response.headers,
        )
    for name, expected in (("upgrade", "websocket"), ("connection", "upgrade")):
        values = [token.lower() for value in response.get_all(name) for token in _tokens(value)]
        if expected not in values:
            raise HandshakeError(f"Invalid {name.title()} header: {', '.join(values)}", 101)
    if response.get_all("sec-websocket-accept") != [accept_key(key)]:
        raise HandshakeError("Sec-WebSocket-Accept is missing or wrong", 101)
    chosen = response.get_all("sec-websocket-protocol")
    if len(chosen) > 1 or not set(chosen) <= set(_names(protocols)):
        raise HandshakeError(f"The server chose a subprotocol that was not offered: {', '.join(chosen)}", 101)
    granted = ", ".join(response.get_all("sec-websocket-extensions"))
    agreement = _check_extensions(granted, extensions)
    return Acceptance(response.headers, chosen[0] if chosen else None, tuple(_tokens(granted)), agreement)


def _check_extensions(granted: str, extensions: Sequence[str | Extension]) -> Agreement | None:
    """Return what a server's answer about extensions comes to.

    :raises HandshakeError: if it is malformed, or has what was not offered (section 4.1) or can't be used.
    """
    listed, objects = _sort_extensions(extensions)
    names = set(listed)
    agreement: Agreement | None = None
    try:
        answers = parse_extensions(granted)
    except ValueError as error:
        raise HandshakeError(f"The server's choice of extensions can't be read: {error}", 101) from None
    for name, parameters in answers:
        extension = objects.get(name)
        if extension is None:
            if name not in listed:
                raise HandshakeError(f"The server chose an extension that was not offered: {name}", 101)
            if name not in names:
                raise HandshakeError(f"The server chose an extension twice: {name}", 101)
            names.discard(name)
        elif agreement is not None:
            raise HandshakeError(f"The server chose one extension too many: {name}", 101)
        else:
            try:
                agreement = extension.check(parameters)
            except ValueError as error:
                raise HandshakeError(f"The server chose the extension {name} wrongly: {error}", 101) from error
    return agreement


def offer_extensions(extensions: Sequence[str | Extension]) -> str:
    """Return the value of a client's header Sec-WebSocket-Extensions for ``extensions``, empty if there is none."""
    names, objects = _sort_extensions(extensions)
    offers = [format_extension(item.name, offer) for item in objects.values() for offer in item.offers()]
    return ", ".join([*offers, *names])
