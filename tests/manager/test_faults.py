"""What fails for one connection ends that connection, and is nobody else's business."""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers import (
    KEY,
    PATIENCE,
    EchoRecorder,
    Gate,
    Recorder,
    Script,
    Stage,
    quiet,
    start_thread,
    tcp_pair,
    until,
    wait_for,
)
from ws4py.engine.pollers import Poller, SelectPoller, default_poller
from ws4py.exc import ManagerError
from ws4py.extensions.permessage_deflate import PerMessageDeflate
from ws4py.framing import FIN, OPCODE_PING, OPCODE_TEXT, build_frame
from ws4py.manager import WebSocketManager
from ws4py.messaging import Message
from ws4py.streaming import Stream
from ws4py.websocket import WebSocket

WORKERS = pytest.mark.parametrize("workers", [0, 1])
MONTH = 31 * 86400.0


class Oddity(BaseException):
    """What no code expects."""


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """Let no thread be started within, as on a system that has no more of them."""
    before = threading.stack_size(1 << 45)
    try:
        yield
    finally:
        threading.stack_size(before)


@contextlib.contextmanager
def unharmed(stage: Stage, manager: WebSocketManager) -> Iterator[None]:
    """Check that another connection of the manager's does not notice what happens within."""
    _, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("before"))
    assert peer.receive_text() == "before"
    yield
    peer.send(peer.text("after"))
    assert peer.receive_text() == "after"
    assert manager.running
    assert manager.is_alive()


# --- sockets and streams ----------------------------------------------------------------------------------------------


class OddSocket(socket.socket):
    """Raises what it is told to, from the method that it is told."""

    method = ""
    error: type[BaseException] = Oddity

    def _strike(self, name: str) -> None:
        if self.method == name:
            raise self.error("as it should")

    def recv(self, *arguments: Any) -> bytes:
        self._strike("recv")
        return super().recv(*arguments)

    def send(self, *arguments: Any) -> int:
        self._strike("send")
        return super().send(*arguments)

    def shutdown(self, how: int) -> None:
        self._strike("shutdown")
        super().shutdown(how)


def odd_pair() -> tuple[OddSocket, socket.socket]:
    server, client = tcp_pair()
    return OddSocket(server.family, server.type, server.proto, fileno=server.detach()), client


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt, Oddity])
@pytest.mark.parametrize("method", ["recv", "send", "shutdown"])
@WORKERS
def test_a_socket_that_raises_anything(stage: Stage, workers: int, method: str, error: type[BaseException]) -> None:
    manager = stage.manager(workers=workers)
    with unharmed(stage, manager), quiet() as records:
        websocket, peer = stage.connect(manager, EchoRecorder, odd_pair)
        peer.sync()
        websocket.sock.error, websocket.sock.method = error, method
        peer.send(peer.goodbye() if method == "shutdown" else peer.text("x"))
        websocket.end()
        until(lambda: len(manager) == 1)
        until(lambda: [record for record in records if record.levelno == logging.ERROR])
        until(lambda: manager.stats().connections.closing == 0)
    assert manager.stats().faults >= 1
    assert all(record.levelno <= logging.ERROR for record in records)


@WORKERS
def test_a_stream_that_raises(stage: Stage, workers: int) -> None:
    class OddStream(Stream):
        def fail(self, *_: Any) -> Any:
            raise Oddity

        receive = receive_some = take_message = fail  # type: ignore[assignment]

    class Odd(EchoRecorder):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.stream = OddStream(always_mask=False)

    manager = stage.manager(workers=workers)
    with unharmed(stage, manager), quiet():
        websocket, peer = stage.connect(manager, Odd)
        peer.send(peer.text("x"))
        assert websocket.end() == (1006, "Going away")
        peer.expect_end()
    assert manager.stats().faults == 1


@WORKERS
def test_removing_a_websocket_whose_socket_is_closed(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers)
    with unharmed(stage, manager):
        websocket, peer = stage.connect(manager, EchoRecorder)
        peer.sync()
        websocket.sock.close()
        manager.remove(websocket)
        assert websocket.end() == (1006, "Going away")
        assert websocket not in manager


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poller", [None, SelectPoller()])
@pytest.mark.parametrize("seconds", [MONTH, 1e10, 1e15])
def test_times_that_mean_never(stage: Stage, seconds: float, poller: Poller | None) -> None:
    manager = stage.manager(poller=poller, ping_interval=seconds)
    for frequency in (None, seconds):
        websocket, peer = stage.connect(manager, EchoRecorder, heartbeat_freq=frequency)
        wait_for(websocket.was_opened)
        for _ in range(3):
            peer.sync()
    assert manager.running


@pytest.mark.parametrize("make_poller", [default_poller, SelectPoller])
def test_a_poller_may_be_asked_to_wait_for_ever_and_longer(make_poller: type[Poller]) -> None:
    poller = make_poller()
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.closing(theirs):
        poller.register(ours.fileno())
        theirs.send(b"x")
        assert poller.poll(1e12) == [(ours.fileno(), 1)]
        poller.release()


def test_a_websocket_that_runs_by_itself_and_never_pings(stage: Stage) -> None:
    websocket, peer = stage.connect(None, EchoRecorder)
    websocket._limits = {"ping_interval": MONTH}
    task = start_thread(websocket.run)
    peer.send(peer.text("x"))
    assert peer.receive_text() == "x"
    peer.say_goodbye()
    task.result()


@pytest.mark.parametrize("frequency", ["30", object()])
@WORKERS
def test_a_heartbeat_that_becomes_no_number(stage: Stage, workers: int, frequency: Any) -> None:
    def on_opened(websocket: Recorder) -> None:
        websocket.heartbeat_freq = frequency

    manager = stage.manager(workers=workers, ping_interval=0.05)
    with unharmed(stage, manager), quiet():
        websocket, peer = stage.connect(manager, Script.of(opened=on_opened))
        wait_for(websocket.was_opened)
        with contextlib.suppress(EOFError, ConnectionError):
            ping = peer.receive()
            assert ping.opcode == OPCODE_PING
            peer.send(peer.pong(ping.payload))
        assert websocket.end()[0] == 1006
    assert manager.stats().faults == 1


# --- what applications override ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, Oddity])
@WORKERS
def test_unhandled_error_may_raise_anything(stage: Stage, workers: int, error: type[BaseException]) -> None:
    class Loud(Recorder):
        def on_message(self, message: Message) -> None:
            raise error

        def unhandled_error(self, error: BaseException) -> None:
            raise error

    manager = stage.manager(workers=workers)
    with unharmed(stage, manager), quiet():
        for _ in range(3):  # more than there are workers
            websocket, peer = stage.connect(manager, Loud)
            peer.send(peer.text("x"))
            assert peer.receive_close() == (1011, "")
            peer.send(peer.goodbye(1011))
            assert websocket.end() == (1011, b"")
    workers_now = manager.stats().workers
    assert workers_now.errors == 3
    assert workers_now.size <= workers


@pytest.mark.parametrize("error", [KeyError, Oddity])
@WORKERS
def test_a_handler_that_can_not_be_looked_up(stage: Stage, workers: int, error: type[BaseException]) -> None:
    class Lazy(Recorder):
        def __getattribute__(self, name: str) -> Any:
            if name == "received_message":
                raise error("there is no such room")
            return super().__getattribute__(name)

    manager = stage.manager(workers=workers)
    with unharmed(stage, manager), quiet():
        for _ in range(3):
            websocket, peer = stage.connect(manager, Lazy)
            wait_for(websocket.was_opened)
            peer.send(peer.text("x"))
            assert peer.receive_close() == (1011, "")
            peer.send(peer.goodbye(1011))
            assert websocket.end() == (1011, b"")
            assert isinstance(websocket.errors[0], error)


def test_a_handler_that_is_set_when_the_websocket_opens(stage: Stage) -> None:
    def on_opened(websocket: Recorder) -> None:
        websocket.received_message = lambda message: websocket.send("another")  # type: ignore[method-assign]

    early = build_frame(FIN | OPCODE_TEXT, b"x", KEY)
    _, peer = stage.connect(stage.manager(), Script.of(opened=on_opened), early=early)
    assert peer.receive_text() == "another"


def test_no_text_of_the_applications_is_made_on_the_managers_thread(stage: Stage) -> None:
    threads: list[str] = []

    class Talkative(EchoRecorder):
        def __repr__(self) -> str:
            threads.append(threading.current_thread().name)
            return "<Talkative>"

    manager = stage.manager()
    logger = logging.getLogger("ws4py")
    with quiet() as records:
        logger.setLevel(logging.DEBUG)
        try:
            for data in (b"\xff\xff", b""):
                websocket, peer = stage.connect(manager, Talkative, tcp_pair)
                wait_for(websocket.was_opened)
                if data:
                    peer.send(data)
                else:
                    peer.reset()
                websocket.end()
            texts = [record.getMessage() for record in records]
        finally:
            logger.setLevel(logging.NOTSET)
    assert threads == []
    assert any("connection 1 (Talkative)" in text for text in texts), texts
    assert {getattr(record, "connection_id", None) for record in records} == {1, 2}


# --- no threads to be had ---------------------------------------------------------------------------------------------


def test_workers_that_can_not_be_started_are_tried_less_and_less_often(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = stage.manager(ping_interval=None, dispatch="pool")
    attempts: list[float] = []
    refused = threading.Event()
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        attempts.append(time.monotonic())
        if len(attempts) == 4:
            refused.set()
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, quiet() as records:
        patch.setattr(threading.Thread, "start", refuse)
        _, peer = stage.connect(manager, EchoRecorder)
        peer.send(peer.text("x"))
        wait_for(refused)
    assert threading.Thread.start is start
    assert peer.receive_text() == "x"
    assert len([record for record in records if "could not be started" in record.getMessage()]) == 1
    gaps = [after - before for before, after in itertools.pairwise(attempts)]
    assert [gap > least for gap, least in zip(gaps, (0.04, 0.08, 0.16), strict=False)] == [True] * 3


def test_a_heartbeat_without_a_thread_ends_the_websocket(stage: Stage) -> None:
    ends: list[int] = []

    class Plain(WebSocket):
        def closed(self, code: int, reason: object = None) -> None:
            ends.append(code)

    websocket, peer = stage.connect(None, Plain, heartbeat_freq=5.0)
    with no_threads(), pytest.raises(RuntimeError):
        websocket.run()
    assert peer.receive_close()[0] == 1011
    peer.expect_end()
    assert ends == [1006]
    assert websocket.sock is None


# --- what is meant for the program ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, Oddity])
def test_what_is_no_exception_goes_on_when_the_websocket_has_ended(stage: Stage, error: type[BaseException]) -> None:
    def fail(websocket: Recorder, message: Message) -> None:
        raise error

    websocket, peer = stage.connect(None, Script.of(message=fail))
    peer.send(peer.text("x"))
    with pytest.raises(error):
        websocket.run()
    assert websocket.end()[0] == 1006
    assert peer.receive_close() == (1001, "")
    peer.expect_end()


# --- two threads at once ----------------------------------------------------------------------------------------------


def test_two_threads_that_add_a_websocket_at_once_add_it_once(stage: Stage) -> None:
    manager = stage.manager(ping_interval=None)
    another = stage.manager(ping_interval=None)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(150):
            websocket, peer = stage.connect(None, EchoRecorder)
            barrier = threading.Barrier(2)

            def add(manager: WebSocketManager, websocket: Any = websocket, barrier: Any = barrier) -> None:
                barrier.wait()
                with contextlib.suppress(ValueError):  # the other manager's
                    manager.add(websocket)

            tasks = [start_thread(add, one) for one in (manager, another if number % 2 else manager)]
            for task in tasks:
                task.result()
            assert len(manager) + len(another) == 1
            assert peer.say_goodbye() == (1000, "")
            websocket.end()
            assert [event[0] for event in websocket.events] == ["opened", "closed"]
            until(lambda: len(manager) + len(another) == 0)
    finally:
        sys.setswitchinterval(before)
    opened = manager.stats().connections.opened + another.stats().connections.opened
    assert opened == 150


def test_removing_waits_for_the_callback_that_runs(stage: Stage) -> None:
    first, second = stage.manager(), stage.manager()
    websocket, peer = stage.connect(first, Gate)
    peer.send(peer.text("1"))
    websocket.wait_entered()
    task = start_thread(first.remove, websocket)
    until(lambda: websocket not in first)
    with pytest.raises(ManagerError):
        second.add(websocket)
    assert task.is_alive()
    websocket.gate.set()
    task.result()
    websocket.events.clear()  # the next manager calls opened() again
    second.add(websocket)
    peer.send(peer.text("2"))
    assert peer.receive_text() == "1"
    assert peer.receive_text() == "2"
    assert websocket.messages == [b"2"]
    assert websocket.faults == []


def test_a_callback_that_removes_its_websocket_may_not_add_it_elsewhere_before_its_end(stage: Stage) -> None:
    first, second = stage.manager(), stage.manager()
    errors: list[Exception] = []
    done = threading.Event()

    def on_message(websocket: Recorder, message: Message) -> None:
        first.remove(websocket)
        try:
            second.add(websocket)
        except ManagerError as error:
            errors.append(error)
        done.set()

    websocket, peer = stage.connect(first, Script.of(message=on_message))
    peer.send(peer.text("x"))
    wait_for(done)
    assert len(errors) == 1
    until(lambda: not websocket._inside.locked())
    websocket.events.clear()
    until(lambda: not added_error(second, websocket))
    assert websocket in second


def added_error(manager: WebSocketManager, websocket: Recorder) -> Exception | None:
    try:
        manager.add(websocket)
    except ManagerError as error:
        return error
    return None


# --- signal handlers --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def signals(handler: Any) -> Iterator[None]:
    """Call a handler in this thread again and again, wherever it is."""
    before = signal.signal(signal.SIGUSR1, lambda *_: handler())
    ended = threading.Event()
    main = threading.get_ident()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def send() -> None:
        for number in itertools.count():
            if ended.wait(0.00003 * (1 + number % 7)):
                return
            signal.pthread_kill(main, signal.SIGUSR1)

    sender = start_thread(send)
    try:
        yield
    finally:
        ended.set()
        sender.result()
        sys.setswitchinterval(interval)
        signal.signal(signal.SIGUSR1, before)


def interrupted(times: int, act: Callable[[], object]) -> int:
    """Do something in this thread again and again, and have a signal handler raise so often, wherever it is; return how
    often it was done to the end.
    """

    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    due, ended = threading.Event(), threading.Event()
    main = threading.get_ident()

    def send() -> None:
        for number in itertools.count():
            wait_for(due)
            due.clear()
            if ended.wait(0.00003 * (1 + number % 7)):
                return
            signal.pthread_kill(main, signal.SIGUSR1)

    sender = start_thread(send)
    before = signal.signal(signal.SIGUSR1, interrupt)
    done = 0
    try:
        for _ in range(times):
            with contextlib.suppress(Interrupted):
                due.set()
                while True:
                    act()
                    done += 1
    finally:
        ended.set()
        due.set()
        sender.result()
        signal.signal(signal.SIGUSR1, before)
    return done


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("send", ["broadcast", "send"])
def test_a_signal_handler_may_broadcast(stage: Stage, send: str, compressed: bool) -> None:
    manager = stage.manager(ping_interval=None, max_outbox_size=1 << 28)
    extension = PerMessageDeflate(False, False, threshold=0)
    accepted = extension.accept(())
    assert accepted is not None
    websocket, peer = stage.connect(None, Recorder, tcp_pair)
    stream = Stream(always_mask=True, expect_masking=False)
    stream.limit(None, None)
    if compressed:
        websocket.stream.use(accepted[1].codec())
        stream.use(extension.check(accepted[0]).codec())
    manager.add(websocket)
    wait_for(websocket.was_opened)
    received = {b"ours": 0, b"handler's": 0}
    sent = {b"ours": 0, b"handler's": 0}

    ended = threading.Event()

    def read() -> None:
        while not ended.is_set() or received != sent:
            for message in stream.receive(peer.sock.recv(1 << 16)):
                received[message.data] += 1

    def handle() -> None:
        sent[b"handler's"] += 1
        manager.broadcast("handler's")

    reader = start_thread(read)
    with signals(handle):
        while sent[b"ours"] < 3000 or sent[b"handler's"] < 100:
            sent[b"ours"] += 1
            if send == "broadcast":
                manager.broadcast("ours")
            else:
                websocket.send("ours")
    ended.set()
    handle()
    reader.result()
    peer.say_goodbye()
    websocket.end()


def test_a_signal_handler_may_stop_the_manager(stage: Stage) -> None:
    manager = stage.manager(ping_interval=None, drain_timeout=1.0)
    for _ in range(20):
        websocket, peer = stage.connect(manager, Recorder)
        wait_for(websocket.was_opened)
        with signals(manager.stop):
            while manager.running:
                manager.broadcast("x")
                manager.stats()
        assert peer.receive_rest_until_close()[-1].payload[:2] == (1001).to_bytes(2, "big")
        peer.send(peer.goodbye(1001))
        manager.join(PATIENCE)
        assert not manager.is_alive()
        websocket.end()
        manager.start()


def test_a_signal_handler_may_stop_the_manager_while_a_websocket_is_added(stage: Stage) -> None:
    """It has interrupted stats(), and who adds waits for that."""
    manager = stage.manager(drain_timeout=PATIENCE)
    websocket, peer = stage.connect(None, Recorder)
    with manager._registry.lock:
        adding = start_thread(manager.add, websocket)
        until(lambda: held_by_another(manager._guard))
        manager.stop()
    adding.result()
    assert peer.receive_close()[0] == 1001
    peer.send(peer.goodbye(1001))
    websocket.end()
    manager.join(PATIENCE)
    assert not manager.is_alive()


def test_what_a_signal_handler_raises_in_send_leaves_the_connection_in_order(stage: Stage) -> None:
    """Ctrl+C, say, in a program that goes on, or stops its manager then."""
    manager = stage.manager(ping_interval=None)
    websocket, peer = stage.connect(manager, Recorder, tcp_pair)
    wait_for(websocket.was_opened)
    reader = start_thread(lambda: sum(1 for _ in iter(peer.receive_text, "end")))
    sent = interrupted(200, lambda: websocket.send("x"))
    websocket.send("end")
    received = reader.result()
    assert isinstance(received, int)
    assert sent <= received <= sent + 200  # of each send that was interrupted, the message may have gone
    peer.say_goodbye()
    websocket.end()


def held_by_another(lock: Any) -> bool:
    if lock.acquire(blocking=False):
        lock.release()
        return False
    return True


# --- a socket that the application closes -----------------------------------------------------------------------------


@WORKERS
def test_a_socket_that_the_application_closes_is_noticed_without_pings(stage: Stage, workers: int) -> None:
    manager, clock = stage.timed_manager(ping_interval=None, max_connections=2, workers=workers)
    websocket, peer = stage.connect(manager, Recorder)
    bystander, peer_of_bystander = stage.connect(manager, EchoRecorder)
    peer.sync()
    peer_of_bystander.sync()
    for _ in range(2):
        clock.advance(31.0)
        peer_of_bystander.sync()
    websocket.sock.close()
    clock.advance(31.0)
    assert websocket.end() == (1006, "Going away")
    until(lambda: manager.stats().connections.closing == 0)
    manager.admit()
    peer_of_bystander.send(peer_of_bystander.text("x"))
    assert peer_of_bystander.receive_text() == "x"
    assert bystander.ends == []
