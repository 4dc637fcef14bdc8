"""How sockets change hands: from cheroot, in each of its shapes under CherryPy, to the manager."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import ssl
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("cherrypy", reason="these are tests of ws4py under CherryPy")
pytest.importorskip("OpenSSL", reason="one of cheroot's two kinds of TLS is pyOpenSSL")
client = pytest.importorskip("websockets.sync.client", reason="one of the peers is the package websockets")

from cheroot.server import HTTPConnection  # noqa: E402
from cheroot.workers.threadpool import ThreadPool  # noqa: E402

from tests.serving import ACCEPT, BINARY, CLOSE, PATIENCE, PING, PONG, TEXT, Server, close_frame, frame  # noqa: E402
from ws4py.server.takeover import arm  # noqa: E402

SHAPES = list(itertools.product(("wsgi", "native"), (None, "builtin", "pyopenssl"), (False, True)))
CONNECTIONS_KEPT = 10  # cheroot keeps so many idle ones, and closes further ones after their response

tags = (f"t{number}" for number in itertools.count())


@pytest.fixture(
    scope="module",
    params=SHAPES,
    ids=["-".join((server, tls or "plain", *(["statistics"] if stats else []))) for server, tls, stats in SHAPES],
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    kind, tls, statistics = request.param
    with Server({"server": kind, "tls": tls, "statistics": statistics}) as server:
        yield server
        # None of the tests may have left anything behind.
        state = server.state(websockets=0)
        assert (state["websockets"], state["entries"]) == (0, 0)


@pytest.fixture
def tag() -> str:
    """What the events of a test's websockets are kept under."""
    return next(tags)


def test_messages_are_answered_at_once(server: Server) -> None:
    # 0.6 showed each message over TLS only when the next one came
    with server.open("/echo") as peer:
        for number in range(8):
            peer.echo(f"message {number}")
        for size in (0, 1, 125, 126, 65535, 65536):
            peer.echo(bytes(size))
        peer.finish()


def test_frames_in_the_segment_of_the_handshake_are_kept(server: Server, tag: str) -> None:
    messages = [f"early {number}" for number in range(5)]
    with server.open(f"/echo?tag={tag}", after=b"".join(map(frame, messages))) as peer:
        assert [peer.message() for _ in messages] == messages
        peer.echo("late")
        peer.finish()
    assert server.events(tag, 2) == [["opened", None, []], ["closed", 1000, ""]]


@pytest.mark.parametrize("size", [7_000, 8_000, 9_000, 15_000, 40_000, 200_000])
def test_much_behind_the_handshake_is_kept_in_order(server: Server, size: int) -> None:
    # what the HTTP server has buffered, what a TLS object has decrypted, and what is in the kernel still
    messages = [f"{number:06}" * (size // 60) for number in range(10)]
    with server.open("/echo", after=b"".join(map(frame, messages))) as peer:
        assert [peer.message() for _ in messages] == messages
        peer.finish()


def test_a_frame_that_is_split_by_the_takeover_is_kept(server: Server) -> None:
    data = frame("a message in two parts")
    with server.open("/echo", after=data[:9]) as peer:
        peer.sock.sendall(data[9:])
        assert peer.message() == "a message in two parts"
        peer.finish()


def test_a_close_in_the_segment_of_the_handshake_is_answered(server: Server, tag: str) -> None:
    with server.open(f"/echo?tag={tag}", after=frame("last words") + close_frame(1001, "bye")) as peer:
        assert peer.message() == "last words"
        assert peer.receive().code == 1001
        assert peer.read_to_the_end() == b""
    assert server.events(tag, 2)[1] == ["closed", 1001, "bye"]


def test_a_client_that_is_gone_behind_its_handshake_is_forgotten(server: Server, tag: str) -> None:
    for _ in range(5):
        with server.connect() as peer:
            peer.sock.sendall(peer.handshake(f"/echo?tag={tag}"))
            peer.reset()
    assert server.state(websockets=0)["entries"] == 0
    assert all(event in (["opened", None, []], ["closed", 1006, "Going away"]) for event in server.events(tag))


@pytest.mark.parametrize("size", [1_000, 70_000, 1_000_000])
def test_large_messages_pass_whole(server: Server, size: int) -> None:
    with server.open("/echo") as peer:
        peer.echo(bytes(range(250)) * (size // 250))
        peer.echo("é" * (size // 2))
        peer.finish()


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999, None])
def test_the_peers_close_is_answered_with_its_code(server: Server, tag: str, code: int | None) -> None:
    with server.open(f"/echo?tag={tag}") as peer:
        peer.finish(code)
    assert server.events(tag, 2)[1][:2] == ["closed", code or 1005]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (4000, "é" * 61)])
def test_the_servers_close_reaches_the_peer(server: Server, tag: str, code: int, reason: str) -> None:
    with server.open(f"/closer?tag={tag}") as peer:
        peer.send(f"{code} {reason}")
        received = peer.receive()
        assert (received.opcode, received.payload) == (CLOSE, code.to_bytes(2, "big") + reason.encode())
        peer.sock.sendall(close_frame(code))
        assert peer.read_to_the_end() == b""
    assert server.events(tag, 2)[1][:2] == ["closed", code]


def test_the_head_of_the_response(server: Server) -> None:
    with server.connect() as peer:
        response = peer.upgrade(
            "/protocols", Sec_WebSocket_Protocol="none, superchat, chat", Sec_WebSocket_Extensions="permessage-deflate"
        )
        peer.finish()
    assert response.status == 101
    headers = dict(response.headers)
    assert len(headers) == len(response.headers)
    assert headers.pop("server")
    assert headers.pop("date")
    assert headers == {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-accept": ACCEPT,
        "sec-websocket-protocol": "superchat",
    }


def test_fragments_and_control_frames(server: Server) -> None:
    with server.open("/echo") as peer:
        peer.sock.sendall(frame(b"one ", TEXT, fin=False) + frame(b"ping", PING) + frame(b"two", 0))
        assert peer.receive() == (True, PONG, b"ping")
        assert peer.message() == "one two"
        peer.sock.sendall(frame(b"nobody asked", PONG))
        peer.echo(b"\x00\xff")
        peer.finish()


def test_requests_before_the_upgrade_on_its_connection(server: Server) -> None:
    with server.connect() as peer:
        for _ in range(3):
            assert peer.get("/").body == b"hello"
        assert len(peer.get("/big").body) == 300_000
        response = peer.upgrade("/echo", after=frame("early"))
        assert response.status == 101
        assert peer.message() == "early"
        peer.echo("late")
        peer.finish()


def test_pipelined_requests_before_the_upgrade(server: Server) -> None:
    with server.connect() as peer:
        peer.sock.sendall(peer.request("/") * 3 + peer.handshake("/echo") + frame("early"))
        assert [peer.read_response().body for _ in range(3)] == [b"hello"] * 3
        assert peer.read_response().status == 101
        assert peer.message() == "early"
        peer.finish()


def test_a_refusal_leaves_the_connection_to_http(server: Server, tag: str) -> None:
    with server.connect() as peer:
        response = peer.upgrade(f"/refuse?status=403&tag={tag}")
        assert response.status == 403
        assert response.get("upgrade") is None
        assert response.get("connection") is None
        assert peer.get("/").body == b"hello"
        assert peer.upgrade("/echo", Sec_WebSocket_Version="7").status == 426
        assert peer.upgrade("/echo").status == 101
        peer.echo("now it is one")
        peer.finish()
    assert server.events(tag) == []


def test_keep_alive_clients_are_undisturbed_while_websockets_come_and_go(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(4)]
        for round_ in range(6):
            for keeper in clients:
                assert keeper.get("/").body == b"hello"
            peers = [stack.enter_context(server.open("/echo", after=frame("early"))) for _ in range(3)]
            for peer, keeper in zip(peers, clients, strict=False):
                assert peer.message() == "early"
                assert keeper.get("/").body == b"hello"
            for number, peer in enumerate(peers):
                if (number + round_) % 3:
                    peer.finish()
                else:
                    peer.reset()


def test_both_ways_out_of_http(server: Server) -> None:
    """Below the limit of idle connections cheroot would keep ours, above it would close it."""
    with contextlib.ExitStack() as stack:
        websockets = []
        for number in range(3 * CONNECTIONS_KEPT):
            keeper = stack.enter_context(server.connect())
            response = keeper.get("/")
            assert response.body == b"hello"
            assert response.get("connection") in (None, "close")
            peer = stack.enter_context(server.connect())
            assert peer.upgrade("/echo", after=frame(f"early {number}")).status == 101
            websockets.append(peer)
            assert peer.message() == f"early {number}"
        assert response.get("connection") == "close"  # the limit was reached, so both ways were gone
        for number, peer in enumerate(websockets):
            peer.echo(f"late {number}")
        for peer in websockets:
            peer.finish()


def test_a_broadcast_reaches_all(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(server.open("/echo", after=frame("here"))) for _ in range(5)]
        for peer in peers:
            assert peer.message() == "here"
        assert server.get("/broadcast?text=to+all").body == b"done"
        for peer in peers:
            assert peer.message() == "to all"
            peer.finish()


def test_a_peer_that_others_wrote(server: Server, tag: str) -> None:
    context: ssl.SSLContext | None = server.tls
    with client.connect(
        server.url(f"/protocols?tag={tag}"), ssl=context, subprotocols=["none", "chat"], open_timeout=PATIENCE
    ) as peer:
        assert peer.subprotocol == "chat"
        for message in ("text", b"bytes", "x" * 100_000, ["frag", "ments"]):
            peer.send(message)
            assert peer.recv(PATIENCE) == ("".join(message) if isinstance(message, list) else message)
        assert peer.ping("are you there?").wait(PATIENCE)
        peer.close(3001, "enough")
        assert peer.close_code == 3001
    assert server.events(tag, 2) == [["opened", ["chat"], []], ["closed", 3001, "enough"]]


def test_a_protocol_error_is_answered(server: Server, tag: str) -> None:
    with server.open(f"/echo?tag={tag}") as peer:
        peer.sock.sendall(frame("not masked", mask=False))
        assert peer.receive().code == 1002
        assert peer.read_to_the_end() == b""
    assert server.events(tag, 2)[1][:2] == ["closed", 1006]


def test_the_statistics_page(server: Server) -> None:
    with server.open("/echo", after=frame("early")) as peer:
        assert peer.message() == "early"
        page = server.get("/cpstats/")
        assert page.status == (200 if server.options["statistics"] else 404)
        if server.options["statistics"]:
            assert b"Cheroot HTTPServer" in page.body
            json.loads(server.get("/cpstats/data/").body)
        peer.echo("late")
        peer.finish()


def test_bytes_that_are_no_tls_or_no_http(server: Server) -> None:
    for garbage in (b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x00\x01\x00"):
        with server.connect_plainly() as sock:
            sock.sendall(garbage)
    assert server.get("/").body == b"hello"


def test_frames_have_no_more_bytes_than_they_say(server: Server) -> None:
    with server.open("/echo") as peer:
        peer.send(b"x" * 126)
        assert peer.read(4) == bytes((0x80 | BINARY, 126, 0, 126))
        assert peer.read(126) == b"x" * 126
        peer.finish()


def test_a_server_that_gives_its_workers_up_leaves_the_socket_alone() -> None:
    """cheroot does so when it stops, and a worker is still with a connection after ``shutdown_timeout``."""
    ours, peers = socket.socketpair()
    with ours, peers:
        connection = HTTPConnection(SimpleNamespace(peercreds_enabled=False, peercreds_resolve_enabled=False), ours)
        force_close = cast("Any", ThreadPool)._force_close
        taken: list[tuple[socket.socket, bytes]] = []

        def receive(sock: socket.socket, early: bytes) -> None:
            force_close(connection)
            taken.append((sock, early))

        arm(connection, receive)
        force_close(connection)
        connection.close()
        connection.close()
        assert taken == [(ours, b"")]
        peers.sendall(b"still open")
        assert ours.recv(100) == b"still open"


@pytest.mark.parametrize("failing", ["receiver", "client"])
def test_a_socket_that_can_not_be_handed_over_is_closed(failing: str, caplog: pytest.LogCaptureFixture) -> None:
    def receive(_sock: socket.socket, _early: bytes) -> None:
        raise ArithmeticError("a listener's own fault")

    ours, peers = socket.socketpair()
    with ours, peers:
        connection = HTTPConnection(SimpleNamespace(peercreds_enabled=False, peercreds_resolve_enabled=False), ours)
        if failing == "client":
            peers.close()
            with pytest.raises(BrokenPipeError):
                connection.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\n")
        arm(connection, receive)
        connection.close()
        assert ours.fileno() == -1
    # that a client is gone is no news for the log
    assert ("a listener's own fault" in caplog.text) == (failing == "receiver")
    assert len(caplog.records) == (failing == "receiver")
