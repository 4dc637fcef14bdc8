"""How a manager begins and ends beside the ordinary way: a start that fails, a failure, the end of the process."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import (
    PATIENCE,
    EchoRecorder,
    Gate,
    Peer,
    Recorder,
    RestlessPoller,
    Stage,
    quiet,
    until,
    wait_for,
)
from ws4py.exc import HandshakeError, ManagerError
from ws4py.manager import WebSocketManager

WORKERS = pytest.mark.parametrize("workers", [0, 1])


# --- a start that fails -----------------------------------------------------------------------------------------------


class FragilePoller(RestlessPoller):
    """Fails when it is told to."""

    fails_to = ""

    def register(self, fd: int, interest: int = 1) -> None:
        if self.fails_to == "register":
            raise OSError("this poller is broken")
        super().register(fd, interest)

    def poll(self, timeout: float | None = None) -> Any:
        if self.fails_to == "poll":
            raise SystemExit("this poller is broken")
        return super().poll(timeout)


@contextlib.contextmanager
def no_threads(poller: FragilePoller) -> Iterator[None]:
    before = threading.stack_size(1 << 45)
    try:
        yield
    finally:
        threading.stack_size(before)


@contextlib.contextmanager
def no_descriptors(poller: FragilePoller) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def broken_poller(poller: FragilePoller) -> Iterator[None]:
    poller.fails_to = "register"
    yield
    poller.fails_to = ""


@pytest.mark.parametrize("lack", [no_threads, no_descriptors, broken_poller])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("again", [True, False])
def test_a_start_that_fails_leaves_all_as_it_was(stage: Stage, lack: Any, given: bool, again: bool) -> None:
    if lack is broken_poller and not given:
        pytest.skip("it is the given poller that is broken")
    poller = FragilePoller()
    manager = stage.manager(start=again, poller=poller if given else None)
    stage.closers.append(poller.release)
    if again:
        manager.stop()
        manager.join(PATIENCE)
    else:
        websocket, peer = stage.connect(manager, EchoRecorder)
    state = manager.state
    for _ in range(2):
        with lack(poller), pytest.raises((RuntimeError, OSError)):
            manager.start()
        assert not manager.running
        assert not manager.is_alive()
        assert manager.state == state
        with pytest.raises(HandshakeError):
            manager.admit("127.0.0.1")
        manager.join(PATIENCE)
    stage.closers.remove(poller.release)
    manager.start()
    if again:
        websocket, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("x"))
    assert peer.receive_text() == "x"
    assert websocket.messages == [b"x"]


# --- a failure --------------------------------------------------------------------------------------------------------


@WORKERS
def test_a_manager_that_fails_says_so(stage: Stage, workers: int) -> None:
    poller = FragilePoller()
    manager = stage.manager(poller=poller, workers=workers)
    websockets = [stage.connect(manager, EchoRecorder) for _ in range(3)]
    for _, peer in websockets:
        peer.sync()
    assert not manager.failed
    told = threading.Event()
    manager.on_failure = told.set
    with quiet() as records:
        poller.fails_to = "poll"
        manager.join(PATIENCE)
        wait_for(told)
    assert [record.levelname for record in records] == ["CRITICAL"]
    for websocket, peer in websockets:
        assert peer.receive_close()[0] == 1001
        peer.expect_end()
        assert websocket.end()[0] == 1006
    assert manager.failed
    assert not manager.running
    assert not manager.is_alive()
    stats = manager.stats()
    assert (stats.state, stats.failures, stats.connections.open, stats.uptime) == ("failed", 1, 0, 0.0)
    with pytest.raises(HandshakeError):
        manager.admit()
    with pytest.raises(ManagerError):
        manager.add(stage.connect(None, Recorder)[0])
    manager.stop()
    assert manager.failed
    poller.fails_to = ""
    manager.start()
    assert manager.running
    assert not manager.failed
    _, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("x"))
    assert peer.receive_text() == "x"


def test_a_manager_may_be_started_again_by_who_is_told_of_its_failure(stage: Stage) -> None:
    poller = FragilePoller()
    manager = stage.manager(poller=poller)

    def start() -> None:
        poller.fails_to = ""
        manager.start()

    manager.on_failure = start
    with quiet():
        poller.fails_to = "poll"
        until(lambda: manager.stats().failures and manager.running)
    _, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("x"))
    assert peer.receive_text() == "x"


def test_a_failure_waits_for_no_handler_that_blocks(stage: Stage) -> None:
    poller = FragilePoller()
    manager = stage.manager(poller=poller)
    blocked, peer = stage.connect(manager, Gate)
    peer.send(peer.text("x"))
    blocked.wait_entered()
    with quiet():
        poller.fails_to = "poll"
        manager.join(PATIENCE)
    assert manager.failed
    poller.fails_to = ""


# --- like a thread ----------------------------------------------------------------------------------------------------


def test_what_a_manager_has_of_a_thread() -> None:
    manager = WebSocketManager(drain_timeout=0.0)
    assert manager
    assert not manager.daemon
    manager.daemon = True
    manager.name = "mine"
    manager.start()
    try:
        assert "mine" in [thread.name for thread in threading.enumerate()]
        with pytest.raises(RuntimeError):
            manager.daemon = False
        manager.name = "renamed"
        assert "renamed" in [thread.name for thread in threading.enumerate()]
        with manager.lock:
            assert len(manager) == 0
            assert list(manager) == []
            assert manager.broadcast("x") == 0
    finally:
        manager.stop()
        manager.join(PATIENCE)
    assert not manager.is_alive()
    manager.daemon = False


def test_the_lock_of_a_program_is_not_the_managers(stage: Stage) -> None:
    manager = stage.manager()
    with manager.lock:
        websocket, peer = stage.connect(manager, EchoRecorder)
        peer.send(peer.text("x"))
        assert peer.receive_text() == "x"
        assert peer.say_goodbye() == (1000, "")
        websocket.end()


# --- the end of the process -------------------------------------------------------------------------------------------

PROGRAM = """
import socket, sys
from ws4py.manager import WebSocketManager
from ws4py.websocket import EchoWebSocket

class Echo(EchoWebSocket):
    def received_message(self, message):
        if message.data == b"stop":
            manager.stop()
        elif message.data == b"block":
            while True:
                import time; time.sleep(60)
        else:
            super().received_message(message)
    def closed(self, code, reason=None):
        print("closed", code, flush=True)

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
manager = WebSocketManager(workers={workers}, drain_timeout={drain})
{daemon}
manager.start()
for _ in range({peers}):
    manager.add(Echo(listener.accept()[0]))
"""


@contextlib.contextmanager
def program(workers: int, daemon: str, drain: float = 10.0) -> Iterator[tuple[subprocess.Popen[str], list[Peer]]]:
    """Run a program that has a manager with two websockets, and whose main function ends then."""
    code = PROGRAM.format(workers=workers, daemon=daemon, peers=2, drain=drain)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            peers = [Peer(socket.create_connection(("127.0.0.1", port), PATIENCE)) for _ in range(2)]
            yield process, peers
            for peer in peers:
                peer.close()
        finally:
            process.kill()


@pytest.mark.parametrize("daemon", ["", "manager.daemon = False"])
@WORKERS
def test_a_program_lives_while_its_manager_runs(workers: int, daemon: str) -> None:
    with program(workers, daemon) as (process, peers):
        for text in ("once", "again", "and again"):
            for peer in peers:
                peer.send(peer.text(text))
                assert peer.receive_text() == text
        assert process.poll() is None
        peers[0].send(peers[0].text("stop"))
        for peer in peers:
            assert peer.receive_close()[0] == 1001
            peer.send(peer.goodbye(1001))
            peer.expect_end()
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert output.split("\n") == ["closed 1001", "closed 1001", ""]


@WORKERS
def test_a_daemon_is_stopped_in_order_at_the_end_of_the_process(workers: int) -> None:
    with program(workers, "manager.daemon = True") as (process, peers):
        for peer in peers:
            assert peer.receive_close()[0] == 1001
            peer.send(peer.text("my last words"), peer.goodbye(1001))
            peer.expect_end()
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert output.split("\n") == ["closed 1001", "closed 1001", ""]


@WORKERS
def test_the_end_of_the_process_waits_for_nobody_longer_than_the_drain(workers: int) -> None:
    with program(workers, "manager.daemon = True", drain=0.2) as (process, peers):
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert output.split("\n") == ["closed 1006", "closed 1006", ""]
        for peer in peers:
            assert peer.receive_close()[0] == 1001
            peer.expect_end()


def test_a_handler_that_blocks_does_not_keep_the_process() -> None:
    with program(4, "manager.daemon = True", drain=0.5) as (process, peers):
        peers[0].send(peers[0].text("block"))
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        # That it blocks may be in the log, too.
        assert [line for line in output.split("\n") if line.startswith("closed")] == ["closed 1006"]
