"""Fixtures for the server of websockets only."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import open_fds, until
from tests.server.served import Serve, Served, server_context
from ws4py.server.threadedserver import WebSocketServer
from ws4py.websocket import EchoWebSocket


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server; nothing of it may stay behind."""
    threads, descriptors = set(threading.enumerate()), open_fds()
    with contextlib.ExitStack() as ends:

        def start(
            what: Any = EchoWebSocket, *, address: Any = ("127.0.0.1", 0), tls: bool = False, **options: Any
        ) -> Served:
            if tls:
                options["ssl_context"] = server_context()
            server = ends.enter_context(WebSocketServer(address, what, **options))
            served = Served(server, tls)
            ends.callback(served.close)
            return served

        yield start
    until(lambda: set(threading.enumerate()) <= threads)
    assert open_fds() <= descriptors


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)
