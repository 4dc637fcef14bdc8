"""A client's opening handshake: what it asks, and what it makes of the answers."""

from __future__ import annotations

import base64
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.client_servers import Scripted, accept, answer, foreign_server, read_request
from tests.helpers import Peer
from ws4py.client import WebSocketBaseClient
from ws4py.client.network import Deadline, read_head
from ws4py.exc import ConnectionClosed, HandshakeError
from ws4py.framing import build_frame

URL = "ws://example.org:9000/chat?x=1"


class Client(WebSocketBaseClient):
    """Connects directly, whatever the environment says."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"proxy": None} | options)


def test_attributes() -> None:
    client = Client(URL, ["a", "b"])
    assert (client.url, client.scheme, client.host, client.port) == (URL, "ws", "example.org", 9000)
    assert (client.resource, client.bind_addr, client.unix_socket_path) == ("/chat?x=1", ("example.org", 9000), None)
    assert Client("ws+unix:///run/x").bind_addr == "/run/x"
    assert not client.terminated


def test_request() -> None:
    client = Client(URL, ["a", "b"], headers=[("X-Mine", "1")])
    client.resource = "/other"
    client.key = b"dGhlIHNhbXBsZSBub25jZQ=="
    assert client.handshake_headers == [
        ("Host", "example.org:9000"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Protocol", "a, b"),
        ("Origin", "http://example.org:9000"),
        ("X-Mine", "1"),
    ]
    assert client.handshake_request.startswith(b"GET /other HTTP/1.1\r\nHost: example.org:9000\r\n")
    assert client.handshake_request.endswith(b"X-Mine: 1\r\n\r\n")


def test_own_headers_replace_and_excluded_ones_are_not_sent() -> None:
    client = Client("wss://h/", headers={"host": "other", "Origin": "null", "X": "y"}, exclude_headers=["ORIGIN"])
    names = [name.lower() for name, _ in client.handshake_headers]
    assert names.count("host") == 1
    assert "origin" not in names
    assert ("host", "other") in client.handshake_headers
    assert ("Origin", "https://h") in Client("wss://h:443/").handshake_headers


def test_basic_authentication_comes_from_the_url() -> None:
    value = dict(Client("ws://Aladdin:open%20sesame@h/").handshake_headers)["Authorization"]
    assert base64.b64decode(value.removeprefix("Basic ")) == b"Aladdin:open sesame"


def test_a_header_can_not_break_out_of_its_line() -> None:
    with pytest.raises(HandshakeError):
        _ = Client(URL, headers=[("X", "a\r\nY: b")]).handshake_request


def test_the_answer_is_checked_by_methods_that_can_be_called() -> None:
    client = Client(URL, ["a"])
    client.key = b"dGhlIHNhbXBsZSBub25jZQ=="
    client.process_response_line(b"HTTP/1.1 101 Switching Protocols")
    with pytest.raises(HandshakeError, match="403 Forbidden") as refusal:
        client.process_response_line(b"HTTP/1.1 403 Forbidden")
    assert refusal.value.status == 403
    headers = b"Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    headers += b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: a\r\n\r\n"
    assert client.process_handshake_header(headers) == ([b"a"], [])
    with pytest.raises(HandshakeError):
        client.process_handshake_header(headers.replace(b": a", b": b"))


FIVE = b"".join(build_frame(0x81, b"%d" % number) for number in range(5))


def test_frames_behind_the_answer_are_kept() -> None:
    def script(sock: socket.socket) -> None:
        accept(sock, FIVE).receive_rest()

    with Scripted(script) as server:
        client = Client(server.url, close_timeout=0.01)
        client.connect()
        assert [str(client.receive()) for _ in range(5)] == list("01234")
        client.close_connection()


FAULTS = {
    "nothing": b"",
    "garbage": b"\x16\x03\x01\x02\x00" * 99,
    "truncated": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso",
    "no status": b"HTTP/1.1\r\n\r\n",
    "no phrase": b"HTTP/1.1 403\r\n\r\n",
    "no 101": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "no accept": b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "wrong accept": b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
    "no header": b"HTTP/1.1 101 OK\r\nthis is no header\r\n\r\n",
    "redirect to nowhere": b"HTTP/1.1 302 Found\r\nLocation: ftp://x/\r\n\r\n",
    "redirect without location": b"HTTP/1.1 302 Found\r\n\r\n",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault: str) -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(FAULTS[fault])
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b"", "the client has closed its socket"

    with Scripted(script) as server:
        client = Client(server.url)
        with pytest.raises(HandshakeError):
            client.connect()
        with pytest.raises(ConnectionClosed):
            client.send("x")
        client.close()


def test_an_endless_head_is_not_read_to_its_end() -> None:
    sent = 0

    def script(sock: socket.socket) -> None:
        nonlocal sent
        read_request(sock)
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
        for sent in range(10240):  # noqa: B007 - it is looked at outside
            sock.sendall(b"X: %s\r\n" % (b"x" * 1019))

    with Scripted(script) as server, pytest.raises(HandshakeError, match="over 65536 bytes"):
        Client(server.url).connect()
    assert sent < 10239


def test_a_refusal_has_its_status_and_headers() -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n\r\n")

    with Scripted(script) as server, pytest.raises(HandshakeError) as refusal:
        Client(server.url).connect()
    assert refusal.value.status == 429
    assert ("retry-after", "7") in refusal.value.headers


def test_a_server_that_does_not_answer() -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        assert sock.recv(1) == b""

    with Scripted(script) as server, pytest.raises(HandshakeError, match=re.escape("did not answer in 0.05 seconds")):
        Client(server.url, handshake_timeout=0.05).connect()


def test_a_drip_of_bytes_does_not_stretch_the_timeout() -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.settimeout(0.01)
        for byte in b"HTTP/1.1 101 OK\r\n" + b"X: y\r\n" * 1000:
            sock.sendall(bytes([byte]))
            try:
                assert sock.recv(1) == b""
            except TimeoutError:
                continue
            return

    with Scripted(script) as server, pytest.raises(HandshakeError, match="did not answer"):
        Client(server.url, handshake_timeout=0.2).connect()


def test_a_timeout_set_on_the_socket_before_it_connects_counts() -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        assert sock.recv(1) == b""

    with Scripted(script) as server:
        client = Client(server.url)
        client.sock.settimeout(0.05)
        with pytest.raises(HandshakeError, match=re.escape("0.05 seconds")):
            client.connect()


def test_options_set_on_the_socket_before_it_connects_count() -> None:
    with foreign_server() as url:
        client = Client(url)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with client:
            assert client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_port_that_nobody_listens_on() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = Client(f"ws://127.0.0.1:{taken.getsockname()[1]}/")
        with pytest.raises(ConnectionRefusedError):
            client.connect()
        client.close()


def test_a_connection_that_does_not_come_about() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        held = []
        try:
            for _ in range(8):  # the queue of the listener is soon full, and nobody accepts
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex(address)
                held.append(sock)
            with pytest.raises(TimeoutError, match=re.escape("in 0.1 seconds")):
                Client(f"ws://127.0.0.1:{address[1]}/", connect_timeout=0.1).connect()
        finally:
            for sock in held:
                sock.close()


def test_a_unix_socket(tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    def script(sock: socket.socket) -> None:
        seen.update(read_request(sock))
        sock.sendall(answer(seen))
        peer = Peer(sock, masking=False)
        peer.send(peer.text(peer.receive_text()))
        peer.say_goodbye()

    path = str(tmp_path / "socket")
    with Scripted(script, path=path):
        client = Client(f"ws+unix://{path}")
        client.resource = "/1.0/operations"
        with client:
            client.send("hello")
            assert str(client.receive()) == "hello"
            assert client.receive() is None
    assert seen[""] == "GET /1.0/operations HTTP/1.1"
    assert seen["host"] == "localhost"


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: <x>\r\n\r\n" * 3])
def test_interim_answers_are_passed_over(interim: bytes) -> None:
    def script(sock: socket.socket) -> None:
        request = read_request(sock)
        sock.sendall(interim + answer(request))
        Peer(sock, masking=False).say_goodbye()

    with Scripted(script) as server, Client(server.url) as client:
        assert client.receive() is None
    assert client.close_code == 1000


class Dripping:
    """Stands for a socket that has a byte at a time."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)

    def settimeout(self, timeout: float | None) -> None:
        """Never wait."""

    def recv(self, size: int) -> bytes:
        return bytes([next(self._bytes)])


@pytest.mark.parametrize(("start", "part"), [(b"", b"HTTP/1.1 100 \r\n\r\n"), (b"HTTP/1.1 100 OK\r\n", b"X: y\r\n")])
def test_the_work_for_a_head_that_drips_grows_no_faster_than_it(start: bytes, part: bytes) -> None:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    def calls_for_each_byte(parts: int) -> float:
        nonlocal calls
        data = start + part * parts + (b"\r\n" if start else b"") + b"HTTP/1.1 403 No\r\n\r\n"
        calls = 0
        sys.setprofile(count)
        try:
            _, response, _ = read_head(Dripping(data), Deadline(None))
        finally:
            sys.setprofile(None)
        assert response.status == 403
        return calls / len(data)

    assert calls_for_each_byte(200) < 1.5 * calls_for_each_byte(20)
