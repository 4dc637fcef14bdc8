"""Deadlines of clients for what knows none: the look-up of a name."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client_servers import Scripted, accept
from tests.helpers import PATIENCE, start_thread, until, wait_for
from ws4py.client import WebSocketBaseClient
from ws4py.client.network import MAX_CALLS


class Resolver:
    """Answers nobody before it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.answers = threading.Event()
        self.waiting = 0
        self._lock = threading.Lock()
        self._ask = socket.getaddrinfo

    def __call__(self, host: str, *arguments: Any) -> Any:
        with self._lock:
            self.asked.append(host)
            self.threads.add(threading.current_thread())
            self.waiting += 1
        try:
            wait_for(self.answers)
            return self._ask(host, *arguments)
        finally:
            with self._lock:
                self.waiting -= 1


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.answers.set()
    until(lambda: not resolver.waiting)


def test_a_name_that_is_not_found_in_time(resolver: Resolver) -> None:
    with pytest.raises(TimeoutError, match=re.escape("localhost in 0.05 seconds")):
        WebSocketBaseClient("ws://localhost:1/", connect_timeout=0.05, proxy=None).connect()
    with pytest.raises(TimeoutError, match=re.escape("proxy.test in 0.05 seconds")):
        WebSocketBaseClient("ws://h/", connect_timeout=0.05, proxy="http://proxy.test").connect()
    assert resolver.asked == ["localhost", "proxy.test"]


def test_few_threads_wait_for_answers_at_once(resolver: Resolver) -> None:
    def connect() -> None:
        with pytest.raises(TimeoutError):
            WebSocketBaseClient("ws://localhost:1/", connect_timeout=0.3, proxy=None).connect()

    for task in [start_thread(connect) for _ in range(MAX_CALLS + 8)]:
        task.result()
    assert resolver.waiting == MAX_CALLS
    assert len(resolver.asked) == MAX_CALLS
    resolver.answers.set()
    until(lambda: not resolver.waiting)
    with pytest.raises(ConnectionRefusedError):
        WebSocketBaseClient("ws://localhost:1/", proxy=None).connect()


def test_an_address_is_not_looked_up_in_a_thread(resolver: Resolver) -> None:
    resolver.answers.set()
    with Scripted(lambda sock: (accept(sock), None)[1]) as server:
        client = WebSocketBaseClient(server.url, proxy=None)
        client.connect()
        client.close_connection()
    assert resolver.threads == {threading.current_thread()}


def test_a_name_that_is_not_known() -> None:
    with pytest.raises(socket.gaierror):
        WebSocketBaseClient("ws://nowhere.invalid/", proxy=None).connect()


PROGRAM = """if True:
    import os, socket, sys, threading, time
    from ws4py.client import WebSocketBaseClient
    from ws4py.client.network import MAX_CALLS

    ask, waiting = socket.getaddrinfo, threading.Semaphore(0)

    def never(*arguments):
        waiting.release()
        time.sleep(3600)

    def connect():
        try:
            WebSocketBaseClient("ws://localhost:1/", connect_timeout=20, proxy=None).connect()
        except OSError as error:
            print(type(error).__name__, flush=True)

    socket.getaddrinfo = never
    for _ in range(MAX_CALLS):
        threading.Thread(target=connect, daemon=True).start()
    for _ in range(MAX_CALLS):
        waiting.acquire()
    socket.getaddrinfo = ask
    child = os.fork()
    if not child:
        connect()
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_threads_of_its_own_for_it() -> None:
    """And no look-up keeps a process from its end."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=Path(__file__).resolve().parents[2],
        check=True,
    )
    assert done.stdout == "ConnectionRefusedError\n"
    assert time.monotonic() - began < 15
