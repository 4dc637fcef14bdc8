"""Sockets as a websocket that runs by itself uses them, with the threads or greenlets that go with them.

One thread at a time reads and one at a time writes, possibly both at once. A TLS object is nevertheless called by one
thread at a time, which holds it for no longer than the call takes: it never blocks.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from ws4py.engine.pollers import LONGEST_WAIT
from ws4py.exc import ManagerError

__all__ = ["BROKEN", "INHERITED_TLS", "InheritedPort", "Port", "forks", "make_port", "wait"]

logger = logging.getLogger("ws4py")

BROKEN: Final = (OSError, ValueError, AttributeError)
"""What a socket raises that is broken, or was closed by somebody else meanwhile."""

INHERITED_TLS: Final = (
    "A forked process can't send over TLS on a websocket that it inherited: two processes would use the same keys, for "
    "records of the same numbers"
)


class Port(Protocol):
    """A socket as a connection uses it, with the threads or greenlets that go with it."""

    @property
    def kept(self) -> int:
        """How many bytes were given to it and are not with the kernel yet, while nobody waits for that."""

    def make_lock(self) -> Any:
        """Return a lock; its acquire() takes whether to wait, and for how many seconds."""

    def make_guard(self) -> Any:
        """Return a lock for a ``with`` statement of a few assignments. A signal handler may come while the same thread
        holds it."""

    def current(self) -> object:
        """Return what identifies the running thread or greenlet."""

    def begin(self) -> None:
        """Somebody is going to read until the end."""

    def receive(self, size: int, timeout: float | None) -> bytes | None:
        """Return what has come, b"" at the end, None if nothing has in time.

        :raises OSError: if the connection is broken.
        """

    def send(self, data: bytes | memoryview, timeout: float) -> None:
        """Send all of ``data``.

        :raises TimeoutError: if that takes longer.
        :raises OSError: if the connection is broken.
        """

    def writable(self) -> bool:
        """Tell whether the kernel takes some bytes now, or an error."""

    def send_now(self, data: bytes | memoryview) -> int:
        """Send as much of ``data`` as the kernel takes now; return how much, and go on with the rest of it only.

        :raises OSError: if the connection is broken.
        """

    def repeat(self, seconds: float, function: Callable[[], bool]) -> Callable[[], None]:
        """Call a function at intervals until it returns False; return how to stop that."""

    def call_later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        """Call a function later, once; return how to prevent that."""

    def shut(self) -> None:
        """End both directions, which wakes whoever waits. The descriptor stays. Nothing is raised."""

    def close(self) -> None:
        """Give the descriptor back. Nothing is raised."""


class _ThreadPort:
    """What all ports have in common that are used by threads."""

    kept = 0

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def make_lock(self) -> Any:
        return threading.Lock()

    def make_guard(self) -> Any:
        return threading.RLock()

    def current(self) -> object:
        return threading.get_ident()

    def begin(self) -> None:
        pass

    def writable(self) -> bool:
        try:
            return wait(self._sock, True, 0.0)
        except BROKEN:
            return True

    def repeat(self, seconds: float, function: Callable[[], bool]) -> Callable[[], None]:
        stopped = threading.Event()

        def run() -> None:
            while not stopped.wait(seconds) and function():
                pass

        threading.Thread(target=run, name="WebSocketHeartbeat", daemon=True).start()
        return stopped.set

    def call_later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        timer = threading.Timer(seconds, function)
        timer.name = "WebSocketCloseTimer"
        timer.daemon = True
        timer.start()
        return timer.cancel

    def shut(self) -> None:
        try:
            # Not the method of a TLS socket, which would take the TLS object away from whoever is using it.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except (*BROKEN, TypeError):
            pass  # not connected any more

    def close(self) -> None:
        self.shut()
        try:
            self._sock.close()
        except Exception:
            logger.debug("A socket could not be closed in order", exc_info=True)


class PlainPort(_ThreadPort):
    """TCP, or a unix socket. It stays in blocking mode, for programs that read it themselves."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._more = False  # there may be more to read at once
        self._flags = getattr(socket, "MSG_DONTWAIT", 0)

    def begin(self) -> None:
        """See :meth:`Port.begin`."""
        self._sock.setblocking(True)

    def receive(self, size: int, timeout: float | None) -> bytes | None:
        """See :meth:`Port.receive`."""
        if not self._more and not wait(self._sock, False, timeout):
            return None
        self._more = False
        try:
            data: bytes = self._sock.recv(size, self._flags)
        except BlockingIOError:
            return None
        self._more = len(data) == size
        return data

    def send_now(self, data: bytes | memoryview) -> int:
        """See :meth:`Port.send_now`."""
        try:
            count: int = self._sock.send(data, self._flags)
            return count
        except BlockingIOError:
            return 0

    def send(self, data: bytes | memoryview, timeout: float) -> None:
        """See :meth:`Port.send`."""
        deadline = time.monotonic() + timeout
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view, self._flags) :]
            except BlockingIOError:
                if not wait(self._sock, True, max(0.0, deadline - time.monotonic())):
                    raise TimeoutError from None


class TLSPort(_ThreadPort):
    """TLS by the ssl module. Its methods are called under a lock, and return at once."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        self._lock = threading.Lock()

    def begin(self) -> None:
        """See :meth:`Port.begin`."""
        with self._lock:
            self._sock.setblocking(False)

    def _attempt(self, method: Callable[[Any], Any], argument: Any) -> Any:
        """Call a method of the TLS object; return False if it has to wait for reading, True for writing."""
        with self._lock:
            timeout = self._sock.gettimeout()
            if timeout != 0.0:  # nobody runs the websocket: leave it as it is
                self._sock.setblocking(False)
            try:
                return method(argument)
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLWantWriteError:
                return True
            finally:
                if timeout != 0.0:
                    self._sock.settimeout(timeout)

    def receive(self, size: int, timeout: float | None) -> bytes | None:
        """See :meth:`Port.receive`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while isinstance(result := self._attempt(self._sock.recv, size), bool):
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not wait(self._sock, result, remaining):
                return None
        return bytes(result)

    def send_now(self, data: bytes | memoryview) -> int:
        """See :meth:`Port.send_now`."""
        view = memoryview(data)
        while view:
            result = self._attempt(self._sock.send, view[:65536])
            if isinstance(result, bool):
                break
            view = view[result:]
        return len(data) - len(view)

    def send(self, data: bytes | memoryview, timeout: float) -> None:
        """See :meth:`Port.send`."""
        deadline = time.monotonic() + timeout
        view = memoryview(data)
        while view:
            result = self._attempt(self._sock.send, view[:65536])
            if not isinstance(result, bool):
                view = view[result:]
                continue
            remaining = deadline - time.monotonic()
            # What a writer wants to read, the runner may read first: so it looks again now and then.
            patience = max(0.0, remaining) if result else min(0.05, remaining)
            if remaining <= 0 or (not wait(self._sock, result, patience) and result):
                raise TimeoutError

    def close(self) -> None:
        """See :meth:`Port.close`. The peer is told, if that does not take waiting."""
        with self._lock:
            try:
                self._sock.setblocking(False)
                self._sock.unwrap()
            except BROKEN:
                pass  # the peer's answer is not waited for
            self.shut()  # before another thread's turn: without its TLS object the socket would send in the clear
        super().close()


class AnyPort(_ThreadPort):
    """Something that is like a blocking socket: of another TLS library, or of a test."""

    def receive(self, size: int, timeout: float | None) -> bytes | None:
        """See :meth:`Port.receive`. How long it waits is the socket's affair."""
        try:
            data: bytes = self._sock.recv(size)
            pending = self._sock.pending() if hasattr(self._sock, "pending") else 0
            return data + self._sock.recv(pending) if pending and data else data
        except TimeoutError:
            return None

    def writable(self) -> bool:
        """See :meth:`Port.writable`. How long it waits is the socket's affair."""
        return True

    def send_now(self, data: bytes | memoryview) -> int:
        """See :meth:`Port.send_now`. It sends all, and how long it waits is the socket's affair."""
        self._sock.sendall(data)
        return len(data)

    def send(self, data: bytes | memoryview, timeout: float) -> None:
        """See :meth:`send_now`, which has left nothing."""

    def shut(self) -> None:
        """See :meth:`Port.shut`."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except Exception:
            logger.debug("A socket could not be ended in order", exc_info=True)


def make_port(sock: Any) -> Port:
    """Return what suits a socket that threads use: TLS of the ssl module, plain, or something else that can recv() and
    sendall()."""
    if isinstance(sock, ssl.SSLSocket):
        return TLSPort(sock)
    return PlainPort(sock) if isinstance(sock, socket.socket) else AnyPort(sock)


class _NoLock:
    """In place of the locks without which nothing can be sent."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        raise ManagerError(INHERITED_TLS)

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        """Nothing was taken."""


class InheritedPort(_ThreadPort):
    """TLS in a process that was forked since: nothing is to be read or written but by the parent."""

    def make_lock(self) -> Any:
        """Return one that refuses: so nothing has changed when nothing is sent."""
        return _NoLock()

    make_guard = make_lock

    def receive(self, size: int, timeout: float | None) -> bytes | None:
        """Refuse."""
        raise ManagerError(INHERITED_TLS)

    def send_now(self, data: bytes | memoryview) -> int:
        """Refuse."""
        raise ManagerError(INHERITED_TLS)

    def send(self, data: bytes | memoryview, timeout: float) -> None:
        """Refuse."""
        raise ManagerError(INHERITED_TLS)

    def shut(self) -> None:
        """Leave the connection to the parent."""


_forks = 0


def forks() -> int:
    """Return how many forks lie between this process and the one in which this module was imported."""
    return _forks


def _after_fork_in_child() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def wait(sock: Any, writing: bool, timeout: float | None, poll: Callable[[], Any] | None = None) -> bool:
    """Wait until a socket can be read or written; tell whether it can.

    :param timeout: in seconds; None waits for ever.
    :param poll: in place of ``select.poll``.
    :raises OSError: if the socket was closed.
    """
    fd = sock.fileno()
    if fd < 0:
        raise OSError(errno.EBADF, "The socket was closed")
    poll = poll or getattr(select, "poll", None)
    if poll is not None:
        poller = poll()
        poller.register(fd, select.POLLOUT if writing else select.POLLIN)
        return bool(poller.poll(None if timeout is None else -int(-min(timeout, LONGEST_WAIT) * 1000 // 1)))
    return any(select.select([] if writing else [fd], [fd] if writing else [], [], timeout))
