"""A client that runs in a greenlet, with or without monkey patching."""

from __future__ import annotations

import logging
import socket as stdlib_socket
import ssl as stdlib_ssl
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import gevent.monkey
import gevent.queue
import gevent.socket
import gevent.ssl

from ws4py.client.base import WebSocketBaseClient
from ws4py.client.inbox import MAX_MESSAGES, MAX_SIZE
from ws4py.client.network import Deadline, Network
from ws4py.messaging import Message

__all__ = ["WebSocketClient"]

logger = logging.getLogger("ws4py")


class GeventNetwork(Network):
    """How greenlets connect."""

    socket = gevent.socket

    def run_until(self, function: Callable[[], None], seconds: float | None) -> None:
        """Let one of gevent's own threads call a function, or a greenlet if it is patched."""
        patched = gevent.monkey.is_module_patched("socket")
        task = (gevent if patched else gevent.get_hub().threadpool).spawn(function)
        gevent.with_timeout(seconds, task.get, timeout_value=None)

    def look_up(self, host: str, port: int, deadline: Deadline) -> list[Any]:
        """Ask gevent's resolver."""
        ask = gevent.socket.getaddrinfo
        seconds = deadline.remaining()
        found = gevent.with_timeout(seconds, ask, host, port, 0, stdlib_socket.SOCK_STREAM, timeout_value=None)
        if found is None:
            raise TimeoutError(f"Not done in {deadline.seconds} seconds")
        addresses: list[Any] = found
        return addresses

    def adopt(self, sock: stdlib_socket.socket) -> Any:
        """Return a socket of gevent in the place of one of threads."""
        if isinstance(sock, gevent.socket.socket):
            return sock
        return gevent.socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())

    def wrap(self, sock: Any, context: stdlib_ssl.SSLContext, hostname: str) -> Any:
        """Do the handshake of TLS, by a context of either module."""
        return gevent.ssl.SSLSocket(sock=sock, server_hostname=hostname, _context=context)


class GreenInbox:
    """An :class:`~ws4py.client.inbox.Inbox` for greenlets."""

    def __init__(self) -> None:
        self.queue = gevent.queue.Queue()
        self._size = 0
        self._room = gevent.event.Event()
        self._wanted = self._draining = self._ended = self._lost = False

    def put(self, message: Message, wait: bool = True) -> None:
        """See :meth:`ws4py.client.inbox.Inbox.put`."""
        while self._full and not self._ended:
            if not self._wanted:
                self._size -= len(self.queue.get_nowait().data)
                if not self._lost:
                    self._lost = True
                    logger.warning("Nobody takes the messages of a websocket: the oldest are dropped")
            elif self._draining:
                return
            elif wait:
                self._room.clear()
                self._room.wait()
            else:
                break
        if not self._ended:
            self._size += len(message.data)
            self.queue.put(message)

    @property
    def _full(self) -> bool:
        return self.queue.qsize() >= MAX_MESSAGES or (self._size >= MAX_SIZE and not self.queue.empty())

    def __len__(self) -> int:
        return int(self.queue.qsize())

    def get(self, block: bool = True, timeout: float | None = None) -> Message | None:
        """See :meth:`ws4py.client.inbox.Inbox.get`."""
        self._wanted = True
        if self._ended and self.queue.empty():
            return None
        message: Message | None = self.queue.get(block, timeout)
        if message is None:
            self.queue.put(None)  # for the next one who asks
            return None
        self._size -= len(message.data)
        self._room.set()
        return message

    def want(self) -> None:
        """See :meth:`ws4py.client.inbox.Inbox.want`."""
        self._wanted = True

    def drain(self) -> None:
        """See :meth:`ws4py.client.inbox.Inbox.drain`."""
        self._draining = True
        self._room.set()

    def end(self) -> None:
        """See :meth:`ws4py.client.inbox.Inbox.end`."""
        if not self._ended:
            self._ended = True
            self.queue.put(None)
            self._room.set()


class WebSocketClient(WebSocketBaseClient):
    """A :class:`~ws4py.client.WebSocketBaseClient` whose callbacks are called by a greenlet that :meth:`connect`
    starts.

    It belongs to the thread that has made it. Messages are taken out by :meth:`receive`, which returns None at the end,
    or by iterating; or :meth:`received_message` is overridden.
    """

    _network = GeventNetwork()
    _client_pulled = False

    def _prepare(self) -> None:
        before = getattr(self, "_th", None)
        # __init__ may be run again by a callback: until the new greenlet starts, it is the old one that is waited for.
        self._client_previous = before if before is gevent.getcurrent() else None
        self._th = gevent.Greenlet(self.run)

    def _make_event(self) -> Any:
        return gevent.event.Event()

    def _make_inbox(self) -> Any:
        return GreenInbox()

    @property
    def messages(self) -> Any:
        """The queue of gevent that holds the messages; a None in it is the end."""
        return self._client_inbox.queue

    def handshake_ok(self) -> None:
        """Start the greenlet. It calls :meth:`opened` first."""
        self._th.start()

    def run_forever(self) -> None:
        """Wait until the websocket has ended and :meth:`closed` has returned.

        :raises RuntimeError: if it was never connected.
        """
        waited = None
        while True:
            greenlet = self._th if self._th.started or self._th.ready() else self._client_previous
            if greenlet is None and waited is None:
                raise RuntimeError("This websocket is not connected")
            if greenlet is None or greenlet is waited or greenlet is gevent.getcurrent():
                return
            greenlet.join()
            waited = greenlet

    def _wait_for_end(self) -> None:
        if self._th is gevent.getcurrent() or not self._th.started:
            return
        limits = self._limits or {}
        self._th.join(limits["send_timeout"] + limits["close_timeout"])
        if not self._th.dead:  # a callback blocks
            self.close_connection()
