"""Ways through proxies."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading

import pytest

from tests.client_servers import Scripted, foreign_server, read_request
from tests.helpers import PATIENCE, Certificates
from ws4py.client import WebSocketBaseClient
from ws4py.client.proxy import Proxy, choose_proxy
from ws4py.exc import HandshakeError


def tunnel(here: socket.socket, there: socket.socket) -> None:
    """Carry bytes between two sockets until both ends have no more."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=carry, args=(there, here), daemon=True)
    back.start()
    carry(here, there)
    back.join(PATIENCE)
    there.close()


class HttpProxy:
    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []

    def __call__(self, sock: socket.socket) -> None:
        request = read_request(sock)
        self.requests.append(request)
        host, _, port = request[""].split()[1].rpartition(":")
        there = socket.create_connection((host, int(port)), PATIENCE)
        sock.sendall(b"HTTP/1.0 200 Connection established\r\nVia: us\r\n\r\n")
        tunnel(sock, there)


def take(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


class Socks5:
    """As much of RFC 1928 and RFC 1929 as a client of ours may need."""

    def __init__(self, login: tuple[bytes, bytes] | None = None) -> None:
        self.login = login
        self.names: list[bytes] = []

    def __call__(self, sock: socket.socket) -> None:
        methods = take(sock, take(sock, 2)[1])
        if self.login is None:
            sock.sendall(b"\x05\x00")
        else:
            assert 2 in methods
            sock.sendall(b"\x05\x02")
            name = take(sock, take(sock, 2)[1])
            password = take(sock, take(sock, 1)[0])
            sock.sendall(b"\x01" + bytes([(name, password) != self.login]))
            if (name, password) != self.login:
                return
        kind = take(sock, 4)[3]
        name = take(sock, 4 if kind == 1 else take(sock, 1)[0])
        self.names.append(name)
        host = socket.inet_ntoa(name) if kind == 1 else name.decode()
        there = socket.create_connection((host, int.from_bytes(take(sock, 2), "big")), PATIENCE)
        sock.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        tunnel(sock, there)


def echo(url: str, **options: object) -> None:
    with WebSocketBaseClient(url, **options) as client:  # type: ignore[arg-type]
        client.send("hello")
        assert str(client.receive(timeout=PATIENCE)) == "hello"


@pytest.mark.parametrize("secure", [False, True])
def test_an_http_proxy(secure: bool, certificates: Certificates) -> None:
    proxy = HttpProxy()
    with foreign_server(certificates.server if secure else None) as url, Scripted(proxy) as server:
        where = f"http://me:p%40ss@127.0.0.1:{server.port}"
        echo(url, proxy=where, ssl_context=certificates.client)
    (request,) = proxy.requests
    address = url.split("/")[2]
    assert request[""] == f"CONNECT {address} HTTP/1.1"
    assert request["host"] == address
    assert base64.b64decode(request["proxy-authorization"].removeprefix("Basic ")) == b"me:p@ss"


def test_a_proxy_that_refuses() -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        assert sock.recv(1) == b"", "the client has closed its socket"

    with Scripted(script) as server, pytest.raises(HandshakeError, match="proxy refused: 407") as refusal:
        WebSocketBaseClient("ws://example.org/", proxy=f"http://127.0.0.1:{server.port}").connect()
    assert refusal.value.status == 407


def test_a_proxy_that_is_none() -> None:
    with Scripted(lambda sock: sock.sendall(b"\x05\xff" * 10)) as server, pytest.raises(HandshakeError):
        WebSocketBaseClient("ws://example.org/", proxy=f"http://127.0.0.1:{server.port}").connect()
    with pytest.raises(HandshakeError, match="A proxy is one of"):
        WebSocketBaseClient("ws://example.org/", proxy="gopher://h").connect()


@pytest.mark.parametrize("login", [None, (b"me", b"p@ss")])
def test_a_socks_proxy(login: tuple[bytes, bytes] | None) -> None:
    pytest.importorskip("python_socks")
    proxy = Socks5(login)
    with foreign_server() as url, Scripted(proxy) as server:
        user = "me:p%40ss@" if login else ""
        echo(url, proxy=f"socks5://{user}127.0.0.1:{server.port}")
        echo(url.replace("127.0.0.1", "localhost"), proxy=f"socks5h://{user}127.0.0.1:{server.port}")
    assert proxy.names == [b"\x7f\x00\x00\x01", b"localhost"], "with the letter the proxy looks names up"


def test_a_socks_proxy_that_refuses() -> None:
    pytest.importorskip("python_socks")
    with Scripted(Socks5((b"me", b"right"))) as server, pytest.raises(HandshakeError, match="proxy refused"):
        WebSocketBaseClient("ws://example.org/", proxy=f"socks5h://me:wrong@127.0.0.1:{server.port}").connect()
    with pytest.raises(OSError, match="proxy"):
        WebSocketBaseClient("ws://example.org/", proxy=f"socks5h://127.0.0.1:{server.port}").connect()


@pytest.mark.parametrize(
    "reply", [b"\x05\x00\x00\x03\x02\xff\xff\x00\x00", b"\x05\x00\x00\x01\x7f", b"\x05\xee" * 9, b"\xff"]
)
def test_a_socks_proxy_that_answers_nonsense(reply: bytes) -> None:
    pytest.importorskip("python_socks")

    def script(sock: socket.socket) -> None:
        take(sock, take(sock, 2)[1])
        sock.sendall(b"\x05\x00")
        take(sock, 10)
        sock.sendall(reply)

    with Scripted(script) as server, pytest.raises(HandshakeError, match="proxy"):
        WebSocketBaseClient("ws://1.2.3.4/", proxy=f"socks5://127.0.0.1:{server.port}").connect()


def test_a_socks_proxy_that_can_not_be_told_the_password() -> None:
    pytest.importorskip("python_socks")
    with Scripted(Socks5((b"me", b"x"))) as server, pytest.raises(HandshakeError) as refusal:
        WebSocketBaseClient("ws://h/", proxy=f"socks5h://me:s3cr%C3%A9t@127.0.0.1:{server.port}").connect()
    assert "s3cr" not in str(refusal.value)


def test_the_deadline_is_for_all_that_a_socks_proxy_says() -> None:
    pytest.importorskip("python_socks")
    given_up = threading.Event()

    def script(sock: socket.socket) -> None:
        take(sock, take(sock, 2)[1])
        sock.sendall(b"\x05\x00")
        take(sock, 10)
        sock.sendall(b"\x05")
        for byte in b"\x00\x00\x01\x7f\x00\x00\x01\x00\x00":
            given_up.wait(0.1)
            sock.sendall(bytes([byte]))
        assert sock.recv(1) == b"", "what comes too late is closed"

    with Scripted(script) as server:
        with pytest.raises(TimeoutError, match=r"proxy in 0\.25 seconds"):
            WebSocketBaseClient(
                "ws://1.2.3.4/", connect_timeout=0.25, proxy=f"socks5://127.0.0.1:{server.port}"
            ).connect()
        given_up.set()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for scheme in ("ws", "wss", "http", "https", "all", "socks", "no"):
        for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper()):
            monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_environment_names_proxies(environment: pytest.MonkeyPatch) -> None:
    assert choose_proxy("ws", "example.org", 80, True) is None
    environment.setenv("http_proxy", "http://plain:3128")
    environment.setenv("https_proxy", "secure:3129")
    environment.setenv("no_proxy", "internal.example.org,other:90")
    assert choose_proxy("ws", "example.org", 80, True) == Proxy("http", "plain", 3128)
    assert choose_proxy("wss", "example.org", 443, True) == Proxy("http", "secure", 3129)
    assert choose_proxy("ws", "internal.example.org", 80, True) is None
    assert choose_proxy("ws", "other", 80, True) == Proxy("http", "plain", 3128)
    assert choose_proxy("ws", "other", 90, True) is None
    for host in ("localhost", "127.0.0.2", "::1"):
        assert choose_proxy("ws", host, 80, True) is None, "this machine needs none"
    for nothing in (None, False):
        assert choose_proxy("ws", "example.org", 80, nothing) is None
    environment.delenv("https_proxy")
    environment.setenv("ALL_PROXY", "socks5h://u:p@all")
    assert choose_proxy("wss", "example.org", 443, True) == Proxy("socks5h", "all", 1080, "u", "p")


def test_a_proxy_of_the_environment_is_used(environment: pytest.MonkeyPatch) -> None:
    def script(sock: socket.socket) -> None:
        assert read_request(sock)[""] == "CONNECT example.org:80 HTTP/1.1"
        sock.sendall(b"HTTP/1.1 503 No\r\n\r\n")

    with Scripted(script) as server:
        environment.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
        with pytest.raises(HandshakeError, match="proxy refused: 503"):
            WebSocketBaseClient("ws://example.org/").connect()


def test_a_bad_proxy_of_the_environment_is_a_refusal(environment: pytest.MonkeyPatch) -> None:
    for url in ("http://u:s3cret@[", "http://u:s3cret@a..b:3128", "http://u:s3/cret@h", "http://u:s3cret@\u2100"):
        environment.setenv("http_proxy", url)
        with pytest.raises(HandshakeError, match="proxy can't be used") as refusal:
            WebSocketBaseClient("ws://example.org/").connect()
        assert "s3" not in str(refusal.value)


@pytest.mark.parametrize("url", ["http://", "http://h:x", "ftp://h"])
def test_proxies_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="proxy"):
        Proxy.parse(url)
