"""One websocket under gevent: its socket, its greenlet, and how greenlets wait.

All of it happens in the thread of one hub. Another thread may send: see :class:`GreenletConnection`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent import monkey, socket
from gevent.event import Event

from ws4py.manager.connection import Connection
from ws4py.manager.limits import OverflowPolicy
from ws4py.manager.statistics import WorkerCounters
from ws4py.manager.transport import PlainTransport, TLSTransport, Transport

__all__ = ["GreenletCondition", "GreenletConnection", "close_socket", "make_transport", "native_lock", "take_socket"]

logger = logging.getLogger("ws4py")

native_lock: Callable[[], Any] = monkey.get_original("_thread", "RLock")
"""Makes a reentrant lock of the system's threads, whatever is patched. Greenlets of one thread never meet at it, since
none gives way while it holds one.
"""


# --- sockets ----------------------------------------------------------------------------------------------------------


def take_socket(sock: Any) -> Any:
    """Return a socket for the connection of ``sock``, which the server that has it may close without ending the
    connection.

    :param sock: of gevent, plain or TLS.
    """
    if getattr(sock, "_sslobj", None) is not None:
        # The TLS object can't change its socket; so the server is given a close() that does nothing.
        sock.close = _keep_open
        return sock
    return socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())


def close_socket(sock: Any) -> None:
    """Close what :func:`take_socket` has returned."""
    getattr(sock, "__dict__", {}).pop("close", None)
    sock.close()


def _keep_open() -> None:
    """Stand in for the ``close`` of a socket that has a new owner."""


class _PlainTransport(PlainTransport):
    """TCP, on what gevent's socket wraps: its own methods would only add a frame, since nothing may wait here."""

    __slots__ = ("_owner",)

    def __init__(self, sock: Any) -> None:
        super().__init__(sock._sock)
        self._owner = sock

    @property
    def closed(self) -> bool:
        """See :attr:`Transport.closed`. What is wrapped may be closed later, by the hub."""
        return bool(self._owner.fileno() < 0)

    def close(self) -> None:
        """Give the descriptor back."""
        self._owner.close()


class _TLSObject:
    """The TLS object inside gevent's socket, with the methods that :class:`~ws4py.manager.transport.TLSTransport`
    calls.

    gevent's own return 0 from a ``send`` that would have to wait, and do not say for what.
    """

    __slots__ = ("_owner", "pending", "recv", "send", "shutdown")

    def __init__(self, sock: Any) -> None:
        self._owner = sock
        self.recv = sock._sslobj.read
        self.send = sock._sslobj.write
        self.pending = sock._sslobj.pending
        self.shutdown = sock._sslobj.shutdown

    def fileno(self) -> int:
        return int(self._owner.fileno())

    def close(self) -> None:
        close_socket(self._owner)


class _TLSTransport(TLSTransport):
    """TLS as gevent wraps it."""

    __slots__ = ()

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self._sock = _TLSObject(sock)


def make_transport(sock: Any) -> Transport:
    """Return the transport of a connected socket of gevent, which is made non-blocking."""
    sock.setblocking(False)
    return _TLSTransport(sock) if getattr(sock, "_sslobj", None) is not None else _PlainTransport(sock)


# --- greenlets --------------------------------------------------------------------------------------------------------


class GreenletCondition(threading.Condition):
    """A condition over a native lock that greenlets wait on, of one thread or several."""

    def __init__(self, lock: Any) -> None:
        super().__init__(lock)
        self._guard = lock
        self._changed = Event()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until ``predicate()`` is true, for ``timeout`` seconds at most; return what it said last.

        The lock is held by the caller, but not while it waits.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                break
            changed = self._changed
            self._guard.release()
            try:
                changed.wait(remaining)
            finally:
                self._guard.acquire()
        return result

    def notify_all(self) -> None:
        """Let all that wait look again. The lock is held."""
        changed, self._changed = self._changed, Event()
        changed.set()


class GreenletConnection(Connection):
    """A connection whose callbacks run in a greenlet of its own.

    The hub's thread owns it. ``send``, ``ping`` and ``close`` of its websocket may be called by any greenlet of that
    thread, and by other threads; whoever has to wait, for room in the outbox, gives way to the other greenlets of its
    thread.
    """

    __slots__ = ("_due", "_interrupt", "_parked", "greenlet")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lock = native_lock()
        self._due = False  # there is something in the inbox
        self._parked = False  # the greenlet waits for that
        self._interrupt: KeyboardInterrupt | None = None  # what goes on when the connection has ended
        self.greenlet: gevent.Greenlet | None = None

    def offer(self, frame: bytes, overflow: OverflowPolicy, size: int | None = None) -> bool:
        """See :meth:`ws4py.manager.connection.Connection.offer`.

        A greenlet that broadcasts much at once does not give way, so what the kernel would take is written first.
        """
        self._make_way()
        return super().offer(frame, overflow, size)

    def offer_in_order(self, opcode: int, payload: bytes, frame: bytes, overflow: OverflowPolicy) -> bool:
        """See :meth:`offer`."""
        self._make_way()
        return super().offer_in_order(opcode, payload, frame, overflow)

    def _make_way(self) -> None:
        if self.outbox_full and not self.transport.blocked:
            self._manager.write_now(self)  # type: ignore[attr-defined]

    def _raised(self, error: BaseException, counters: WorkerCounters) -> None:
        if isinstance(error, gevent.GreenletExit):
            self.terminate()  # the handler was killed
        else:
            super()._raised(error, counters)

    def _pass_on(self, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            # It is meant for the program, and met a handler by chance: the peer is told, and it goes on.
            self._interrupt = error
            self._manager.write_now(self)  # type: ignore[attr-defined]
            self.terminate()

    def _make_lock(self) -> Any:
        return native_lock()

    def _make_room(self) -> threading.Condition:
        return GreenletCondition(self._lock)

    @property
    def in_turn(self) -> bool:
        """Whether callbacks are running, or about to."""
        greenlet = self.greenlet
        return greenlet is not None and not greenlet.dead and not self._parked

    @property
    def parked(self) -> bool:
        """Whether the greenlet waits for something to do."""
        return self._parked

    def resume(self, in_hub: bool) -> None:
        """Let the greenlet have its turn: at once if the caller is the hub."""
        self._due = True
        if self._parked:
            self._parked = False
            greenlet = self.greenlet
            assert greenlet is not None, "it has parked"
            if in_hub:
                greenlet.switch()
            else:
                gevent.get_hub().loop.run_callback(greenlet.switch)
        elif self.greenlet is not None and self.greenlet.dead and not self.finished:
            # Killed before it had begun: closed() is owed all the same.
            self.greenlet = gevent.spawn(self.serve, WorkerCounters())

    def serve(self, counters: WorkerCounters) -> None:
        """Run the callbacks, a turn whenever there is something to do, until closed() has returned. The greenlet's
        function.

        There is one frame on the stack while the connection is idle, since each one costs memory.
        """
        switch = gevent.get_hub().switch
        clock = time.monotonic
        while not self.finished:
            try:
                if not self._due:
                    self._parked = True
                    switch()
                self._due = False
                began = clock()
                counters.turns += 1
                counters.queue_wait.observe(began - self.queued_at)
                while self.run_turn(counters):
                    pass
                counters.turn_time.observe(clock() - began)
            except BaseException as error:
                # Killed, or met by a timeout that a callback has left behind: closed() is still to be called.
                self._parked = False
                if not isinstance(error, gevent.GreenletExit):
                    logger.error("Something was thrown into the greenlet of %s", self, exc_info=error)
                self._pass_on(error)
                self.terminate()
        if self._interrupt is not None:
            interrupt, self._interrupt = self._interrupt, None
            raise interrupt
