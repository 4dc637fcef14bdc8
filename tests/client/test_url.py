"""The URLs of websockets."""

from __future__ import annotations

import pytest

from ws4py.client.proxy import Proxy
from ws4py.client.url import Target, host_header, parse_url, redirected, without_login
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
    [
        *("", "ws", "ws:", "ws://", "ws:///x", "ws://:80/", "http://h/", "h:80", "ws://h:x/", "ws://h:70000/"),
        *("ws+unix://", "ws://[", "ws://[::1/", "ws://a..b/", f"ws://{'a' * 64}.b/", f"ws://{'a.' * 127}b/"),
        *("ws://\u2100/", "ws://b\xfcch..er/", "ws://\ud800/"),
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="Invalid"):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        *("ws://u:s3cret@:80/", "ws://u:s3cret@h:x/", "ws://u:s3/cret@h/", "ws://u:s3?cret@h/", "ws://u:s3#cret@h/"),
        *(
            "ws://u:s3cret@a..b/",
            "ws://u:s3cret@h\u2100/",
            "ws://u:s3cret@[/",
            "ws://u:s3cr\net@h:x/",
            "http://u:s3cret@h/",
        ),
        *("u:s3cret@h/", "u:s3/cret@h/", "//u:s3cret@h", "ws+unix://u:s3cret@"),
    ],
)
def test_no_password_is_in_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="Invalid") as caught:
        parse_url(url)
    assert "s3" not in str(caught.value)
    assert "cret" not in str(caught.value)
    for proxy in (url, url.replace("ws://", "http://")):
        try:
            shown = repr(Proxy.parse(proxy))
        except ValueError as error:
            shown = str(error)
        assert "s3" not in shown


def test_a_url_is_shown_without_a_login() -> None:
    assert without_login("ws://h:90/@x?y=@z") == "ws://h:90/@x?y=@z"
    assert without_login("ws://u:p@h:90/@x") == "ws://...@h:90/@x"
    assert without_login("ws+unix:///run/x.sock") == "ws+unix:///run/x.sock"
    assert "s3cret" not in repr(parse_url("ws://u:s3cret@h/"))


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
