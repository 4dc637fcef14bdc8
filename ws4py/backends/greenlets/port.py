"""Sockets of gevent as a websocket that runs by itself uses them: in a greenlet of its own."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from typing import Any

import gevent
from gevent import monkey, socket
from gevent.lock import BoundedSemaphore

from ws4py.backends.greenlets.waiting import native_lock
from ws4py.backends.ports import BROKEN, wait

__all__ = ["GreenletPort"]

logger = logging.getLogger("ws4py")


class GreenletPort:
    """A socket of gevent, plain or TLS, used by the greenlets of one thread."""

    kept = 0

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def make_lock(self) -> Any:
        """See :meth:`ws4py.backends.ports.Port.make_lock`."""
        return BoundedSemaphore(1)

    def make_guard(self) -> Any:
        """See :meth:`ws4py.backends.ports.Port.make_guard`. It is held over nothing that lets another greenlet run."""
        return native_lock()

    def current(self) -> object:
        """See :meth:`ws4py.backends.ports.Port.current`."""
        return gevent.getcurrent()

    def begin(self) -> None:
        """See :meth:`ws4py.backends.ports.Port.begin`."""
        self._sock.setblocking(True)

    def receive(self, size: int, timeout: float | None) -> bytes | None:
        """See :meth:`ws4py.backends.ports.Port.receive`."""
        with gevent.Timeout(timeout, False):
            data: bytes = self._sock.recv(size)
            return data
        return None

    def writable(self) -> bool:
        """See :meth:`ws4py.backends.ports.Port.writable`."""
        try:  # with the system's own, for what gevent has in its place gives way to others
            return wait(self._sock, True, 0.0, monkey.get_original("select", "poll"))
        except BROKEN:
            return True

    def send_now(self, data: bytes | memoryview) -> int:
        """See :meth:`ws4py.backends.ports.Port.send_now`. What gevent's socket wraps is used: itself it would wait."""
        view = memoryview(data)
        tls = getattr(self._sock, "_sslobj", None)
        try:
            while view:
                view = view[self._sock._sock.send(view) if tls is None else tls.write(view[:65536]) :]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        return len(data) - len(view)

    def send(self, data: bytes | memoryview, timeout: float) -> None:
        """See :meth:`ws4py.backends.ports.Port.send`."""
        with gevent.Timeout(max(timeout, 0.001), TimeoutError):
            self._sock.sendall(data)

    def repeat(self, seconds: float, function: Callable[[], bool]) -> Callable[[], None]:
        """See :meth:`ws4py.backends.ports.Port.repeat`."""

        def run() -> None:
            gevent.sleep(seconds)
            while function():
                gevent.sleep(seconds)

        greenlet = gevent.spawn(run)
        return lambda: greenlet.kill(block=False)

    def call_later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        """See :meth:`ws4py.backends.ports.Port.call_later`."""
        greenlet = gevent.spawn_later(seconds, function)
        return lambda: greenlet.kill(block=False)

    def shut(self) -> None:
        """See :meth:`ws4py.backends.ports.Port.shut`."""
        try:
            # Not the method of a TLS socket, which would take the TLS object away from whoever is using it.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except BROKEN:
            pass  # not connected any more

    def close(self) -> None:
        """See :meth:`ws4py.backends.ports.Port.close`."""
        try:
            self._sock.setblocking(False)
            if hasattr(self._sock, "unwrap"):
                self._sock.unwrap()
        except BROKEN:
            pass  # the peer's answer to the end of TLS is not waited for
        self.shut()
        try:
            self._sock.close()
        except Exception:
            logger.debug("A socket could not be closed in order", exc_info=True)
