"""The server of websockets only: who holds whom up."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import resource
import socket
import ssl
import threading
from typing import Any

import pytest

from tests.helpers import FakeClock, Task, open_fds, quiet, stays, until, wait_for
from tests.server.served import Serve
from tests.serving import PATIENCE, Peer
from ws4py.server import acceptor, threadedserver
from ws4py.server.acceptor import Acceptor
from ws4py.server.threadedserver import Request


def test_mute_clients_cost_no_thread_and_are_dropped(serve: Serve, tls: bool) -> None:
    server = serve(tls=tls, handshake_timeout=0.3, handshake_workers=1)
    threads = threading.active_count()
    mute = [server.connect_plainly() for _ in range(50)]
    mute[0].sock.sendall(b"\x16\x03\x01" if tls else b"GET / HT")
    server.open().echo("here")
    assert threading.active_count() <= threads + 1 + tls + 1
    for peer in mute:
        assert peer.read_to_the_end() == b""


def test_a_client_that_is_slow_to_the_end_is_dropped(serve: Serve, tls: bool) -> None:
    """The deadline is that of the whole handshake, whatever comes meanwhile."""
    peer = serve(tls=tls, handshake_timeout=0.3).connect()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        for _ in range(3000):
            peer.sock.sendall(b"G")
            threading.Event().wait(0.01)
        raise AssertionError("it was not dropped")


def test_a_crowd(serve: Serve, tls: bool) -> None:
    """Many at once, some of which say nothing, or only begin to."""
    server = serve(tls=tls, handshake_workers=2)
    established = server.open()
    mute = [server.connect_plainly() for _ in range(10)]
    for peer in mute[5:]:
        peer.sock.sendall(b"\x16\x03\x01\x00" if tls else b"GET")
    done = threading.Semaphore(0)

    def come() -> None:
        server.open().echo("here")
        done.release()

    threads = [threading.Thread(target=come, daemon=True) for _ in range(60)]
    for thread in threads:
        thread.start()
    established.echo("meanwhile")
    for _ in threads:
        assert done.acquire(timeout=PATIENCE)
    for thread in threads:
        thread.join(PATIENCE)


def test_a_tls_handshake_that_takes_its_time_delays_nobody(serve: Serve) -> None:
    gate, inside = threading.Event(), threading.Event()
    server = serve(tls=True, handshake_workers=2)

    def wait(*_: Any) -> None:
        if not inside.is_set():
            inside.set()
            wait_for(gate)

    context = server.server._context
    assert context is not None
    context.sni_callback = wait
    slow = Task(server.open)
    wait_for(inside)
    server.open().echo("here")
    gate.set()
    slow.result()


def test_who_waits_for_a_mute_client_gets_its_place(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(max_handshakes=2)
    monkeypatch.setattr(acceptor, "PATIENCE", 0.2)
    mute = [server.connect_plainly() for _ in range(2)]
    server.open().echo("here")
    assert mute[0].read_to_the_end() == b""
    mute[1].sock.sendall(mute[1].handshake("/"))
    assert mute[1].read_response().status == 101


def test_the_time_of_the_server_is_none_of_the_clients(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was kept waiting is not given up for another one at once."""
    clock, gate, inside = FakeClock(), threading.Event(), threading.Event()
    monkeypatch.setattr(threadedserver, "Acceptor", functools.partial(Acceptor, clock=clock))
    body = bytes(8 << 20)

    def process_request(request: Request) -> Any:
        if request.path != "/slow":
            return None
        inside.set()
        wait_for(gate)
        return 200, body

    server = serve(process_request=process_request, max_handshakes=1, handshake_timeout=3600.0)
    slow = server.connect()
    slow.sock.sendall(slow.request("/slow"))
    wait_for(inside)
    another = server.connect()
    another.sock.sendall(another.handshake("/"))
    clock.advance(2 * acceptor.PATIENCE)
    gate.set()
    assert slow.read_response().body == body
    slow.close()
    assert another.read_response().status == 101


def test_who_waits_for_a_worker_has_a_deadline(serve: Serve) -> None:
    gate, inside = threading.Event(), threading.Event()

    def process_request(request: Request) -> None:
        inside.set()
        wait_for(gate)

    server = serve(process_request=process_request, handshake_workers=1, handshake_timeout=0.3)
    slow = server.connect()
    slow.sock.sendall(slow.handshake("/"))
    wait_for(inside)
    waiting = [server.connect() for _ in range(3)]
    for peer in waiting:
        peer.sock.sendall(peer.handshake("/"))
    for peer in waiting:
        assert peer.read_to_the_end() == b""
    gate.set()
    assert slow.read_response().status == 101
    slow.echo("here")
    server.open().echo("here")


def test_no_thread_for_a_handshake(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def fail(self: threading.Thread) -> None:
        if self.name.startswith("WebSocketHandshake"):
            raise RuntimeError("can't start new thread")
        start(self)

    server = serve(process_request=lambda request: None, handshake_timeout=3600.0)
    with quiet() as records, monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for _ in range(3):
            peer = server.connect()
            peer.sock.sendall(peer.handshake("/"))
            with contextlib.suppress(ConnectionResetError):
                assert peer.read_to_the_end() == b""
    assert [record.levelno for record in records] == [logging.ERROR]
    server.open().echo("here")


def test_handshakes_are_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "PATIENCE", 3600.0)
    server = serve(max_handshakes=2)
    mute = [server.connect_plainly() for _ in range(2)]
    waiting = server.connect()
    waiting.sock.sendall(waiting.handshake("/"))
    stays(lambda: len(server.server.manager) == 0)
    mute[0].close()
    assert waiting.read_response().status == 101
    waiting.echo("here")


def test_no_descriptor_for_one_more(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[OSError] = []
    pause = Acceptor._pause

    def count(self: Acceptor, error: OSError, now: float) -> None:
        pauses.append(error)
        pause(self, error, now)

    monkeypatch.setattr(Acceptor, "_pause", count)
    server = serve()
    server.open().echo("here")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = [socket.socket() for _ in range(2)]
    fillers: list[int] = []
    with quiet() as records:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fd for fd, _ in open_fds()) + 8, before[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            for client in clients:
                client.settimeout(PATIENCE)
                client.connect(server.server.server_address)
            until(lambda: len(pauses) >= 2)
            stays(lambda: len(pauses) < 20, 0.3)
        finally:
            for filler in fillers:
                os.close(filler)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for client in clients:
            peer = Peer(client, "h")
            assert peer.upgrade("/").status == 101
            peer.echo("here")
            peer.close()
    assert {error.errno for error in pauses} == {errno.EMFILE}
    assert [record.levelno for record in records] == [logging.ERROR]


def test_clients_that_vanish(serve: Serve, tls: bool) -> None:
    server = serve(tls=tls)
    server.open().finish()
    until(lambda: len(server.server.manager) == 0)
    before = len(open_fds())
    for _ in range(20):
        server.connect_plainly().reset()
        peer = server.connect()
        peer.sock.sendall(peer.handshake("/"))
        peer.reset()
    peer = server.connect_plainly()
    peer.sock.sendall(b"GET / HTTP/1.1\r\n")
    peer.close()
    server.open().finish()
    until(lambda: len(open_fds()) <= before)


def test_a_client_without_tls(serve: Serve) -> None:
    server = serve(tls=True)
    peer = server.connect_plainly()
    peer.sock.sendall(peer.handshake("/"))
    assert b"HTTP" not in peer.read_to_the_end()
    server.open().echo("here")
