"""Processes that fork: what a child may do with what it inherits, and what it is told about the rest."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import queue
import select
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.client_servers import foreign_server
from tests.helpers import (
    PATIENCE,
    Certificates,
    EchoRecorder,
    Gate,
    Peer,
    Recorder,
    Stage,
    open_fds,
    start_thread,
    tcp_pair,
    unix_pair,
    until,
    wait_for,
)
from ws4py.client.threadedclient import WebSocketClient
from ws4py.engine.counters import WorkerCounters
from ws4py.exc import ConnectionClosed, ManagerError, SlowConsumer
from ws4py.extensions import Codec
from ws4py.extensions.permessage_deflate import DeflateAgreement
from ws4py.framing import FIN, OPCODE_TEXT, RSV1
from ws4py.manager import WebSocketManager
from ws4py.messaging import Message
from ws4py.websocket import EchoWebSocket, WebSocket

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def start_child(function: Callable[[], None]) -> Child:
    """Run a function in a forked process, which is returned."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork() with threads: that is what is tested
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            function()
            status = 0
        except BaseException:  # noqa: BLE001 - it is told to the parent
            os.write(writer, traceback.format_exc().encode()[:60_000])
        finally:
            os._exit(status)
    os.close(writer)

    return Child(pid, reader)


class Child:
    """A forked process.

    :param reader: of a pipe, on which it says what has gone wrong.
    """

    def __init__(self, pid: int, reader: int) -> None:
        self.pid = pid
        self._reader = reader

    def __call__(self) -> None:
        """Wait for its end, which must be a good one, and in time."""
        reader, pid = self._reader, self.pid
        text = b""
        try:
            poller = select.poll()
            poller.register(reader, select.POLLIN)
            while poller.poll(PATIENCE * 1000):
                data = os.read(reader, 65536)
                if not data:
                    break
                text += data
            else:
                os.kill(pid, 9)
                text += b"the child did not end in time"
        finally:
            os.close(reader)
            _, status = os.waitpid(pid, 0)
        assert status == 0, text.decode()


def in_child(function: Callable[[], None]) -> None:
    start_child(function)()


def in_child_of_child(function: Callable[[], None]) -> None:
    in_child(lambda: in_child(function))


@pytest.mark.parametrize("run", [in_child, in_child_of_child])
@pytest.mark.parametrize("workers", [0, 4])
def test_a_child_sends_on_an_inherited_websocket(stage: Stage, run: Any, workers: int) -> None:
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)

    def child() -> None:
        websocket.send("from the child")
        websocket.send(b"\xff", binary=True)
        websocket.send(iter(["in ", "parts"]))
        websocket.ping("ping")

    run(child)
    assert peer.receive_text() == "from the child"
    assert peer.receive_message() == b"\xff"
    assert peer.receive_text() == "in parts"
    assert peer.receive().payload == b"ping"
    peer.send(peer.text("to the parent"))
    assert peer.receive_text() == "to the parent"
    websocket.send("from the parent")
    assert peer.receive_text() == "from the parent"


@pytest.mark.parametrize("seconds", [0.2, PATIENCE])
def test_a_child_sends_while_the_parents_threads_hold_locks(stage: Stage, seconds: float) -> None:
    """The child has none of the threads that would release them; so the fork waits for those, but not for ever."""
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    wait_for(websocket.was_opened)
    connection: Any = websocket._connection
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with manager._guard, manager._registry.lock, connection.lock, manager._engine.lock:
            held.set()
            let_go.wait(seconds)

    def child() -> None:
        websocket.send("from the child")
        assert not manager.running
        manager.stats()

    holder = start_thread(hold)
    wait_for(held)
    in_child(child)
    let_go.set()
    holder.result()
    assert peer.receive_text() == "from the child"
    peer.sync()


class Forker(Recorder):
    """Forks in a handler, which returns in both processes; then it echoes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.children: list[int] = []

    def on_message(self, message: Message) -> None:
        if message.data.startswith(b"fork"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid:
                self.children.append(pid)
            elif message.data == b"fork and raise":
                raise ValueError("in the child")
            else:
                return
        self.send(message.data, message.is_binary)


@pytest.mark.parametrize("text", ["fork", "fork and raise"])
@pytest.mark.parametrize(
    "options", [{}, {"workers": 0}, {"workers": 1}, {"dispatch": "pool"}], ids=["adaptive", "inline", "one", "pool"]
)
def test_a_child_that_comes_back_from_a_callback_runs_no_other_one(stage: Stage, options: Any, text: str) -> None:
    """The parent does: what waits is for it. In the child the thread ends, and with it the process."""
    manager = stage.manager(**options)
    other, other_peer = stage.connect(manager, EchoRecorder)
    websocket, peer = stage.connect(manager, Forker)
    wait_for(other.was_opened)
    wait_for(websocket.was_opened)
    peer.send(peer.text(text), peer.text("two"), peer.text("three"))
    other_peer.send(other_peer.text("x"))
    assert [peer.receive_text() for _ in range(3)] == [text, "two", "three"]
    assert other_peer.receive_text() == "x"
    (pid,) = websocket.children
    until(lambda: os.waitpid(pid, os.WNOHANG)[0])
    goes_on(other, other_peer)
    goes_on(websocket, peer)
    assert websocket.events[-1][0] == "closed"


def test_what_the_parent_has_queued_is_not_sent_twice(stage: Stage) -> None:
    manager = stage.manager(start=False)
    websocket, peer = stage.connect(manager, Recorder)
    for number in range(10):
        websocket.send(f"parent {number}")
    del number
    manager.start()
    wait_for(websocket.was_opened)
    in_child(lambda: websocket.send("child"))
    received = [peer.receive_text() for _ in range(11)]
    assert sorted(received) == sorted(["child", *(f"parent {number}" for number in range(10))])


def test_a_big_message_of_a_child(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder, tcp_pair)
    wait_for(websocket.was_opened)
    data = os.urandom(3 << 20)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(peer.receive_message()))
    reader.start()
    in_child(lambda: websocket.send(data, binary=True))
    reader.join(PATIENCE)
    assert received == [data]


def test_a_childs_send_has_its_deadline(stage: Stage) -> None:
    """If the parent takes nothing: here its only thread is in a handler that blocks."""
    manager = stage.manager(workers=0, send_timeout=0.2)
    blocked, peer = stage.connect(manager, Gate)
    wait_for(blocked.was_opened)
    peer.send(peer.text("x"))
    blocked.wait_entered()

    def child() -> None:
        def send_for_ever() -> None:
            while True:
                blocked.send(bytes(1 << 20), binary=True)

        with pytest.raises(SlowConsumer, match=r"0\.2 seconds"):
            send_for_ever()
        with pytest.raises(SlowConsumer, match=r"0 seconds"):
            blocked.send("x", timeout=0)

    in_child(child)
    blocked.gate.set()
    assert peer.receive_text() == "x"
    in_child(lambda: blocked.send("end"))
    whole = list(iter(peer.receive_message, b"end"))
    assert {len(message) for message in whole} <= {1 << 20}


def test_a_child_waits_where_there_are_many_descriptors(stage: Stage) -> None:
    """More than select() can watch."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], min(limits[1], 2048)), limits[1]))
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        manager = stage.manager(workers=0)
        blocked, peer = stage.connect(manager, Gate)
        wait_for(blocked.was_opened)
        peer.send(peer.text("x"))
        blocked.wait_entered()

        def child() -> None:
            with pytest.raises(SlowConsumer):
                send_for_ever(blocked, 0.1)

        in_child(child)
        blocked.gate.set()
    finally:
        for fd in others:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_slow_peer_keeps_nobody_else_waiting(stage: Stage) -> None:
    """A child waits for it, as a thread would; others are sent to meanwhile. Then it is given up."""
    manager = stage.manager(max_outbox_size=1000)
    slow, slow_peer = stage.connect(manager, Recorder, small=True)
    other, peer = stage.connect(manager, Recorder)
    wait_for(slow.was_opened)
    wait_for(other.was_opened)

    def child() -> None:
        def fill() -> None:
            while True:
                slow.send(bytes(1000), binary=True, timeout=0)
                other.ping("")  # the parent keeps up

        with pytest.raises(SlowConsumer, match="no room"):
            fill()
        waiting = start_thread(slow.send, "more", False, 0.5)
        for number in range(100):
            other.send(f"for another one {number}")
        with pytest.raises(SlowConsumer, match=r"did not read for 0\.5 seconds"):
            waiting.result()
        with pytest.raises(ConnectionClosed):
            slow.send("x")
        other.send("end")

    in_child(child)
    assert list(iter(peer.receive_text, "end")) == [f"for another one {number}" for number in range(100)]
    assert slow_peer.receive_rest_until_close()[-1].payload[2:] == b"Slow consumer"
    limits = manager.stats().limits
    assert limits["send_timeout"] == 1


def test_a_child_keeps_pace_with_its_peer(stage: Stage) -> None:
    """What it sends in all is much more than an outbox has room for."""
    manager = stage.manager(max_outbox_size=10_000)
    websocket, peer = stage.connect(manager, Recorder, tcp_pair)
    wait_for(websocket.was_opened)
    received: list[bytes] = []
    reader = start_thread(lambda: received.extend(peer.receive_message() for _ in range(40)))

    def child() -> None:
        for number in range(40):
            websocket.send(bytes([number]) * 500_000, binary=True)

    in_child(child)
    reader.result()
    assert received == [bytes([number]) * 500_000 for number in range(40)]


def test_a_child_is_told_that_its_parent_has_stopped(stage: Stage) -> None:
    manager = stage.manager(drain_timeout=0.0)
    websocket, _ = stage.connect(manager, Recorder)
    wait_for(websocket.was_opened)

    def child() -> None:
        assert os.read(reader, 1) == b"x"
        with pytest.raises(ConnectionClosed):
            websocket.send("x")

    reader, writer = os.pipe()
    task = start_thread(in_child, child)
    manager.stop()
    manager.join(PATIENCE)
    os.write(writer, b"x")
    task.result()
    os.close(reader)
    os.close(writer)


def test_a_child_sends_to_a_peer_that_is_gone(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    websocket.end_seen = threading.Event()  # type: ignore[attr-defined]
    wait_for(websocket.was_opened)
    peer.close()
    websocket.end()
    until(lambda: websocket.stream is None)

    def child() -> None:
        with pytest.raises(ConnectionClosed):
            websocket.send("x")

    in_child(child)


@pytest.mark.parametrize("use", ["add", "remove", "start", "stop", "broadcast", "publish", "close_all"])
def test_using_the_manager_in_a_child_is_a_clear_error(stage: Stage, use: str) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)
    arguments = {"add": (websocket,), "remove": (websocket,), "broadcast": ("x",), "publish": ("x", "x")}.get(use, ())

    def child() -> None:
        with pytest.raises(ManagerError, match="runs in the parent process"):
            getattr(manager, use)(*arguments)
        assert not manager.running
        assert not manager.is_alive()
        manager.join()

    in_child(child)
    peer.send(peer.text("the parent goes on"))
    assert peer.receive_text() == "the parent goes on"


def test_the_topics_are_the_parents(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)
    websocket.subscribe("news")

    def child() -> None:
        for use in (websocket.subscribe, websocket.unsubscribe):
            with pytest.raises(ManagerError, match="parent process"):
                use("news")
        assert websocket.topics == {"news"}
        ours, theirs = unix_pair()
        with WebSocketManager(drain_timeout=0.0) as own:
            websocket_of_its_own = EchoWebSocket(ours)
            own.add(websocket_of_its_own)
            websocket_of_its_own.subscribe("news")
            own.publish("news", "x")
            theirs.settimeout(PATIENCE)
            assert theirs.recv(10) == b"\x81\x01x"

    in_child(child)
    manager.publish("news", "of the parent")
    assert peer.receive_text() == "of the parent"


def test_a_fork_comes_while_others_publish(stage: Stage) -> None:
    """The child has its own topics at once, whatever its parent's threads hold."""
    manager = stage.manager()
    readers = []
    for _ in range(20):
        websocket, peer = stage.connect(manager, EchoRecorder)
        wait_for(websocket.was_opened)
        websocket.subscribe("news")
        readers.append(start_thread(lambda peer=peer: list(iter(peer.receive_text, "end"))))
    ended = threading.Event()

    def publish() -> None:
        while not ended.is_set():
            manager.publish("news", "x" * 100)

    publisher = start_thread(publish)

    def child() -> None:
        with pytest.raises(ManagerError):
            websocket.subscribe("sport")
        with pytest.raises(ManagerError):
            manager.publish("news", "x")

    for _ in range(20):
        in_child(child)
    ended.set()
    publisher.result()
    manager.publish("news", "end")
    for reader in readers:
        reader.result()


def test_a_child_may_have_a_manager_of_its_own(stage: Stage) -> None:
    manager = stage.manager()
    _, peer = stage.connect(manager, EchoRecorder)
    peer.sync()

    def child() -> None:
        ours, theirs = unix_pair()
        with WebSocketManager(drain_timeout=0.0) as own:
            own.add(EchoWebSocket(ours))
            theirs.settimeout(PATIENCE)
            theirs.sendall(b"\x81\x81\0\0\0\0x")
            assert theirs.recv(10) == b"\x81\x01x"

    in_child(child)
    peer.sync()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_manager_that_does_not_run_can_be_started_in_a_child(stage: Stage, stopped: bool) -> None:
    """So a daemonizer may fork after the manager was made."""
    manager = stage.manager(start=stopped, drain_timeout=0.0)
    if stopped:
        manager.stop()
        manager.join(PATIENCE)

    def child() -> None:
        ours, theirs = unix_pair()
        manager.start()
        manager.add(EchoWebSocket(ours))
        theirs.settimeout(PATIENCE)
        theirs.sendall(b"\x81\x81\0\0\0\0x")
        assert theirs.recv(10) == b"\x81\x01x"
        manager.stop()
        manager.join(PATIENCE)
        assert not manager.is_alive()

    in_child(child)


def test_a_callback_of_the_parents_takes_no_place_in_a_child(stage: Stage) -> None:
    manager = stage.manager(max_workers=1, drain_timeout=0.0)
    left_behind, peer = stage.connect(manager, Gate)
    peer.send(peer.text("wait"))
    left_behind.wait_entered()
    manager.stop()
    manager.join(PATIENCE)

    def child() -> None:
        ours, theirs = unix_pair()
        manager.start()
        manager.add(Gate(ours))
        theirs.settimeout(PATIENCE / 2)
        theirs.sendall(b"\x81\x84\0\0\0\0pass")
        assert theirs.recv(10) == b"\x81\x04pass"
        manager.stop()
        manager.join(PATIENCE)

    in_child(child)


@pytest.mark.parametrize("options", [{"workers": 0}, {"dispatch": "pool"}, {"dispatch": "adaptive"}], ids=str)
def test_a_manager_whose_threads_were_about_to_end_can_be_started_in_a_child(
    stage: Stage, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold no lock there, since they are not there."""
    manager = stage.manager(**options)
    manager.stop()
    manager.join(PATIENCE)
    places: queue.Queue[threading.Event | None] = queue.Queue()  # where the thread waits; None at its end
    merge = WorkerCounters.merge

    def slow_merge(*arguments: Any) -> None:
        if threading.current_thread() in asking:
            places.put(go_on := threading.Event())
            wait_for(go_on)
        merge(*arguments)

    asking = set()

    def ask() -> None:
        asking.add(threading.current_thread())
        manager.stats()
        places.put(None)

    def child() -> None:
        manager.start()
        manager.stop()
        manager.join(PATIENCE)
        assert not manager.is_alive()

    monkeypatch.setattr(WorkerCounters, "merge", slow_merge)
    thread = start_thread(ask)
    forks = 0
    while (go_on := places.get(timeout=PATIENCE)) is not None:
        try:
            in_child(child)
        finally:
            go_on.set()
        forks += 1
    thread.result()
    assert forks >= 2


@pytest.mark.parametrize("kind", ["tcp_pair", "ssl_pair", "openssl_pair"])
def test_a_child_closes_nothing_of_the_parents(stage: Stage, kind: str, certificates: Certificates) -> None:
    """Neither when it ends, nor when it gives up what it has inherited."""
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder, getattr(certificates, kind, tcp_pair))
    wait_for(websocket.was_opened)

    def child() -> None:
        sock = websocket.sock
        websocket.terminate()
        websocket.close_connection()
        sock.close()
        websocket.sock = websocket._connection = None
        del sock
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        exit_in_order()

    in_child(lambda: None)
    in_child(child)
    goes_on(websocket, peer)


def exit_in_order() -> None:
    """Do what the interpreter does at the end of a process."""
    atexit._run_exitfuncs()


def test_descriptors_are_closed_by_exec(stage: Stage) -> None:
    before = {fd for fd, _ in open_fds()}
    manager = stage.manager()
    websocket, _ = stage.connect(manager, Recorder)
    wait_for(websocket.was_opened)
    opened = {fd for fd, _ in open_fds()} - before
    assert len(opened) >= 5
    assert not any(os.get_inheritable(fd) for fd in opened)


def test_a_child_is_told_that_its_parent_was_killed(stage: Stage) -> None:
    """Whether it was about to send, or waits for the parent to take something."""
    parents: list[int] = []
    reader, writer = os.pipe()

    def parent() -> None:
        manager = WebSocketManager(workers=0)
        ours, theirs = unix_pair()
        websocket = Gate(ours)
        manager.start()
        manager.add(websocket)
        peer = Peer(theirs)
        peer.send(peer.text("x"))
        websocket.wait_entered()  # so the manager takes nothing for now
        os.write(writer, b"%d " % os.getpid())
        start_child(lambda: child(websocket))
        threading.Event().wait(PATIENCE)

    def child(websocket: WebSocket) -> None:
        threads = [start_thread(send_for_ever, websocket) for _ in range(2)]
        with pytest.raises(SlowConsumer):
            send_for_ever(websocket, 0.1)  # those above wait by now
        os.write(writer, b"waits ")
        for thread in threads:
            with pytest.raises(ConnectionClosed, match="gone"):
                thread.result()
        with pytest.raises(ConnectionClosed, match="gone"):
            websocket.send("x", timeout=0)
        os.write(writer, b"told")

    join = start_child(parent)
    text = b""
    while b"waits" not in text:
        text += os.read(reader, 100)
    parents.append(int(text.split()[0]))
    os.kill(parents[0], 9)
    with pytest.raises(AssertionError):
        join()
    os.close(writer)
    while data := os.read(reader, 100):
        text += data
    os.close(reader)
    assert text.endswith(b"told")


def send_for_ever(websocket: WebSocket, timeout: float = PATIENCE) -> None:
    while True:
        websocket.send(bytes(100_000), binary=True, timeout=timeout)


def test_half_a_message_of_a_killed_child_harms_nobody(stage: Stage) -> None:
    manager = stage.manager(workers=0)
    blocked, peer = stage.connect(manager, Gate)
    wait_for(blocked.was_opened)
    peer.send(peer.text("x"))
    blocked.wait_entered()
    reader, writer = os.pipe()

    def killed() -> None:
        with pytest.raises(SlowConsumer):
            blocked.send(bytes(10 << 20), binary=True, timeout=0.1)
        os.write(writer, b"x")
        blocked.send(bytes(10 << 20), binary=True, timeout=PATIENCE)

    join = start_child(killed)
    assert os.read(reader, 1) == b"x"
    os.kill(join.pid, 9)
    with pytest.raises(AssertionError):
        join()
    waiting = start_child(partial(blocked.send, "from another child"))
    blocked.gate.set()
    waiting()
    assert peer.receive_text() == "x"
    assert peer.receive_text() == "from another child"
    peer.sync()
    os.close(reader)
    os.close(writer)


def test_greenlets_send_for_a_child() -> None:
    pytest.importorskip("gevent")
    code = """
import os
from gevent import socket
from ws4py.framing import FIN, build_frame
from ws4py.server.geventmanager import GreenletManager
from ws4py.websocket import EchoWebSocket

manager = GreenletManager()
manager.start()
ours, theirs = socket.socketpair()
websocket = EchoWebSocket(ours)
manager.add(websocket)

def check():
    theirs.sendall(build_frame(FIN | 1, b"x", b"abcd"))
    assert theirs.recv(100) == build_frame(FIN | 1, b"x")

check()
pid = os.fork()
if not pid:
    websocket.send("from the child")
    os._exit(0)
assert theirs.recv(100) == build_frame(FIN | 1, b"from the child")
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
check()
theirs.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


# --- TLS --------------------------------------------------------------------------------------------------------------


def refuses_to_send(websocket: WebSocket) -> None:
    with pytest.raises(ManagerError, match="TLS"):
        websocket.send("x")
    with pytest.raises(ManagerError, match="TLS"):
        websocket.send("x", timeout=0)
    with pytest.raises(ManagerError, match="TLS"):
        websocket.send(iter(["in ", "parts"]))
    with pytest.raises(ManagerError, match="TLS"):
        websocket.ping("x")
    with pytest.raises(ManagerError, match="TLS"):
        websocket.close()
    websocket.close_connection()


def goes_on(websocket: Recorder, peer: Peer) -> None:
    websocket.send("from the parent")
    assert peer.receive_text() == "from the parent"
    peer.send(peer.text("to the parent"))
    assert peer.receive_text() == "to the parent"
    assert peer.say_goodbye() == (1000, "")
    assert websocket.end() == (1000, b"")


@pytest.mark.parametrize("run", [in_child, in_child_of_child])
@pytest.mark.parametrize("kind", ["ssl_pair", "openssl_pair"])
@pytest.mark.parametrize("workers", [0, 4])
def test_a_child_sends_over_tls(stage: Stage, run: Any, kind: str, workers: int, certificates: Certificates) -> None:
    """Two processes would use the same keys for records of the same numbers: so the parent sends."""
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, EchoRecorder, getattr(certificates, kind))
    wait_for(websocket.was_opened)

    def child() -> None:
        websocket.send("x")
        websocket.send(iter(["in ", "parts"]))
        websocket.close_connection()

    run(child)
    assert peer.receive_text() == "x"
    assert peer.receive_text() == "in parts"
    goes_on(websocket, peer)


@pytest.mark.parametrize("workers", [0, 4])
def test_a_child_closes(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)

    def child() -> None:
        websocket.close(4000, "bye")
        with pytest.raises(ConnectionClosed):
            websocket.send("x")

    in_child(child)
    assert peer.receive_close() == (4000, "bye")
    peer.send(peer.goodbye(4000))
    assert websocket.end() == (4000, b"")


def compressed(agreed: DeflateAgreement) -> type[Recorder]:
    """Return a class whose websockets compress."""

    class Compressed(Recorder):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.stream.use(agreed.codec())

    return Compressed


class Inbox:
    """Reads what a peer gets until "end" comes, and sorts it by who has sent it."""

    def __init__(self, peer: Peer, codec: Codec | None) -> None:
        self.peer = peer
        self._codec = codec
        self._senders: dict[str, list[int]] = {}
        self._task = start_thread(self._read)

    def _read(self) -> None:
        while (text := self._receive()) != "end":
            name, number, rest = text.split(" ")
            assert rest == rest[:1] * int(number) * SIZE
            self._senders.setdefault(name, []).append(int(number))

    def _receive(self) -> str:
        first, payload = self.peer.receive()
        assert first & ~RSV1 == FIN | OPCODE_TEXT
        if first & RSV1:
            assert self._codec is not None
            payload = b"".join(self._codec.decode(payload, True, None))
        return payload.decode()

    def senders(self) -> dict[str, list[int]]:
        """Return the numbers of their messages, by sender."""
        self._task.result()
        return self._senders


SIZE = 20_000
"""The messages of a sender become longer by so much each time."""


@pytest.mark.parametrize(
    ("options", "forks"),
    [({}, 200), ({"workers": 0}, 20), ({"workers": 1}, 20), ({"dispatch": "pool"}, 20)],
    ids=["adaptive", "inline", "one", "pool"],
)
def test_children_send_while_the_parent_does(
    stage: Stage, options: Any, forks: int, certificates: Certificates
) -> None:
    """Every message arrives whole, once, and in the order of its sender: plain, over TLS, and by a codec that must see
    the messages in their order. The threads of the parent use all locks meanwhile.
    """
    manager = stage.manager(**options)
    agreed = DeflateAgreement(False, False, 15, 15, 1, 8, 0)
    pairs = [
        stage.connect(manager, Recorder, tcp_pair),
        stage.connect(manager, Recorder, certificates.ssl_pair),
        stage.connect(manager, compressed(agreed), tcp_pair),
    ]
    inboxes = [Inbox(peer, agreed.codec() if number == 2 else None) for number, (_, peer) in enumerate(pairs)]
    for websocket, _ in pairs:
        wait_for(websocket.was_opened)
    ended = threading.Event()
    counts = {"one": 0, "two": 0}

    def send(name: str) -> None:
        while not ended.is_set():
            number = counts[name] % 3
            for websocket, _ in pairs:
                websocket.send(f"{name} {number} " + "p" * number * SIZE)
            counts[name] += 1
            manager.stats()

    def send_some(child: int) -> None:
        for websocket, _ in pairs:
            for number in (1, 2, 3):
                websocket.send(f"{child} {number} " + "c" * number * SIZE)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [start_thread(send, name) for name in counts]
        for first in range(0, forks, 4):
            for join in [start_child(partial(send_some, child)) for child in range(first, first + 4)]:
                join()
    finally:
        ended.set()
        sys.setswitchinterval(before)
    for thread in threads:
        thread.result()

    def send_end() -> None:
        for websocket, _ in pairs:
            websocket.send("end")

    in_child(send_end)
    for inbox in inboxes:
        senders = inbox.senders()
        for name, count in counts.items():
            assert senders.pop(name) == [number % 3 for number in range(count)]
        assert senders == {str(child): [1, 2, 3] for child in range(forks)}


@pytest.mark.parametrize("when", ["never used", "has sent", "runs"])
def test_a_child_does_not_send_over_tls_without_a_manager(stage: Stage, when: str, certificates: Certificates) -> None:
    websocket, peer = stage.connect(None, EchoRecorder, certificates.ssl_pair)
    if when == "runs":
        start_thread(websocket.run)
        wait_for(websocket.was_opened)
    elif when == "has sent":
        websocket.send("before")
        assert peer.receive_text() == "before"
    in_child(lambda: refuses_to_send(websocket))
    in_child_of_child(lambda: refuses_to_send(websocket))
    if when != "runs":
        start_thread(websocket.run)
        wait_for(websocket.was_opened)
    goes_on(websocket, peer)


def test_a_child_does_not_send_on_a_client_over_tls(certificates: Certificates) -> None:
    with foreign_server(certificates.server) as url:
        client = WebSocketClient(url, ssl_context=certificates.client, proxy=None)
        with client:
            in_child(lambda: refuses_to_send(client))
            client.send("from the parent")
            message = client.receive(timeout=PATIENCE)
            assert message is not None
            assert message.data == b"from the parent"


def test_a_client_may_connect_in_a_child(certificates: Certificates) -> None:
    with foreign_server(certificates.server) as url:
        client = WebSocketClient(url, ssl_context=certificates.client, proxy=None)

        def child() -> None:
            with client:
                client.send("from the child")
                message = client.receive(timeout=PATIENCE)
                assert message is not None
                assert message.data == b"from the child"

        in_child(child)


# --- without TLS, further cases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["never used", "has sent", "runs"])
def test_a_child_sends_without_a_manager(stage: Stage, when: str) -> None:
    websocket, peer = stage.connect(None, EchoRecorder)
    if when == "runs":
        start_thread(websocket.run)
        wait_for(websocket.was_opened)
    elif when == "has sent":
        websocket.send("before")
        assert peer.receive_text() == "before"
    in_child(lambda: websocket.send("from the child"))
    assert peer.receive_text() == "from the child"
    if when != "runs":
        start_thread(websocket.run)
        wait_for(websocket.was_opened)
    goes_on(websocket, peer)


def test_a_child_does_not_send_the_broadcast_that_its_parent_has_kept(stage: Stage) -> None:
    manager = stage.manager(workers=0, max_outbox_size=1000, overflow="latest")
    _, blocking_peer = blocking = stage.connect(manager, Gate)
    websocket, peer = stage.connect(manager, Recorder)
    wait_for(websocket.was_opened)
    blocking_peer.send(blocking_peer.text("x"))
    blocking[0].wait_entered()  # so the manager does not write for now
    websocket.send(bytes(1000), binary=True)
    assert manager.broadcast("kept") == 2
    in_child(lambda: websocket.send("from the child"))
    blocking[0].gate.set()
    assert peer.receive_message() == bytes(1000)
    assert {peer.receive_text(), peer.receive_text()} == {"from the child", "kept"}
    peer.sync()


def test_threads_of_a_child_do_not_interleave(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder, tcp_pair)
    wait_for(websocket.was_opened)

    def child() -> None:
        def send(letter: str) -> None:
            for number in range(1, 21):
                websocket.send(letter * (number * 20_000))

        for task in [start_thread(send, letter) for letter in "abcd"]:
            task.result()

    received: list[str] = []
    reader = start_thread(lambda: received.extend(peer.receive_text() for _ in range(80)))
    in_child(child)
    reader.result()
    for letter in "abcd":
        mine = [text for text in received if text[0] == letter]
        assert [len(text) for text in mine] == [number * 20_000 for number in range(1, 21)]
        assert {frozenset(text) for text in mine} == {frozenset(letter)}


def test_passing_a_websocket_to_a_process(stage: Stage) -> None:
    """As a handler of salt's does, which lets a process of multiprocessing send on it."""
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = context.Process(target=websocket.send, args=("event",))
        process.start()
    assert peer.receive_text() == "event"
    process.join(PATIENCE)
    assert process.exitcode == 0
    process.close()


def test_the_statistics_of_an_inherited_manager_can_be_read_in_a_child(stage: Stage) -> None:
    """Whatever locks the parent's threads held at the fork."""
    manager = stage.manager()
    _, peer = stage.connect(manager, EchoRecorder)
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            manager.stats()

    def read_once() -> None:
        manager.stats()

    readers = [threading.Thread(target=read) for _ in range(2)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for reader in readers:
            reader.start()
        for _ in range(20):
            peer.send(peer.text("x"))
            assert peer.receive_text() == "x"
            in_child(read_once)
    finally:
        ended.set()
        sys.setswitchinterval(before)
        for reader in readers:
            reader.join(PATIENCE)
