"""Starts and exits, one after the other, while clients send: nothing hangs, nothing is left, every end is told once."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest

from tests.helpers import PATIENCE, Peer, Recorder, Script, Stage, Task, start_thread, tcp_pair, unix_pair, wait_for
from ws4py.framing import OPCODE_CLOSE
from ws4py.manager import WebSocketManager
from ws4py.messaging import Message
from ws4py.websocket import WebSocket

KINDS = [
    ({"dispatch": "adaptive"}, 150),
    ({"dispatch": "adaptive", "workers": 1}, 100),
    ({"dispatch": "pool"}, 100),
    ({"dispatch": "pool", "workers": 1}, 50),
    ({"workers": 0}, 100),
]
"""Options, and how many rounds: 500 in all."""

CLIENTS = 3


def send_on(peer: Peer, polite: bool) -> None:
    """Send and receive, until the connection ends.

    :param polite: a Close is answered; else it sends on, whatever comes.
    """
    with contextlib.suppress(EOFError, OSError):
        while True:
            peer.send(peer.text("x"), peer.ping(b"y"))
            if peer.receive().opcode == OPCODE_CLOSE and polite:
                peer.send(peer.goodbye(1001))
                peer.receive_rest()
                return


@pytest.mark.parametrize(("options", "rounds"), KINDS, ids=str)
def test_starts_and_exits_under_traffic(stage: Stage, options: dict[str, Any], rounds: int) -> None:
    """One manager, and every fifth time a new one; by another thread, and by a callback."""
    manager = stage.manager(start=False, drain_timeout=0.02, **options)
    managers = [manager]
    for number in range(rounds):
        if number % 5 == 4:
            managers.append(stage.manager(start=False, drain_timeout=0.02, **options))
            manager = managers[-1]
        go = threading.Event()
        websockets, tasks = traffic(stage, manager, go)
        if number % 2:
            manager.stop()
        else:
            go.set()
        manager.join(PATIENCE)
        assert manager.state == "stopped"
        for websocket in websockets:
            wait_for(websocket.was_closed)
            assert len(websocket.ends) == 1
            assert websocket.faults == []
            assert websocket.errors == []
        for task in tasks:
            task.result()
        if number % 5 == 4:
            manager = managers[0]
    for one in managers:
        figures = one.stats().connections
        assert (figures.open, figures.closing) == (0, 0)
        assert sum(figures.closed.values()) == figures.opened
    assert sum(one.stats().connections.opened for one in managers) == rounds * CLIENTS


def traffic(stage: Stage, manager: WebSocketManager, go: threading.Event) -> tuple[list[Recorder], list[Task]]:
    """Start a manager, and return its websockets and their clients; they send already.

    :param go: has the callbacks stop the manager.
    """

    def echo(websocket: WebSocket, message: Message) -> None:
        websocket.send(message.data)
        if go.is_set():
            manager.stop()
            manager.join(PATIENCE)

    kind = Script.of(message=echo)
    websockets: list[Recorder] = []
    tasks = []
    before = manager.state == "new"  # so its websockets may be added before the start
    if not before:
        manager.start()
    for client in range(CLIENTS):
        websocket: Recorder
        websocket, peer = stage.connect(manager, kind, tcp_pair if client == 1 else unix_pair)
        websockets.append(websocket)
        tasks.append(start_thread(send_on, peer, client != 2))
    if before:
        manager.start()
    for websocket in websockets:
        wait_for(websocket.was_opened)
    return websockets, tasks
