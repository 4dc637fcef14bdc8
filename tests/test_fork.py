"""Processes that fork: what a child may do with what it inherits, and what it is told about the rest."""

from __future__ import annotations

import multiprocessing
import os
import select
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
    start_thread,
    tcp_pair,
    unix_pair,
    until,
    wait_for,
)
from ws4py.client.threadedclient import WebSocketClient
from ws4py.exc import ConnectionClosed, ManagerError, SlowConsumer
from ws4py.manager import WebSocketManager
from ws4py.websocket import EchoWebSocket, WebSocket

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def in_child(function: Callable[[], None]) -> None:
    """Run a function in a forked process, which must end well, and in time."""
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
    text = b""
    try:
        while select.select([reader], [], [], PATIENCE)[0]:
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


def test_a_child_sends_while_the_parents_threads_hold_locks(stage: Stage) -> None:
    """The child has none of the threads that would release them."""
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    wait_for(websocket.was_opened)
    connection: Any = websocket._connection
    with connection.lock, manager._engine.lock:
        in_child(lambda: websocket.send("from the child"))
    assert peer.receive_text() == "from the child"
    peer.sync()


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


def test_a_slow_peer_does_not_stop_the_relay_for_ever(stage: Stage) -> None:
    manager = stage.manager(send_timeout=0.2, max_outbox_size=1000)
    slow, _ = stage.connect(manager, Recorder, small=True)
    other, peer = stage.connect(manager, Recorder)
    wait_for(slow.was_opened)
    wait_for(other.was_opened)

    def child() -> None:
        for _ in range(20):
            slow.send(bytes(10_000), binary=True, timeout=PATIENCE)
        other.send("for another one", timeout=PATIENCE)

    in_child(child)
    assert peer.receive_text() == "for another one"
    assert slow.end()[0] == 1006


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


@pytest.mark.parametrize("use", ["add", "remove", "start", "stop", "broadcast", "close_all"])
def test_using_the_manager_in_a_child_is_a_clear_error(stage: Stage, use: str) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)
    arguments = {"add": (websocket,), "remove": (websocket,), "broadcast": ("x",)}.get(use, ())

    def child() -> None:
        with pytest.raises(ManagerError, match="runs in the parent process"):
            getattr(manager, use)(*arguments)
        assert not manager.running
        assert not manager.is_alive()
        manager.join()

    in_child(child)
    peer.send(peer.text("the parent goes on"))
    assert peer.receive_text() == "the parent goes on"


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


def test_a_child_that_ends_closes_nothing_of_the_parents(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder, tcp_pair)
    wait_for(websocket.was_opened)
    in_child(lambda: None)
    peer.send(peer.text("x"))
    assert peer.receive_text() == "x"
    assert peer.say_goodbye() == (1000, "")
    assert websocket.end() == (1000, b"")


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


def test_many_children_send_while_the_parent_does(stage: Stage) -> None:
    """Every message arrives whole, once, and in the order of its sender."""
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder, tcp_pair)
    wait_for(websocket.was_opened)
    children, each = 200, 5
    received: list[str] = []
    reader = start_thread(lambda: received.extend(iter(peer.receive_text, "end")))
    ended = threading.Event()

    def send() -> None:
        number = 0
        while not ended.is_set():
            websocket.send(f"parent {number} " + "p" * 1000)
            number += 1

    def send_some(child: int) -> None:
        for item in range(each):
            websocket.send(f"{child} {item} " + "c" * 50_000)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        sender = start_thread(send)
        for child in range(children):
            in_child(partial(send_some, child))
    finally:
        ended.set()
        sys.setswitchinterval(before)
    sender.result()
    in_child(lambda: websocket.send("end"))
    reader.result()
    senders: dict[str, list[int]] = {}
    for text in received:
        name, number, rest = text.split(" ")
        senders.setdefault(name, []).append(int(number))
        assert set(rest) == ({"p"} if name == "parent" else {"c"})
    parent = senders.pop("parent")
    assert parent == list(range(len(parent)))
    assert senders == {str(child): list(range(each)) for child in range(children)}


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
