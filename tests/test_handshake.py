"""The opening handshake, in both roles: RFC 6455, section 4."""

from __future__ import annotations

import base64
import string
from collections.abc import Sequence

import pytest

from ws4py import handshake
from ws4py.exc import HandshakeError
from ws4py.handshake import (
    MAX_HEAD,
    Acceptance,
    Response,
    accept_key,
    build_request,
    check_response,
    generate_key,
    negotiate,
    parse_response,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the one of the example in section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

REQUEST = {
    "Host": "server.example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
RESPONSE = (("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", ACCEPT))

BAD_TEXT = [
    "",
    " ",
    ",",
    ",,, ,",
    "\0",
    "\xff",
    "☃",
    "\ud800",
    "K",
    '"',
    'a="b',
    "[",
    "[::1",
    "]",
    "%",
    "://",
    "http://[",
    "http://[::1",
    "http://[x]:80",
    "http://[v1.]:80",
    "http://a:b",
    "http://a:99999",
    "http://a:-1",
    "http://a:²",
    "http://℀",
    "http://a@b@c",
    "a\r\nb: c",
    "9" * 5000,
    "x" * 70000,
    "-13",
    "13.0",
    "\uff11\uff13",
    "==",
    "=" * 24,
    "A" * 24,
    "A" * 23 + "=",
    "A" * 22,
    "A" * 22 + "===",
    "A" * 21 + "_==",
    "A A" * 8,
]


def request(**changes: str | None) -> dict[str, str]:
    """Return the headers of a good request, but for those given; None leaves one out."""
    headers: dict[str, str | None] = {**REQUEST}
    for name, value in changes.items():
        headers[name.replace("_", "-")] = value
    return {name: value for name, value in headers.items() if value is not None}


def refusal(headers: dict[str, str], method: str = "GET", **wishes: Sequence[str]) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        negotiate(method, headers, **wishes)  # type: ignore[arg-type]
    return caught.value


# --- keys -----------------------------------------------------------------------------------------------------------


def test_the_example_of_the_rfc() -> None:
    assert accept_key(KEY) == ACCEPT


def test_a_key_is_16_bytes_and_new_each_time() -> None:
    keys = {generate_key() for _ in range(50)}
    assert len(keys) == 50
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {16}


# --- the server accepts ---------------------------------------------------------------------------------------------


def test_a_good_request_is_accepted() -> None:
    accepted = negotiate("GET", REQUEST)
    assert accepted == Acceptance(
        (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT)), None, ()
    )


@pytest.mark.parametrize(
    "upgrade", ["websocket", "WebSocket", "WEBSOCKET", "h2c, websocket", "h2c,websocket,", "\tWebSocket "]
)
@pytest.mark.parametrize(
    "connection", ["Upgrade", "upgrade", "UPGRADE", "keep-alive, Upgrade", "Upgrade,close", ", Upgrade"]
)
def test_upgrade_and_connection_are_lists_in_any_case(upgrade: str, connection: str) -> None:
    assert negotiate("GET", request(Upgrade=upgrade, Connection=connection))


@pytest.mark.parametrize("version", ["13", "8", " 13 "])
def test_the_versions_that_are_spoken(version: str) -> None:
    assert negotiate("GET", request(Sec_WebSocket_Version=version))


def test_the_versions_can_be_chosen() -> None:
    assert negotiate("GET", REQUEST, versions=[13])
    error = refusal(request(Sec_WebSocket_Version="8"), versions=(13,))  # type: ignore[arg-type]
    assert error.status == 426
    assert dict(error.headers)["Sec-WebSocket-Version"] == "13"


@pytest.mark.parametrize(
    ("offered", "spoken", "chosen"),
    [
        (None, [], None),
        (None, ["chat"], None),
        ("", ["chat"], None),
        ("chat", [], None),
        ("chat", ["chat"], "chat"),
        ("other", ["chat"], None),
        ("chat, superchat", ["superchat", "chat"], "chat"),
        ("superchat,chat", ["superchat", "chat"], "superchat"),
        ("other , superchat", ("superchat", "chat"), "superchat"),
        ("chat, chat", ["chat"], "chat"),
        (", ,chat,", ["chat"], "chat"),
        ("Chat", ["chat"], None),
        ("v1.json+zip", ["v1.json+zip"], "v1.json+zip"),
    ],
)
def test_one_subprotocol_at_most_is_chosen(offered: str | None, spoken: Sequence[str], chosen: str | None) -> None:
    accepted = negotiate("GET", request(Sec_WebSocket_Protocol=offered), protocols=spoken)
    assert accepted.protocol == chosen
    sent = [value for name, value in accepted.headers if name == "Sec-WebSocket-Protocol"]
    assert sent == ([] if chosen is None else [chosen])


@pytest.mark.parametrize(
    ("offered", "known", "granted"),
    [
        (None, (), ()),
        (None, ("x-one",), ()),
        ("x-one", (), ()),
        ("permessage-deflate; client_max_window_bits", (), ()),
        ("x-one", ("x-one",), ("x-one",)),
        ("x-two, x-one, x-three", ("x-one", "x-two"), ("x-two", "x-one")),
        ("x-one," * 120_000, ("x-one", "x-one"), ("x-one",)),
        ("x-one, x-two, " * 1000, "x-one, x-two", ("x-one", "x-two")),
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_extensions_that_are_known_are_granted(
    offered: str | None, known: Sequence[str], granted: tuple[str, ...]
) -> None:
    accepted = negotiate("GET", request(Sec_WebSocket_Extensions=offered), extensions=known)
    assert accepted.extensions == granted
    sent = [value for name, value in accepted.headers if name == "Sec-WebSocket-Extensions"]
    assert sent == ([", ".join(granted)] if granted else [])


# --- the server refuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "CONNECT", "get", "", "GETT"])
def test_another_method_is_405(method: str) -> None:
    error = refusal(REQUEST, method)
    assert (error.status, error.headers) == (405, (("Allow", "GET"),))
    assert str(error) == "HTTP method must be a GET"


@pytest.mark.parametrize("name", ["Upgrade", "Connection"])
@pytest.mark.parametrize("value", [None, "", " ", ",", "close", "websockets", "upgraded", "web socket", "upgrade; x"])
def test_a_request_that_asks_for_no_upgrade_is_426(name: str, value: str | None) -> None:
    error = refusal(request(**{name: value}))
    assert error.status == 426
    assert dict(error.headers) == {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13, 8",
    }
    assert name in str(error)


def test_a_plain_get_is_426() -> None:
    error = refusal({"Host": "server.example.com"})
    assert (str(error), error.status) == ("Header Upgrade is not defined", 426)


@pytest.mark.parametrize(
    "version",
    [
        None,
        "",
        "0",
        "7",
        "9",
        "12",
        "14",
        "013",
        "08",
        "+13",
        "-13",
        "13.0",
        "13, 8",
        "13,13",
        "1 3",
        "١٣",
        "1" * 5000,
        "x",
    ],
)
def test_a_version_that_is_not_spoken_is_426_with_those_that_are(version: str | None) -> None:
    error = refusal(request(Sec_WebSocket_Version=version))
    assert error.status == 426
    assert dict(error.headers) == {
        "Upgrade": "websocket",  # RFC 9110, section 15.5.22: a 426 names what to upgrade to
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13, 8",
    }


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        " ",
        "x",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZQ==dGhl",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZSE=IQ==",
        "dGhlIHNhbXBs ZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZ_==",
        "=" * 24,
        "é" * 24,
        "\ud800" * 24,
        f"{KEY}, {KEY}",
        base64.b64encode(bytes(15)).decode(),
        base64.b64encode(bytes(17)).decode(),
        base64.b64encode(bytes(18)).decode(),
        "A" * 100000,
    ],
)
def test_a_key_that_is_not_16_bytes_in_base64_is_400(key: str | None) -> None:
    error = refusal(request(Sec_WebSocket_Key=key))
    assert (error.status, error.headers) == (400, ())


@pytest.mark.parametrize("key", [base64.b64encode(bytes(16)).decode(), "AQIDBAUGBwgJCgsMDQ4PEC==", f" {KEY}\t"])
def test_a_key_of_16_bytes_passes(key: str) -> None:
    assert ("Sec-WebSocket-Accept", accept_key(key.strip())) in negotiate("GET", request(Sec_WebSocket_Key=key)).headers


@pytest.mark.parametrize(
    "protocols", ["a b", "chat, a b", "(chat)", "chat;x", "chät", '"chat"', "a/b", "chat, \0", "a\r\nb"]
)
def test_a_subprotocol_that_is_no_token_is_400(protocols: str) -> None:
    assert refusal(request(Sec_WebSocket_Protocol=protocols), protocols=["chat"]).status == 400


@pytest.mark.parametrize("bad", BAD_TEXT, ids=lambda text: ascii(text[:20]))
@pytest.mark.parametrize("name", [*REQUEST, "Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"])
@pytest.mark.parametrize("origins", [None, ("https://a.example",), "*"])
def test_nothing_that_a_client_sends_raises_another_error(name: str, bad: str, origins: Sequence[str] | None) -> None:
    headers = {**REQUEST, "Origin": "http://server.example.com", name: bad}
    status = 101
    try:
        negotiate("GET", headers, protocols=["chat"], extensions=["x-one"], origins=origins)
    except HandshakeError as error:
        status = error.status
    assert status in (101, 400, 403, 426)


@pytest.mark.parametrize("origin", [bad for bad in BAD_TEXT if bad], ids=lambda text: ascii(text[:20]))
def test_an_origin_that_makes_no_sense_is_that_of_no_host(origin: str) -> None:
    for host in (*BAD_TEXT, origin):
        assert refusal(request(Origin=origin, Host=host)).status == 403


def test_the_first_thing_that_is_wrong_is_named() -> None:
    wrong: dict[str, str] = {"Origin": "http://evil.example"}
    assert refusal(wrong, "POST").status == 405
    assert refusal(wrong).status == 426
    wrong |= {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert "version" in str(refusal(wrong))
    wrong["Sec-WebSocket-Version"] = "13"
    assert "Key" in str(refusal(wrong))
    wrong["Sec-WebSocket-Key"] = KEY
    assert "Origin" in str(refusal(wrong))


# --- origins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "example.com"),
        (None, None),
        ("http://example.com", "example.com"),
        ("http://example.com", "example.com:80"),
        ("http://example.com:80", "example.com"),
        ("http://example.com:8080", "example.com:8080"),
        ("https://example.com", "example.com"),  # also behind a proxy that ends TLS
        ("https://example.com", "example.com:443"),
        ("https://example.com:443", "example.com"),
        ("https://example.com:8443", "example.com:8443"),
        ("HTTPS://EXAMPLE.com", "example.COM"),
        ("http://127.0.0.1:9000", "127.0.0.1:9000"),
        ("http://[::1]", "[::1]"),
        ("http://[::1]:9000", "[::1]:9000"),
        ("https://[2001:DB8::1]", "[2001:db8::1]:443"),
        ("http://localhost:9000", "localhost:9000"),
        ("http://xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("http://example.com.", "example.com."),
    ],
)
def test_a_page_of_the_same_host_may_connect(origin: str | None, host: str | None) -> None:
    assert negotiate("GET", request(Origin=origin, Host=host))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "example.com"),
        ("http://example.com.evil.example", "example.com"),
        ("http://evil-example.com", "example.com"),
        ("http://sub.example.com", "example.com"),
        ("http://example.com", "sub.example.com"),
        ("http://example.com:8080", "example.com"),
        ("http://example.com", "example.com:8080"),
        ("http://example.com:8080", "example.com:8081"),
        ("https://example.com", "example.com:80"),
        ("http://example.com", "example.com:443"),
        ("http://[::1]:9000", "[::2]:9000"),
        ("http://[::1]:9000", "[::1]:9001"),
        ("http://127.0.0.1", "localhost"),
        ("null", "example.com"),
        ("null", "null"),
        ("file://", "example.com"),
        ("file:///example.com", "example.com"),
        ("chrome-extension://example.com", "example.com"),
        ("example.com", "example.com"),
        ("//example.com", "example.com"),
        ("http:example.com", "example.com"),
        ("http://", ""),
        ("http://example.com", None),
        ("http://example.com", ""),
        ("http://example.com, http://evil.example", "example.com"),
        ("http://example.com http://evil.example", "example.com"),
        ("http://evil.example", "example.com, evil.example"),
    ],
)
def test_another_page_may_not_connect(origin: str, host: str | None) -> None:
    error = refusal(request(Origin=origin, Host=host))
    assert (error.status, error.headers) == (403, ())


@pytest.mark.parametrize("origin", ["https://app.example.org", "https://APP.example.org", "https://app.example.org/"])
@pytest.mark.parametrize(
    "origins",
    [
        ["https://app.example.org"],
        ("http://other.example", "https://app.example.org/"),
        {"HTTPS://APP.EXAMPLE.ORG"},
        "https://app.example.org",
        "*",
        ["*"],
        ["http://other.example", "*"],
    ],
)
def test_the_origins_that_are_named_may_connect(origin: str, origins: Sequence[str]) -> None:
    assert negotiate("GET", request(Origin=origin), origins=origins)


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.org.evil.example",
        "https://evil.example/https://app.example.org",
        "http://app.example.org",
        "https://app.example.org:8443",
        "http://server.example.com",
        "null",
        "*",
    ],
)
@pytest.mark.parametrize("origins", [["https://app.example.org"], "https://app.example.org", []])
def test_origins_that_are_not_named_may_not_connect(origin: str, origins: Sequence[str]) -> None:
    """That of this host among them: who names origins names them all."""
    assert refusal(request(Origin=origin), origins=origins).status == 403


def test_the_null_origin_can_be_named() -> None:
    assert negotiate("GET", request(Origin="null"), origins=["null"])


@pytest.mark.parametrize("origins", [None, [], ["https://app.example.org"]])
def test_a_request_without_an_origin_is_not_from_a_page(origins: Sequence[str] | None) -> None:
    assert negotiate("GET", REQUEST, origins=origins)


def test_the_origin_has_another_name_in_version_8() -> None:
    """So the drafts named it, up to the tenth; a page of that time may connect no more than one of today."""
    old = request(Sec_WebSocket_Version="8", Sec_WebSocket_Origin="http://evil.example")
    assert refusal(old).status == 403
    assert negotiate("GET", {**old, "Sec-WebSocket-Origin": "http://server.example.com"})


@pytest.mark.parametrize(
    ("origin", "scheme", "forwarded", "allowed"),
    [
        ("http://example.com", "https", None, False),
        ("http://example.com", "http", "https", False),
        ("http://example.com", "http", "HTTPS, http", False),
        ("http://example.com", "http", "wss", False),
        ("http://example.com", "http", None, True),
        ("http://example.com", "http", "http", True),
        ("http://example.com", None, None, True),
        ("http://example.com", "https", "http", True),  # the proxy talks to this server over TLS, the browser does not
        ("https://example.com", "https", None, True),
        ("https://example.com", "http", None, True),  # a proxy that ends TLS, and does not say so
        ("https://example.com", "http", "http", True),  # two proxies, the inner one of which knows of no TLS
        ("https://example.com", "http", "https", True),
        ("https://example.com", None, None, True),
    ],
)
def test_a_page_without_tls_is_none_of_a_host_with_tls(
    origin: str, scheme: str | None, forwarded: str | None, allowed: bool
) -> None:
    headers = request(Origin=origin, Host="example.com", X_Forwarded_Proto=forwarded)
    if allowed:
        assert negotiate("GET", headers, scheme=scheme)
    else:
        with pytest.raises(HandshakeError) as caught:
            negotiate("GET", headers, scheme=scheme)
        assert caught.value.status == 403
    assert negotiate("GET", headers, scheme=scheme, origins=[origin]), "whoever names an origin means it"


@pytest.mark.parametrize(
    "host", ["example.org", "EXAMPLE.org", "example.org:80", "example.org:9000", "[::1]:9000", "127.0.0.1:443"]
)
@pytest.mark.parametrize(
    "hosts",
    [["example.org", "[::1]", "127.0.0.1"], ("Example.ORG:9000", "example.org:80", "[::1]:9000", "127.0.0.1"), "*"],
)
def test_hosts_that_are_named_may_be_asked(host: str, hosts: Sequence[str]) -> None:
    assert negotiate("GET", request(Host=host), hosts=hosts)
    assert negotiate("GET", request(Host=host, Origin=f"https://{host}"), hosts=hosts)


@pytest.mark.parametrize(
    "host",
    [
        "rebound.evil:9000",
        "sub.example.org",
        "example.org.evil",
        "example.org:8443",
        "user@example.org:9000",
        "example.org:9000, rebound.evil",
        "example.org:9000/",
        "example.org:",
        "example.org:9000:9000",
        "[::1]",
        "*",
        *BAD_TEXT,
        None,
    ],
)
@pytest.mark.parametrize("hosts", [["example.org:9000", "localhost"], "example.org:9000", []])
def test_hosts_that_are_not_named_may_not_be_asked(host: str | None, hosts: Sequence[str]) -> None:
    """The page of another name is refused, though to the browser it is a page of the host that it asks."""
    assert refusal(request(Host=host), hosts=hosts).status == 403
    assert refusal(request(Host=host, Origin=f"http://{host}"), hosts=hosts, origins="*").status == 403


# --- the client asks ------------------------------------------------------------------------------------------------


def test_build_request() -> None:
    assert build_request("/chat?a=b", [("Host", "example.com"), ("X-Empty", ""), ("X-Tab", "a\tb é")]) == (
        b"GET /chat?a=b HTTP/1.1\r\nHost: example.com\r\nX-Empty: \r\nX-Tab: a\tb \xe9\r\n\r\n"
    )
    assert build_request("/", []) == b"GET / HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    "resource", ["", "chat", "?a", "*", "http://h/", "/a b", "/a\r\nX: y", "/\0", "/\x7f", "/a\tb", "/\ud800"]
)
def test_a_resource_that_would_break_the_request_is_refused(resource: str) -> None:
    with pytest.raises(HandshakeError):
        build_request(resource, [])


@pytest.mark.parametrize(
    ("resource", "line"),
    [
        ("/caf\xe9/☃?q=é", b"GET /caf%C3%A9/%E2%98%83?q=%C3%A9 HTTP/1.1\r\n"),
        ("/%C3%A9?a=%20&b=[1]", b"GET /%C3%A9?a=%20&b=[1] HTTP/1.1\r\n"),
    ],
)
def test_a_resource_is_sent_in_ascii(resource: str, line: bytes) -> None:
    assert build_request(resource, []) == line + b"\r\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "v"),
        ("a b", "v"),
        ("a:", "v"),
        ("a\r\n", "v"),
        ("ä", "v"),
        ("a", "v\r\nb: c"),
        ("a", "v\n"),
        ("a", "\r"),
        ("a", "\0"),
        ("a", "\x7f"),
        ("a", "☃"),
        ("a", "\ud800"),
    ],
)
def test_a_header_that_would_break_the_request_is_refused(name: str, value: str) -> None:
    with pytest.raises(HandshakeError):
        build_request("/", [("Host", "h"), (name, value)])


# --- the client reads the answer ------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX-One:  a \t\r\nx-one: b\r\n\r\n"


def test_parse_response() -> None:
    parsed = parse_response(HEAD + b"\x81\x02hi\r\n\r\n")
    assert parsed is not None
    response, rest = parsed
    assert response == Response(101, "Switching Protocols", (("upgrade", "websocket"), ("x-one", "a"), ("x-one", "b")))
    assert rest == b"\x81\x02hi\r\n\r\n"
    assert response.get_all("x-one") == ["a", "b"]
    assert response.get_all("x-two") == []


def test_parse_response_needs_the_whole_head() -> None:
    for end in range(len(HEAD)):
        assert parse_response(HEAD[:end]) is None
    assert parse_response(HEAD) is not None


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.1 403", 403, ""),
        (b"HTTP/1.1 403 ", 403, ""),
        (b"HTTP/1.0 200 OK", 200, "OK"),
        (b"HTTP/1.1 500 Caf\xe9 closed", 500, "Café closed"),
        (b"HTTP/1.1 302 A\tB", 302, "A\tB"),
    ],
)
def test_a_first_line(line: bytes, status: int, reason: str) -> None:
    parsed = parse_response(line + b"\r\n\r\n")
    assert parsed == (Response(status, reason, ()), b"")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 \r\n\r\n",
        b"HTTP/1.1 1\r\n\r\n",
        b"HTTP/1.1 1011 No\r\n\r\n",
        b"HTTP/1.1 abc No\r\n\r\n",
        b"HTTP/1.1  101 No\r\n\r\n",
        b"HTTP/1.1 \xb2\xb2\xb2 No\r\n\r\n",
        b"HTTP/2.0 101 No\r\n\r\n",
        b"HTTP/1.x 101 No\r\n\r\n",
        b"http/1.1 101 No\r\n\r\n",
        b" HTTP/1.1 101 No\r\n\r\n",
        b"\r\nHTTP/1.1 101 No\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 101 N\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 403 \x1b[31mred\r\n\r\n",
        b"HTTP/1.1 403 a\rb\r\n\r\n",
        b"HTTP/1.1 403 a\0b\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 101 OK\r\n: no name\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nName : v\r\n\r\n",
        b"HTTP/1.1 101 OK\r\n Name: v\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nName: v\r\n folded\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nN\xe4me: v\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nName: a\0b\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nName: a\nb: c\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nName: a\rb: c\r\n\r\n",
    ],
)
def test_a_head_that_is_not_http_is_refused(head: bytes) -> None:
    with pytest.raises(HandshakeError):
        parse_response(head)


@pytest.mark.parametrize(
    "data", [b"x", b"\x81\x02hi", b"\x15\x03\x01", b"SSH-2.0-", b"HTTP/2", b"http/1.1", b"HTTP/1-"]
)
def test_what_is_not_http_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(HandshakeError):
        parse_response(data)


def test_a_head_has_a_largest_size_however_it_comes() -> None:
    def head(size: int) -> bytes:
        start = b"HTTP/1.1 101 OK\r\nX: "
        return start + b"x" * (size - len(start)) + b"\r\n\r\n"

    largest = head(MAX_HEAD)
    assert parse_response(largest + b"rest") is not None
    for end in (MAX_HEAD - 1, MAX_HEAD, MAX_HEAD + 1, MAX_HEAD + 2, MAX_HEAD + 3):
        assert parse_response(largest[:end]) is None
    for data in (head(MAX_HEAD + 1), head(MAX_HEAD + 1)[:-1], b"HTTP/1.1 101 " + b"x" * MAX_HEAD):
        with pytest.raises(HandshakeError, match="over"):
            parse_response(data)


# --- the client checks the answer -----------------------------------------------------------------------------------


def response(*changes: tuple[str, str | None]) -> Response:
    """Return a good answer, but for the headers given; None leaves one out."""
    changed = dict(changes)
    kept = [(name, value) for name, value in RESPONSE if name not in changed]
    return Response(101, "Switching Protocols", tuple(kept + [(n, v) for n, v in changes if v is not None]))


def test_a_good_answer() -> None:
    assert check_response(response(), KEY) == Acceptance(RESPONSE, None, ())


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "other, WEBSOCKET"])
@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade", "close ,UPGRADE,"])
def test_the_headers_of_an_answer_are_lists_in_any_case(upgrade: str, connection: str) -> None:
    assert check_response(response(("upgrade", upgrade), ("connection", connection)), KEY)
    assert check_response(response(("connection", "keep-alive"), ("connection", connection)), KEY)


@pytest.mark.parametrize("name", ["upgrade", "connection"])
@pytest.mark.parametrize("value", [None, "", "close", "websockets", "xupgrade", "upgrade websocket"])
def test_an_answer_without_the_upgrade_is_refused(name: str, value: str | None) -> None:
    with pytest.raises(HandshakeError, match=name.title()):
        check_response(response((name, value)), KEY)


@pytest.mark.parametrize(
    "value", [None, "", ACCEPT.lower(), ACCEPT.swapcase(), KEY, ACCEPT + "=", ACCEPT[:-1], f"{ACCEPT}, {ACCEPT}"]
)
def test_an_answer_without_the_right_accept_is_refused(value: str | None) -> None:
    with pytest.raises(HandshakeError, match="Accept"):
        check_response(response(("sec-websocket-accept", value)), KEY)


@pytest.mark.parametrize("values", [[ACCEPT, ACCEPT], [ACCEPT, "x"], ["x", ACCEPT]])
def test_an_answer_with_two_accepts_is_refused(values: list[str]) -> None:
    with pytest.raises(HandshakeError, match="Accept"):
        check_response(response(*(("sec-websocket-accept", value) for value in values)), KEY)


@pytest.mark.parametrize("status", [100, 102, 200, 301, 400, 401, 403, 404, 426, 429, 500, 503])
def test_another_status_is_a_refusal_that_can_be_looked_into(status: int) -> None:
    headers = (("retry-after", "5"), ("set-cookie", "a"), ("set-cookie", "b"))
    with pytest.raises(HandshakeError) as caught:
        check_response(Response(status, "Reason", headers), KEY)
    assert (caught.value.status, caught.value.headers) == (status, headers)
    assert str(caught.value) == f"Invalid response status: {status} Reason"
    with pytest.raises(HandshakeError, match=rf"{status}\Z"):
        check_response(Response(status, "", ()), KEY)


@pytest.mark.parametrize("offered", [["chat"], ["superchat", "chat"], ("chat",)])
def test_a_subprotocol_that_was_offered(offered: Sequence[str]) -> None:
    answer = response(("sec-websocket-protocol", "chat"))
    assert check_response(answer, KEY, protocols=offered).protocol == "chat"


@pytest.mark.parametrize("offered", [[], ["chat"], ["chat", "superchat"]])
@pytest.mark.parametrize(
    "chosen", [["other"], ["CHAT"], ["chat, superchat"], ["chat", "superchat"], ["chat", "chat"], [""]]
)
def test_a_subprotocol_that_was_not_offered_is_refused(offered: Sequence[str], chosen: list[str]) -> None:
    answer = response(*(("sec-websocket-protocol", name) for name in chosen))
    with pytest.raises(HandshakeError, match="subprotocol"):
        check_response(answer, KEY, protocols=offered)


def test_a_server_need_not_choose_a_subprotocol() -> None:
    assert check_response(response(), KEY, protocols=["chat"]).protocol is None


@pytest.mark.parametrize(
    ("values", "granted"),
    [
        (["x-one"], ("x-one",)),
        (["x-one; a=1"], ("x-one; a=1",)),
        (["x-one ;a=1, x-two"], ("x-one ;a=1", "x-two")),
        (["x-one", "x-two"], ("x-one", "x-two")),
    ],
)
def test_extensions_that_were_offered(values: list[str], granted: tuple[str, ...]) -> None:
    answer = response(*(("sec-websocket-extensions", value) for value in values))
    assert check_response(answer, KEY, extensions=["x-one", "x-two"]).extensions == granted


@pytest.mark.parametrize("value", ["permessage-deflate", "x-one, other", "x-one, x-one", "X-ONE", "; a", "x-one x"])
def test_extensions_that_were_not_offered_are_refused(value: str) -> None:
    with pytest.raises(HandshakeError, match="extension"):
        check_response(response(("sec-websocket-extensions", value)), KEY, extensions=["x-one"])


# --- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocols", [[], ["chat"], ["other", "chat"]])
def test_a_client_and_a_server_agree(protocols: list[str]) -> None:
    key = generate_key()
    headers = request(Sec_WebSocket_Key=key, Sec_WebSocket_Protocol=", ".join(protocols) or None)
    asked = build_request("/", headers.items()).decode().split("\r\n")
    accepted = negotiate("GET", dict(line.split(": ", 1) for line in asked[1:-2]), protocols=["chat"])
    head = "".join(f"{name}: {value}\r\n" for name, value in accepted.headers)
    parsed = parse_response(f"HTTP/1.1 101 Switching Protocols\r\n{head}\r\n".encode())
    assert parsed is not None
    assert check_response(parsed[0], key, protocols=protocols).protocol == accepted.protocol
    assert accepted.protocol == ("chat" if protocols else None)


def test_every_character_of_a_token_is_one_in_a_name() -> None:
    name = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters
    assert negotiate("GET", request(Sec_WebSocket_Protocol=name), protocols=[name]).protocol == name
    assert build_request("/", [(name, "v")]).startswith(f"GET / HTTP/1.1\r\n{name}: v\r\n".encode())


def test_all_names_exist() -> None:
    assert sorted(handshake.__all__) == sorted(set(handshake.__all__))
    assert all(hasattr(handshake, name) for name in handshake.__all__)


def test_interim_responses_are_passed_over() -> None:
    head = b"HTTP/1.1 100 Continue\r\n\r\n"
    head += b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 No\r\nA: b\r\n\r\nrest"
    parsed = parse_response(head)
    assert parsed is not None
    assert (parsed[0].status, parsed[0].headers, parsed[1]) == (404, (("a", "b"),), b"rest")
    assert all(parse_response(head[:cut]) is None for cut in range(len(head) - len(b"\r\n\r\nrest")))


def test_endless_interim_responses_are_refused() -> None:
    with pytest.raises(HandshakeError):
        parse_response(b"HTTP/1.1 100 Continue\r\n\r\n" * 4000)


def test_protocols_may_be_one_string() -> None:
    headers = {**dict.fromkeys(("Upgrade",), "websocket"), "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    headers |= {"Sec-WebSocket-Key": generate_key(), "Sec-WebSocket-Protocol": "wa, wamp"}
    assert negotiate("GET", headers, protocols="wamp, mqtt").protocol == "wamp"
