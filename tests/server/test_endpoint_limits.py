"""What an endpoint has set holds for a websocket that no manager runs: for ``run()``, in a thread or a greenlet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.helpers import EchoRecorder, Peer, Recorder, Stage, start_thread, unix_pair, until
from ws4py.framing import FIN, OPCODE_TEXT
from ws4py.server.wsgiutils import WebSocketWSGIApplication


def run_endpoint(stage: Stage, handler: type[Recorder] = EchoRecorder, **options: Any) -> tuple[Recorder, Peer]:
    """Return a websocket of an endpoint with options that a thread runs, as 0.6 had greenlets do, and its peer."""
    ours, theirs = unix_pair()
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "example.org",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "ws4py.socket": ours,
    }
    list(WebSocketWSGIApplication(handler_cls=handler, **options)(environ, lambda *_: lambda _: None))
    websocket: Any = environ["ws4py.websocket"]
    peer = Peer(theirs)
    task = start_thread(websocket.run)
    stage.closers += [peer.close, task.join]
    return websocket, peer


def test_the_size_of_a_message(stage: Stage) -> None:
    websocket, peer = run_endpoint(stage, max_message_size=10)
    peer.send(peer.binary(bytes(10)))
    assert peer.receive_message() == bytes(10)
    peer.send(peer.binary(bytes(11)))
    assert peer.receive_close()[0] == 1009
    peer.close()
    assert websocket.end()[0] == 1006


def test_the_number_of_fragments(stage: Stage) -> None:
    _, peer = run_endpoint(stage, max_fragments=2)
    peer.send(peer.frame(OPCODE_TEXT, b"a"), peer.frame(FIN, b"b"))
    assert peer.receive_text() == "ab"
    peer.send(peer.frame(OPCODE_TEXT, b"a"), peer.frame(0, b"b"), peer.frame(FIN, b"c"))
    assert peer.receive_close()[0] == 1009


@pytest.mark.parametrize("kind", ["text", "ping"])
def test_messages_a_second(stage: Stage, kind: str) -> None:
    websocket, peer = run_endpoint(stage, max_messages_per_second=5)
    frame = peer.text("x") if kind == "text" else peer.ping(b"x")
    peer.send(*[frame] * 30)  # seven seconds' worth
    received = peer.receive_rest_until_close()
    assert received[-1].payload[:2] == (1008).to_bytes(2, "big")
    assert kind == "ping" or 5 <= len(received[:-1]) < 30
    peer.close()
    assert websocket.end()[0] == 1006


def test_what_is_around_each_callback(stage: Stage) -> None:
    said: list[str] = []

    @contextmanager
    def around(websocket: Any) -> Iterator[None]:
        said.append("enter")
        yield
        said.append("leave")

    websocket, peer = run_endpoint(stage, Recorder, around=around)
    peer.send(peer.text("x"), peer.pong(b"y"))
    assert peer.say_goodbye() == (1000, "")
    websocket.end()
    assert [event[0] for event in websocket.events] == ["opened", "message", "ponged", "closed"]
    until(lambda: len(said) == 8)
    assert said == ["enter", "leave"] * 4


@pytest.mark.parametrize("what", ["opened", "message", "closed"])
def test_what_is_around_raises(stage: Stage, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """That ends the websocket, and closed() is called all the same, once."""
    entered: list[Any] = []

    @contextmanager
    def around(websocket: Any) -> Iterator[None]:
        entered.append(websocket)
        if len(entered) == (1 if what == "opened" else 2):
            raise ZeroDivisionError("on purpose")
        yield

    websocket, peer = run_endpoint(stage, Recorder, around=around)
    if what == "message":
        peer.send(peer.text("x"))
    assert peer.say_goodbye(4000)[0] == (4000 if what == "closed" else 1011)
    until(lambda: websocket.stream is None)
    assert websocket.ends == [(4000, b"")]
    assert what not in [event[0] for event in websocket.events] or what == "closed"
    until(lambda: "on purpose" in caplog.text)
