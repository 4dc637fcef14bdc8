"""Clients under a manager, against our own server."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import PATIENCE, until
from ws4py.client import WebSocketBaseClient
from ws4py.client.threadedclient import WebSocketClient
from ws4py.manager import WebSocketManager
from ws4py.messaging import Message

pytest.importorskip("cherrypy", reason="the server is CherryPy")

SERVER = """if True:
    import sys
    import cherrypy
    from ws4py.server.cherrypyserver import WebSocketPlugin, WebSocketTool
    from ws4py.websocket import EchoWebSocket

    class Root:
        @cherrypy.expose
        def ws(self):
            cherrypy.request.ws_handler.heartbeat_freq = 0

    cherrypy.config.update({
        "server.socket_host": "127.0.0.1", "server.socket_port": int(sys.argv[1]), "server.socket_queue_size": 512,
        "engine.autoreload.on": False, "log.screen": False, "environment": "production",
    })
    WebSocketPlugin(cherrypy.engine).subscribe()
    cherrypy.tools.websocket = WebSocketTool()
    tool = {"tools.websocket.on": True, "tools.websocket.handler_cls": EchoWebSocket}
    cherrypy.tree.mount(Root(), config={"/ws": tool})
    cherrypy.engine.signals.subscribe()
    cherrypy.engine.start()
    print(cherrypy.server.bound_addr[1], flush=True)
    cherrypy.engine.block()
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of an echo server under CherryPy, in a process of its own."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", SERVER, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield f"ws://127.0.0.1:{port}/ws"
        process.terminate()
        assert process.wait(PATIENCE) == 0


class Managed(WebSocketBaseClient):
    """As the tutorial has it: the manager runs it from the handshake on."""

    def __init__(self, manager: WebSocketManager, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"proxy": None} | options)
        self.manager = manager
        self.received: list[bytes] = []
        self.ends: list[int] = []
        self.done = threading.Event()

    def handshake_ok(self) -> None:
        self.manager.add(self)

    def opened(self) -> None:
        self.send("hello")

    def received_message(self, message: Message) -> None:
        self.received.append(message.data)

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        self.ends.append(code)
        self.done.set()


def test_our_client_and_our_server(url: str) -> None:
    with WebSocketClient(url, proxy=None) as client:
        client.send("text")
        client.send(b"\x00" * 100_000, binary=True)
        client.send(iter("abc"))
        assert [client.receive(timeout=PATIENCE).data for _ in range(3)] == [  # type: ignore[union-attr]
            b"text",
            b"\x00" * 100_000,
            b"abc",
        ]
    assert client.close_code == 1000


def test_the_clients_limits_hold_under_a_manager(url: str) -> None:
    with WebSocketManager() as manager:
        client = Managed(manager, url, max_message_size=10, close_timeout=0.1)
        client.connect()
        client.send("x" * 11)
        assert client.done.wait(PATIENCE)
    assert client.ends == [1006]
    assert client.received in ([b"hello"], [])


def test_thousands_of_clients_in_one_process(url: str) -> None:
    """The server has as many descriptors, in its own process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(2000, soft - 200)
    threads = threading.active_count()
    manager = WebSocketManager(workers=4)
    manager.start()
    clients = [Managed(manager, url) for _ in range(count)]
    for client in clients:
        client.connect()
    until(lambda: all(client.received for client in clients))
    assert len(manager.websockets) == len(manager) == count
    assert threading.active_count() <= threads + 5
    for client in clients:
        client.close(reason="done")
    for client in clients:
        assert client.done.wait(PATIENCE)
    manager.stop()
    manager.join(PATIENCE)
    assert not manager.is_alive()
    assert [client.received for client in clients] == [[b"hello"]] * count
    assert [client.ends for client in clients] == [[1000]] * count
    assert all(client.sock is None for client in clients)


def test_a_stopping_manager_closes_its_clients(url: str) -> None:
    with WebSocketManager() as manager:
        client = Managed(manager, url)
        client.connect()
        until(lambda: client.received)
    assert client.ends == [1001]
