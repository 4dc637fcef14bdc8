"""The URLs of websockets."""

from __future__ import annotations

import pytest

from ws4py.client.url import Target, host_header, parse_url, redirected
from ws4py.exc import HandshakeError


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("ws://example.org", Target("ws", "example.org", 80, "/")),
        ("wss://example.org", Target("wss", "example.org", 443, "/")),
        ("WS://Example.org:81/Chat?x=1#fragment", Target("ws", "example.org", 81, "/Chat?x=1")),
        ("ws://example.org?x=1", Target("ws", "example.org", 80, "/?x=1")),
        ("ws://[::1]:9000/ws", Target("ws", "::1", 9000, "/ws")),
        ("ws://bücher.example/", Target("ws", "xn--bcher-kva.example", 80, "/")),
        ("ws://h/a b\x7f", Target("ws", "h", 80, "/a%20b%7F")),
        ("ws://me:p%40ss@h/", Target("ws", "h", 80, "/", None, "me", "p@ss")),
        ("ws+unix:///run/my.sock", Target("ws+unix", "localhost", None, "/", "/run/my.sock")),
        ("wss+unix:///run/my.sock?x=1", Target("wss+unix", "localhost", None, "/?x=1", "/run/my.sock")),
        ("ws+unix://%2Frun%2Fmy.sock/chat", Target("ws+unix", "localhost", None, "/chat", "/run/my.sock")),
    ],
)
def test_urls(url: str, target: Target) -> None:
    assert parse_url(url) == target


@pytest.mark.parametrize(
    "url",
    ["", "ws", "ws:", "ws://", "ws:///x", "ws://:80/", "http://h/", "h:80", "ws://h:x/", "ws://h:70000/", "ws+unix://"],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="Invalid"):
        parse_url(url)


@pytest.mark.parametrize(
    ("scheme", "host", "port", "header"),
    [
        ("ws", "h", 80, "h"),
        ("ws", "h", 443, "h:443"),
        ("wss", "h", 443, "h"),
        ("ws", "::1", 80, "[::1]"),
        ("ws", "::1", 9000, "[::1]:9000"),
        ("ws+unix", "localhost", None, "localhost"),
    ],
)
def test_default_ports_are_not_named(scheme: str, host: str, port: int | None, header: str) -> None:
    assert host_header(scheme, host, port) == header


@pytest.mark.parametrize(
    ("scheme", "location", "url"),
    [
        ("ws", "/there?x", "ws://h:90/there?x"),
        ("ws", "there", "ws://h:90/a/there"),
        ("ws", "ws://other/x", "ws://other/x"),
        ("ws", "http://other/x", "ws://other/x"),
        ("ws", "https://other/x", "wss://other/x"),
        ("wss", "//other/x", "wss://other/x"),
    ],
)
def test_redirections(scheme: str, location: str, url: str) -> None:
    assert redirected(scheme, "h", 90, "/a/b", location) == url


@pytest.mark.parametrize("location", ["http://h/", "ws://h/", "ftp://h/", "javascript:x"])
def test_redirections_that_are_not_followed(location: str) -> None:
    with pytest.raises(HandshakeError):
        redirected("wss", "h", 443, "/", location)
