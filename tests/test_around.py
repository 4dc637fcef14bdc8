"""What surrounds callbacks under a manager."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.helpers import Peer, Recorder, Script, Stage, until, wait_for
from ws4py.messaging import Message
from ws4py.websocket import WebSocket

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


def ask(peer: Peer, text: str) -> str:
    peer.send(peer.text(text))
    return peer.receive_text()


@pytest.fixture(params=[0, 4])
def workers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_each_callback(stage: Stage, workers: int) -> None:
    said: list[Any] = []

    @contextmanager
    def around(websocket: WebSocket) -> Iterator[None]:
        said.append(("enter", websocket))
        yield
        said.append(("leave", websocket))

    manager = stage.manager(workers=workers, around=around)
    websocket, peer = stage.connect(manager, Recorder)
    peer.send(peer.text("x"))
    peer.send(peer.pong(b"y"))
    peer.send(peer.goodbye(1000))
    wait_for(websocket.was_closed)
    assert [event[0] for event in websocket.events] == ["opened", "message", "ponged", "closed"]
    until(lambda: len(said) == 8)
    assert said == [("enter", websocket), ("leave", websocket)] * 4


def test_one_context_for_each_websocket(stage: Stage, workers: int) -> None:
    @contextmanager
    def around(websocket: WebSocket) -> Iterator[None]:
        yield

    def on_message(websocket: Any, message: Message) -> None:
        websocket.send(variable.get())
        variable.set(message.text)

    manager = stage.manager(workers=workers, around=around)
    scripted = Script.of(message=on_message)
    _, one = stage.connect(manager, scripted)
    _, other = stage.connect(manager, scripted)
    answers = [ask(peer, text) for peer, text in ((one, "a"), (one, "b"), (other, "c"), (one, "d"))]
    assert answers == ["nothing", "a", "nothing", "b"]


@pytest.mark.parametrize("where", ["enter", "leave"])
def test_what_is_around_raises(stage: Stage, workers: int, where: str, caplog: pytest.LogCaptureFixture) -> None:
    """That ends the websocket, which is told so, once, and nobody else."""

    @contextmanager
    def around(websocket: WebSocket) -> Iterator[None]:
        if where == "enter" and websocket is bad:
            raise ZeroDivisionError("on purpose")
        yield
        if where == "leave" and websocket is bad:
            raise ZeroDivisionError("on purpose")

    bad: WebSocket | None = None
    manager = stage.manager(workers=workers, around=around)
    _, good_peer = stage.connect(manager, Script.of(message=lambda websocket, message: websocket.send(message)))
    websocket, peer = stage.connect(manager, Recorder)
    wait_for(websocket.was_opened)
    bad = websocket
    peer.send(peer.text("x"))
    assert peer.receive().payload[:2] == (1011).to_bytes(2, "big")
    peer.send(peer.goodbye(1011))
    wait_for(websocket.was_closed)
    assert [event[0] for event in websocket.events].count("closed") == 1
    until(lambda: websocket.stream is None)
    assert ask(good_peer, "still there") == "still there"
    until(lambda: "on purpose" in caplog.text)
