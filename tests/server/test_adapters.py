"""What every server has to do, whatever it is: the same tests on each."""

from __future__ import annotations

import pytest
from websockets.sync.client import connect

from tests.hosting import Hosted
from tests.serving import PING, PONG, Peer, frame

pytest.importorskip("gevent")
pytest.importorskip("gunicorn")
pytest.importorskip("werkzeug")
pytest.importorskip("cheroot")

GUNICORN = "-m gunicorn tests.hosting:make_application() -b 127.0.0.1:PORT --threads 8 --graceful-timeout 2 -k"
PLAIN = ["gevent", "gevent-patched", "gevent-wsgi", "gevent-bare", "gevent-foreign", "cheroot", "wsgiref", "werkzeug"]
PLAIN += ["threaded", "threaded-patched", "gunicorn-gthread", "gunicorn-gevent"]
SECURE = ["gevent", "gevent-patched", "gevent-wsgi", "gevent-foreign", "cheroot", "werkzeug", "threaded"]
SECURE = [host for host in SECURE if host != "gevent-foreign"] + ["gunicorn-gthread", "gunicorn-gevent"]


def hosted(name: str, tls: bool = False) -> Hosted:
    """Return a server by its name."""
    kind, _, variant = name.partition("-")
    if kind == "gunicorn":
        program = [*GUNICORN.split(" "), variant]
        if tls:
            from tests.serving import certificates

            program += ["--certfile", certificates().certificate, "--keyfile", certificates().key]
        return Hosted(name, program, tls=tls, status=None)
    if variant == "patched":
        return Hosted(kind, patch=True, tls=tls)
    return Hosted(name, tls=tls)


@pytest.fixture(scope="module", params=[(name, False) for name in PLAIN] + [(name, True) for name in SECURE], ids=str)
def server(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """Every server, plain and with TLS."""
    with hosted(*request.param) as server:
        yield server


def test_echo(server: Hosted) -> None:
    with connect(server.url("/"), ssl=server.tls) as client:
        for message in ("", "text é", b"", b"binary", "x" * 200_000):
            client.send(message)
            assert client.recv(timeout=20) == message
        assert client.ping().wait(20)
    assert client.close_code == 1000


def test_early_frames(server: Hosted) -> None:
    """Frames in the segment of the handshake itself."""
    messages = [f"message {number}" for number in range(5)]
    with server.open("/", b"".join(frame(message) for message in messages)) as peer:
        assert [peer.message() for _ in messages] == messages
        peer.echo("later")
        peer.finish()


def test_early_frames_that_are_large(server: Hosted) -> None:
    """More than any reader has read ahead, the last frame in two parts."""
    data = frame(b"1" * 30_000) + frame(b"2" * 30_000)
    with server.open("/", data[:-1]) as peer:
        assert peer.message() == b"1" * 30_000
        peer.sock.sendall(data[-1:])
        assert peer.message() == b"2" * 30_000
        peer.finish()


def test_the_101_has_no_body(server: Hosted) -> None:
    with server.connect() as peer:
        response = peer.upgrade("/")
        assert response.status == 101
        assert response.get("content-length") is None
        assert response.get("transfer-encoding") is None
        assert (response.get("connection") or "").lower() == "upgrade"
        peer.finish()


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (426, {"Upgrade": None}),
        (426, {"Upgrade": "h2c"}),
        (426, {"Connection": "close"}),
        (426, {"Sec_WebSocket_Version": "7"}),
        (400, {"Sec_WebSocket_Key": None}),
        (400, {"Sec_WebSocket_Key": "short"}),
        (400, {"Sec_WebSocket_Key": "é"}),
        (403, {"Origin": "https://evil.example"}),
    ],
    ids=str,
)
def test_bad_handshake(server: Hosted, status: int, changes: dict[str, str | None]) -> None:
    if changes.get("Upgrade", "websocket") != "websocket" and "fallback" in answer(server.connect(), {})[1]:
        pytest.skip("this server has pages, too")
    assert answer(server.connect(), changes)[0] == status


def test_pages_with_and_without_tls(server: Hosted) -> None:
    """A page without TLS is not of a server with TLS; a server without may be behind a proxy that ends it."""
    for scheme, forwarded, status in (
        ("https", None, 101),
        ("http", None, 403 if server.tls else 101),
        ("https", "https", 101),
        ("http", "https", 403),
    ):
        with server.connect() as peer:
            response = peer.upgrade("/", Origin=f"{scheme}://{server.host}", X_Forwarded_Proto=forwarded)
            assert response.status == status
            if status == 101:
                peer.finish()


def test_wrong_method(server: Hosted) -> None:
    with server.connect() as peer:
        peer.sock.sendall(peer.handshake("/", method="POST", Content_Length="0"))
        assert peer.read_response().status == 405


def answer(peer: Peer, changes: dict[str, str | None]) -> tuple[int, str]:
    """Return the status and the body of the answer to a handshake."""
    with peer:
        response = peer.get("/") if not changes else peer.upgrade("/", b"", **changes)
        if response.status == 426:
            assert "13" in (response.get("sec-websocket-version") or "")
        return response.status, response.body.decode()


def test_vanishing_client(server: Hosted) -> None:
    before = server.log().count('["closed", 1006')
    peer = server.open("/")
    peer.echo("here")
    peer.reset()
    server.wait_for("closed", 1006, times=before + 1)


def test_a_ping_is_answered(server: Hosted) -> None:
    with server.open("/") as peer:
        peer.send(b"data", PING)
        answer = peer.receive()
        assert (answer.opcode, answer.payload) == (PONG, b"data")
        peer.finish()


def test_a_handler_that_raises(server: Hosted) -> None:
    server.quiet = False
    with server.open("/") as peer:
        peer.send("raise on purpose")
        assert peer.receive().code == 1011
    server.wait_for_line("on purpose")


@pytest.mark.parametrize("name", [name for name in PLAIN if not name.startswith(("gunicorn", "gevent-foreign"))])
def test_stop(name: str) -> None:
    """The server says goodbye, and ends when its clients have answered."""
    with hosted(name) as server, server.open("/") as peer:
        peer.echo("here")
        server.process.terminate()
        assert peer.receive().code == 1001
        peer.finish_after_close(1001)
        assert server.wait() == 0
        server.wait_for("closed", 1001)
        server.wait_for("stopped", 0)
