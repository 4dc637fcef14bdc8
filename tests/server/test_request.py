"""The heads of requests, as the server of websockets reads them."""

from __future__ import annotations

import pytest

from ws4py.exc import HandshakeError
from ws4py.server.request import MAX_HEADERS, RequestHead, RequestParser

SIZE = 4096
PLAIN = b"GET /chat?room=1 HTTP/1.1\r\nHost: example.org\r\nX-Mine:\t a b \r\n\r\n"


def parse(data: bytes, size: int = SIZE) -> RequestHead | None:
    return RequestParser(size).receive(data)


def status(data: bytes, size: int = SIZE) -> int:
    """Return the status with which a request is refused."""
    with pytest.raises(HandshakeError) as caught:
        parse(data, size)
    return caught.value.status


def with_lines(*lines: str) -> bytes:
    return "\r\n".join(["GET / HTTP/1.1", "Host: h", *lines, "", ""]).encode("latin-1")


def test_what_is_in_it() -> None:
    head = parse(PLAIN)
    assert head == ("GET", "/chat", "room=1", (1, 1), {"host": "example.org", "x-mine": "a b"})


def test_any_cut_is_as_good_as_none() -> None:
    for cut in range(1, len(PLAIN)):
        parser = RequestParser(SIZE)
        assert parser.receive(PLAIN[:cut]) is None
        assert parser.receive(PLAIN[cut:] + b"rest") == parse(PLAIN)
        assert parser.rest == b"rest"
    parser = RequestParser(SIZE)
    heads = [parser.receive(PLAIN[number : number + 1]) for number in range(len(PLAIN))]
    assert heads == [None] * (len(PLAIN) - 1) + [parse(PLAIN)]


def test_headers_that_are_repeated() -> None:
    head = parse(with_lines("Upgrade: h2c", "upgrade: websocket", "Cookie: x=1", "Cookie: y=2"))
    assert head is not None
    assert head.headers == {"host": "h", "upgrade": "h2c, websocket", "cookie": "x=1; y=2"}
    for name in ("Host", "Content-Length", "Sec-WebSocket-Key", "Sec-WebSocket-Version"):
        assert status(with_lines(f"{name}: 0", f"{name.upper()}: 0")) == 400


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        ("http://other.org/a/b?c", "other.org", "/a/b", "c"),
        ("ws://me:pw@other.org:80?c", "other.org:80", "/", "c"),
        ("//a//b", "h", "//a//b", ""),
        ("/a%2Fb?x?y", "h", "/a%2Fb", "x?y"),
    ],
)
def test_targets(target: str, host: str, path: str, query: str) -> None:
    head = parse(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    assert head is not None
    assert (head.headers["host"], head.path, head.query) == (host, path, query)


def test_http_1_0_needs_no_host() -> None:
    head = parse(b"GET / HTTP/1.0\r\n\r\n")
    assert head is not None
    assert (head.http_version, head.headers) == ((1, 0), {})


@pytest.mark.parametrize(
    "data",
    [
        b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\nHost: h\n\n",
        b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\rX: y\r\n\r\n",
        b"\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
        b"GET /\r\nHost: h\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.10\r\nHost: h\r\n\r\n",
        b"GET / http/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: h\r\n\r\n",
        b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://[/x HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET ftp://h/x HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n: empty\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0, 0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_refused(data: bytes) -> None:
    assert status(data) == 400


def test_a_bare_line_feed_is_refused_when_it_comes() -> None:
    parser = RequestParser(SIZE)
    assert parser.receive(b"GET / HTTP/1.1\r") is None
    assert parser.receive(b"\nHost: h\r\n") is None
    with pytest.raises(HandshakeError):
        parser.receive(b"\n")


def test_bodies() -> None:
    assert status(with_lines("Content-Length: 1")) == 413
    assert status(with_lines("Content-Length: " + "9" * 100)) == 413
    assert status(with_lines("Transfer-Encoding: chunked")) == 413
    assert parse(with_lines("Content-Length: 00")) is not None


def test_versions_of_http_that_are_not_spoken() -> None:
    assert status(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") == 505
    assert status(b"GET / HTTP/0.9\r\n\r\n") == 505


def test_sizes() -> None:
    assert parse(PLAIN, len(PLAIN)) is not None
    assert status(PLAIN, len(PLAIN) - 1) == 431
    assert status(b"G" * SIZE) == 431
    lines = [f"X-{number}: 1" for number in range(MAX_HEADERS)]
    assert status(with_lines(*lines)) == 431
    assert parse(with_lines(*lines[1:])) is not None
