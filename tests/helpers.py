"""What the tests of the layers above the I/O line share: both ends of a connection, and no HTTP between them.

Every wait has a deadline, which is reached only by a test that fails.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import pytest

from ws4py.engine.pollers import READ, Event, Poller, default_poller
from ws4py.framing import (
    FIN,
    OPCODE_BINARY,
    OPCODE_CLOSE,
    OPCODE_CONTINUATION,
    OPCODE_PING,
    OPCODE_PONG,
    OPCODE_TEXT,
    apply_mask,
    build_frame,
)
from ws4py.manager import WebSocketManager
from ws4py.messaging import BinaryMessage, Message, TextMessage
from ws4py.websocket import EchoWebSocket, WebSocket

PATIENCE = 20.0
"""Seconds until a wait has failed; none is expected to take a tenth of it."""

WORKERS = pytest.mark.parametrize("workers", [0, 1, 8])

PAYLOADS: list[tuple[Any, bool, int, bytes]] = [
    ("é", False, OPCODE_TEXT, b"\xc3\xa9"),
    (b"abc", False, OPCODE_TEXT, b"abc"),
    (b"", False, OPCODE_TEXT, b""),
    (b"\xff", True, OPCODE_BINARY, b"\xff"),
    (bytearray(b"\xfe"), True, OPCODE_BINARY, b"\xfe"),
    (memoryview(b"\xfd"), True, OPCODE_BINARY, b"\xfd"),
    (TextMessage("t"), False, OPCODE_TEXT, b"t"),
    (TextMessage("t"), True, OPCODE_TEXT, b"t"),
    (BinaryMessage(b"\xfc"), False, OPCODE_BINARY, b"\xfc"),
]
"""What a websocket sends: a payload, whether it is said to be binary, and the opcode and the bytes that it becomes."""


KEY = b"\x37\xfa\x21\x3d"

_T = TypeVar("_T")
_W = TypeVar("_W", bound=WebSocket)


def until(condition: Callable[[], _T], patience: float = PATIENCE) -> _T:
    """Return what ``condition`` returns as soon as it is true: for what announces itself by no event."""
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while not (result := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"This has not come true in {patience} seconds")
        pause.wait(0.001)
    return result


def stays(condition: Callable[[], object], seconds: float = 0.05) -> None:
    """Check that something is true for a while: for what must not happen, which nothing can announce."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < deadline:
        assert condition(), f"This has not stayed true for {seconds} seconds"
        pause.wait(0.001)


def wait_for(event: threading.Event) -> None:
    """Wait for an event."""
    assert event.wait(PATIENCE), "the event has not come"


def start_thread(function: Callable[..., object], *arguments: object) -> Task:
    """Run a function in a thread; its result, or exception, is asked of what is returned."""
    return Task(function, *arguments)


class Task(threading.Thread):
    """A thread whose result can be waited for."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._arguments = arguments
        self._result: object = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._function(*self._arguments)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the result is asked for
            self._error = error

    def result(self) -> object:
        """Return what the function returned, or raise what it raised."""
        self.join(PATIENCE)
        assert not self.is_alive(), "the thread has not ended"
        if self._error is not None:
            raise self._error
        return self._result


class FakeClock:
    """A clock that goes on when it is told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class RestlessPoller:
    """The system's poller, but it never waits long: so its manager soon sees what a fake clock shows."""

    def __init__(self, poller: Poller | None = None) -> None:
        self._poller = poller or default_poller()
        self._polls = 0

    def register(self, fd: int, interest: int = READ) -> None:
        self._poller.register(fd, interest)

    def modify(self, fd: int, interest: int) -> None:
        self._poller.modify(fd, interest)

    def unregister(self, fd: int) -> None:
        self._poller.unregister(fd)

    def poll(self, timeout: float | None = None) -> list[Event]:
        self._polls += 1
        return self._poller.poll(0.002 if timeout is None else min(timeout, 0.002))

    def release(self) -> None:
        self._poller.release()

    def wait_for_rounds(self) -> None:
        """Return when its manager has done all that was to be done."""
        seen = self._polls
        until(lambda: self._polls >= seen + 3)


# --- the peer ---------------------------------------------------------------------------------------------------------


class ReceivedFrame(NamedTuple):
    first: int
    payload: bytes

    @property
    def opcode(self) -> int:
        return self.first & 0x0F


class Peer:
    """The other end of a websocket, frame by frame on a blocking socket.

    :param masking: whether this end is the client.
    """

    def __init__(self, sock: Any, masking: bool = True) -> None:
        self.sock = sock
        self.masking = masking
        self.controls: list[ReceivedFrame] = []
        """The Pings and Pongs that came while something else was waited for."""
        self._buffer = bytearray()
        sock.settimeout(PATIENCE)

    # sending

    def frame(self, first: int, payload: bytes = b"") -> bytes:
        return build_frame(first, payload, KEY if self.masking else None)

    def send(self, *frames: bytes) -> None:
        """Send frames in one piece."""
        self.sock.sendall(b"".join(frames))

    def send_until_pushed_back(self, data: bytes) -> int:
        """Send until the other side takes no more for a moment, and return how much it took; it may not take all."""
        sent = 0
        self.sock.settimeout(0.2)
        try:
            while sent < len(data):
                sent += self.sock.send(data[sent : sent + 1000])
        except TimeoutError:
            return sent
        finally:
            self.sock.settimeout(PATIENCE)
        raise AssertionError("nothing pushed back")

    def text(self, text: str) -> bytes:
        return self.frame(FIN | OPCODE_TEXT, text.encode())

    def binary(self, data: bytes) -> bytes:
        return self.frame(FIN | OPCODE_BINARY, data)

    def ping(self, data: bytes = b"") -> bytes:
        return self.frame(FIN | OPCODE_PING, data)

    def pong(self, data: bytes = b"") -> bytes:
        return self.frame(FIN | OPCODE_PONG, data)

    def goodbye(self, code: int | None = 1000, reason: str = "") -> bytes:
        payload = b"" if code is None else struct.pack("!H", code) + reason.encode()
        return self.frame(FIN | OPCODE_CLOSE, payload)

    # receiving

    def receive(self) -> ReceivedFrame:
        """Return the next frame.

        :raises EOFError: at the end of the stream.
        """
        first, second = self._take(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
        key = self._take(4) if second & 0x80 else None
        payload = self._take(size)
        return ReceivedFrame(first, apply_mask(payload, key) if key else payload)

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self.sock.recv(1 << 18)
            if not data:
                raise EOFError
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def receive_data(self) -> ReceivedFrame:
        """Return the next frame that is no Ping and no Pong; those are kept in ``controls``."""
        while True:
            frame = self.receive()
            if frame.opcode not in (OPCODE_PING, OPCODE_PONG):
                return frame
            self.controls.append(frame)

    def receive_message(self) -> bytes:
        """Return the payload of the next message, its fragments joined, which none but control frames may part."""
        frame = self.receive_data()
        assert frame.opcode in (OPCODE_TEXT, OPCODE_BINARY), frame
        payload = [frame.payload]
        while not frame.first & FIN:
            frame = self.receive_data()
            assert frame.opcode == OPCODE_CONTINUATION, frame
            payload.append(frame.payload)
        return b"".join(payload)

    def receive_text(self) -> str:
        return self.receive_message().decode()

    def receive_close(self) -> tuple[int | None, str]:
        """Return the code and the reason of the Close that must come next."""
        frame = self.receive_data()
        assert frame.opcode == OPCODE_CLOSE, frame
        if not frame.payload:
            return None, ""
        return struct.unpack("!H", frame.payload[:2])[0], frame.payload[2:].decode()

    def receive_rest(self) -> list[ReceivedFrame]:
        """Return all frames until the end of the stream, which may be a reset."""
        frames = []
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                frames.append(self.receive())
        return frames

    def expect_end(self) -> None:
        """Check that the stream ends here."""
        frames = [frame for frame in self.receive_rest() if frame.opcode not in (OPCODE_PING, OPCODE_PONG)]
        assert frames == []

    def receive_rest_until_close(self) -> list[ReceivedFrame]:
        """Return all frames up to the Close that must come."""
        frames = [self.receive()]
        while frames[-1].opcode != OPCODE_CLOSE:
            frames.append(self.receive())
        return frames

    def sync(self) -> None:
        """Return when the other side has taken in all that was sent before, and answered what is its own to answer."""
        mark = os.urandom(8)
        self.send(self.ping(mark))
        while True:
            frame = self.receive()
            if frame.opcode == OPCODE_PONG and frame.payload == mark:
                return
            if frame.opcode in (OPCODE_PING, OPCODE_PONG):
                self.controls.append(frame)
            else:
                raise AssertionError(f"{frame} came before the Pong")

    # the end

    def say_goodbye(self, code: int | None = 1000, reason: str = "") -> tuple[int | None, str]:
        """Do the closing handshake from this end; return the answer."""
        self.send(self.goodbye(code, reason))
        answer = self.receive_close()
        self.expect_end()
        return answer

    def reset(self) -> None:
        """End TCP with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a TCP connection over loopback: accepted, connected."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client = socket.create_connection(listener.getsockname(), PATIENCE)
        server, _ = listener.accept()
    for sock in (server, client):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server, client


def unix_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a unix socket."""
    return socket.socketpair()


def narrow(*socks: socket.socket) -> None:
    """Let the kernel buffer as little as it can."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)


class Certificates:
    """An authority of the tests' own, and pairs of TLS sockets over loopback that trust it."""

    def __init__(self) -> None:
        import trustme

        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)
        self._certificate = certificate

    def ssl_pair(self) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
        """Return a server's end by the ssl module, and a client's."""
        server, client = tcp_pair()
        task = start_thread(lambda: self.client.wrap_socket(client, server_hostname="localhost"))
        wrapped = self.server.wrap_socket(server, server_side=True)
        other = task.result()
        assert isinstance(other, ssl.SSLSocket)
        return wrapped, other

    def openssl_pair(self) -> tuple[Any, ssl.SSLSocket]:
        """Return a server's end by pyOpenSSL, and a client's by the ssl module."""
        from OpenSSL import SSL

        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._certificate.configure_cert(context)
        server, client = tcp_pair()
        task = start_thread(lambda: self.client.wrap_socket(client, server_hostname="localhost"))
        connection = SSL.Connection(context, server)
        connection.set_accept_state()
        connection.do_handshake()
        other = task.result()
        assert isinstance(other, ssl.SSLSocket)
        return connection, other


# --- websockets that keep what happens to them ------------------------------------------------------------------------


class Recorder(WebSocket):
    """Keeps its callbacks in order, and sees whether they overlap or come when they may not."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.events: list[tuple[Any, ...]] = []
        self.errors: list[BaseException] = []
        self.faults: list[str] = []
        self.was_opened = threading.Event()
        self.was_closed = threading.Event()
        self._inside = threading.Lock()

    @contextlib.contextmanager
    def record(self, *event: Any) -> Iterator[None]:
        if not self._inside.acquire(blocking=False):
            self.faults.append(f"{event} overlaps with another callback")
            yield
            return
        try:
            if (event[0] == "opened") is not (not self.events):
                self.faults.append(f"{event} came after {self.events}")
            if any(name == "closed" for name, *_ in self.events):
                self.faults.append(f"{event} came after closed()")
            if self.sock is None or self.stream is None:
                self.faults.append(f"{event} came without a socket or a stream")
            self.events.append(event)
            yield
        finally:
            self._inside.release()

    def opened(self) -> None:
        with self.record("opened"):
            self.on_opened()
        self.was_opened.set()

    def received_message(self, message: Message) -> None:
        with self.record("message", message.data):
            self.on_message(message)

    def ponged(self, pong: Message) -> None:
        with self.record("ponged", pong.data):
            self.on_pong(pong)

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        try:
            with self.record("closed", code, reason):
                self.on_closed(code, reason)
        finally:
            self.was_closed.set()

    def unhandled_error(self, error: BaseException) -> None:
        self.errors.append(error)

    def on_opened(self) -> None:
        """For subclasses."""

    def on_message(self, message: Message) -> None:
        """For subclasses."""

    def on_pong(self, pong: Message) -> None:
        """For subclasses."""

    def on_closed(self, code: int, reason: str | bytes | None) -> None:
        """For subclasses."""

    @property
    def messages(self) -> list[bytes]:
        return [event[1] for event in self.events if event[0] == "message"]

    @property
    def ends(self) -> list[tuple[Any, ...]]:
        """The calls of closed()."""
        return [event[1:] for event in self.events if event[0] == "closed"]

    def end(self) -> tuple[int, Any]:
        """Wait for closed(), and return its code and reason."""
        wait_for(self.was_closed)
        assert len(self.ends) == 1, self.events
        assert self.faults == []
        code, reason = self.ends[0]
        return code, reason


class EchoRecorder(Recorder):
    """Echoes, and records."""

    def on_message(self, message: Message) -> None:
        self.send(message.data, message.is_binary)


class Gate(Recorder):
    """Its handler of messages waits until it is let through; then it echoes.

    A message that begins with "pass" need not wait.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()

    def on_message(self, message: Message) -> None:
        if not message.data.startswith(b"pass"):
            self.entered.release()
            wait_for(self.gate)
        self.send(message.data, message.is_binary)

    def wait_entered(self) -> None:
        assert self.entered.acquire(timeout=PATIENCE), "no handler was entered"


class Script(Recorder, Generic[_T]):
    """Does in each callback what a function says that is given to it."""

    on: dict[str, Callable[..., Any]]

    @classmethod
    def of(cls, **callbacks: Callable[..., Any]) -> type[Script[Any]]:
        """A subclass that calls ``opened=``, ``message=``, ``pong=`` and ``closed=`` with the websocket first."""
        return type("Scripted", (cls,), {"on": callbacks})

    def _do(self, name: str, *arguments: Any) -> None:
        if name in self.on:
            self.on[name](self, *arguments)

    def on_opened(self) -> None:
        self._do("opened")

    def on_message(self, message: Message) -> None:
        self._do("message", message)

    def on_pong(self, pong: Message) -> None:
        self._do("pong", pong)

    def on_closed(self, code: int, reason: str | bytes | None) -> None:
        self._do("closed", code, reason)


# --- the stage --------------------------------------------------------------------------------------------------------


class Stage:
    """Makes managers and connections for one test, and ends them: with a deadline, and with nothing left."""

    def __init__(self) -> None:
        gc.collect()
        self._threads = set(threading.enumerate())
        self._fds = open_fds()
        self._managers: list[WebSocketManager] = []
        self._pollers: list[RestlessPoller] = []
        self._peers: list[Peer] = []
        self._websockets: list[WebSocket] = []
        self.closers: list[Callable[[], object]] = []
        """What is to be called first at the end, to let go who is held."""

    def manager(self, start: bool = True, **options: Any) -> WebSocketManager:
        manager = WebSocketManager(**options)
        if isinstance(poller := options.get("poller"), RestlessPoller):
            self._pollers.append(poller)
        manager.daemon = True  # so that a test that fails does not keep the process
        self._managers.append(manager)
        if start:
            manager.start()
        return manager

    def timed_manager(self, **options: Any) -> tuple[WebSocketManager, FakeClock]:
        """Return a manager that goes by a clock of the test's."""
        clock = FakeClock()
        poller = RestlessPoller()
        self.closers.append(lambda: clock.advance(1000.0))  # for what waits for a deadline only
        manager = self.manager(poller=poller, clock=clock, **options)
        return manager, clock

    def connect(
        self,
        manager: WebSocketManager | None,
        websocket_class: type[_W],
        pair: Callable[[], tuple[Any, Any]] = unix_pair,
        small: bool = False,
        early: bytes = b"",
        **options: Any,
    ) -> tuple[_W, Peer]:
        """Return a websocket that the manager runs, and its peer.

        :param small: the kernel is to buffer little between them.
        :param early: what was read with the handshake.
        """
        server, client = pair()
        if small:
            narrow(server, client)
        websocket = websocket_class(server, **options)
        websocket.buf = early
        peer = Peer(client)
        self._peers.append(peer)
        self._websockets.append(websocket)
        if manager is not None:
            manager.add(websocket)
        return websocket, peer

    def close(self) -> None:
        """End all, and check that nothing is left."""
        for close in self.closers:
            close()
        for websocket in self._websockets:
            if isinstance(websocket, Gate):
                websocket.gate.set()
        for peer in self._peers:
            peer.close()
        for manager in self._managers:
            manager.stop()
        for manager in self._managers:
            manager.join(PATIENCE)
            assert not manager.is_alive(), "the manager's thread has not ended"
        for poller in self._pollers:
            poller.release()
        for websocket in self._websockets:
            if isinstance(websocket, Recorder):
                assert websocket.faults == []
                assert len(websocket.ends) <= 1
            websocket.close_connection()  # of those that no manager has
        until(lambda: not [thread for thread in threading.enumerate() if thread not in self._threads])
        self._managers.clear()
        self._websockets.clear()
        self._peers.clear()
        gc.collect()
        left = open_fds() - self._fds
        assert not left, f"descriptors are left open: {left}"


def present(manager: WebSocketManager) -> int:
    """Return how many websockets a manager has, those included whose ends have begun."""
    figures = manager.stats().connections
    return figures.open + figures.closing


def open_fds() -> set[tuple[int, str]]:
    """Return the open descriptors of this process and what they are; nothing where that can't be told."""
    fds = set()
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                fds.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return fds


class Keeper(logging.Handler):
    """Keeps records in a list."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


@contextlib.contextmanager
def quiet() -> Iterator[list[logging.LogRecord]]:
    """Keep what ws4py logs within, in place of showing it."""
    records: list[logging.LogRecord] = []
    handler = Keeper(records)
    logger = logging.getLogger("ws4py")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


__all__ = [
    "KEY",
    "PATIENCE",
    "Certificates",
    "EchoRecorder",
    "EchoWebSocket",
    "FakeClock",
    "Gate",
    "Peer",
    "ReceivedFrame",
    "Recorder",
    "RestlessPoller",
    "Script",
    "Stage",
    "Task",
    "narrow",
    "open_fds",
    "present",
    "quiet",
    "start_thread",
    "tcp_pair",
    "unix_pair",
    "until",
    "wait_for",
]
