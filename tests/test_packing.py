"""What a websocket has of its request, which is kept in little memory until it is asked for."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from typing import Any

from tests.helpers import PATIENCE, Recorder, Stage, present, start_thread, until
from ws4py.manager import WebSocketManager
from ws4py.packing import Requested
from ws4py.websocket import WebSocket

USUAL = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/chat",
    "QUERY_STRING": "a=b",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_NAME": "localhost",
    "REMOTE_ADDR": "127.0.0.1",
    "HTTP_HOST": "localhost:9000",
    "HTTP_USER_AGENT": "x" * 1000,
    "HTTP_COOKIE": "session=1",
    "HTTP_X_MINE": "1",
    "wsgi.version": (1, 0),
    "wsgi.multithread": True,
}


class Plain(WebSocket):
    """Asks for nothing."""


def run(stage: Stage, manager: WebSocketManager, environ: dict[str, Any]) -> WebSocket:
    """Return a websocket that a manager runs."""
    websocket, peer = stage.connect(manager, Plain, environ=environ)
    peer.sync()
    return websocket


def test_it_is_what_it_was(stage: Stage) -> None:
    websocket = run(stage, stage.manager(), dict(USUAL))
    environ = websocket.environ
    assert environ == USUAL
    assert environ is not None
    environ["mine"] = 1
    assert websocket.environ is environ


def test_threads_that_ask_at_once_get_the_same(stage: Stage) -> None:
    manager = stage.manager()
    for _ in range(20):
        websocket = run(stage, manager, dict(USUAL))
        barrier = threading.Barrier(4)

        def ask(websocket: WebSocket = websocket, barrier: threading.Barrier = barrier) -> Any:
            barrier.wait(PATIENCE)
            return websocket.environ

        results = [task.result() for task in [start_thread(ask) for _ in range(4)]]
        assert {id(result) for result in results} == {id(websocket.environ)}


def test_a_dictionary_that_another_has_stays_itself(stage: Stage) -> None:
    own = dict(USUAL)
    assert run(stage, stage.manager(), own).environ is own


def test_closed_has_it_and_nobody_after_that(stage: Stage) -> None:
    seen: list[Any] = []

    class Ending(Recorder):
        def on_closed(self, code: int, reason: Any) -> None:
            seen.append(self.environ)

    websocket, peer = stage.connect(stage.manager(), Ending, environ=dict(USUAL))
    peer.say_goodbye()
    websocket.end()
    assert seen == [USUAL]
    until(lambda: websocket.environ is None)


def test_names_that_are_long(stage: Stage) -> None:
    long = {**USUAL, **{f"HTTP_{number}_{'X' * 100}": str(number) for number in range(20)}}
    assert run(stage, stage.manager(), dict(long)).environ == long


def test_another_manager_may_have_it_then(stage: Stage) -> None:
    first, second = stage.manager(), stage.manager()
    websocket = run(stage, first, dict(USUAL))
    first.remove(websocket)
    second.add(websocket)
    until(lambda: present(second) == 1)
    assert websocket.environ == USUAL


def test_a_subclass_has_it_in_its_own_way(stage: Stage) -> None:
    class Own(WebSocket):
        environ = property(lambda self: {"own": True}, lambda self, value: None)

    websocket, peer = stage.connect(stage.manager(), Own)
    peer.sync()
    assert websocket.environ == {"own": True}


def test_what_requests_have_alike_is_kept_once() -> None:
    """Two hundred environs that differ in a key."""

    class Holder(Requested):
        def __init__(self, number: int) -> None:
            self.environ = {**USUAL, "HTTP_SEC_WEBSOCKET_KEY": str(number)}

    holders = [Holder(number) for number in range(200)]
    tracemalloc.start()
    try:
        kept = [Holder(number) for number in range(200)]
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for holder in kept:
            holder._pack()
        gc.collect()
        saved = before - tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert saved / len(kept) > 300
    assert [holder.environ for holder in kept] == [holder.environ for holder in holders]
