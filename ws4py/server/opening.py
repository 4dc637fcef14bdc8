"""One connection, from when it is accepted until it is a websocket or has ended: TLS, the head of its request, the
answer.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

from ws4py.engine.pollers import READ, WRITE
from ws4py.exc import HandshakeError
from ws4py.server.request import RequestHead, RequestParser
from ws4py.server.responder import Caller, Responder
from ws4py.server.running import hand_over
from ws4py.websocket import WebSocket

__all__ = ["Opening", "Want"]

logger = logging.getLogger("ws4py")

RECEIVE: Final = 65536

MOST_DISCARDED: Final = 1 << 18
"""How many bytes are read of a client that goes on sending after its answer, so that it may get that."""


class Want(IntEnum):
    """What an opening needs in order to go on."""

    NOTHING = 0
    """It has ended."""
    READ = READ
    WRITE = WRITE
    WORKER = 4
    """A thread that may take its time."""
    MANAGER = 8
    """It is a websocket: :meth:`Opening.finish` is to be called."""


class Opening:
    """A connection that is being opened. Its socket is never waited for here; one thread at a time uses it.

    :param sock: not blocking.
    :param address: of its other end.
    :param responder: answers the request.
    :param add: a manager's, that takes the websocket; given the address of the client, too.
    :param context: for TLS, None without.
    :param max_head_size: of the request, in bytes.
    """

    __slots__ = (
        "_add",
        "_address",
        "_client",
        "_context",
        "_data",
        "_discarded",
        "_head",
        "_parser",
        "_responder",
        "_sock",
        "_step",
        "_websocket",
        "deadline",
        "fd",
        "patience_ends",
        "watched",
    )

    def __init__(
        self,
        sock: Any,
        address: Any,
        responder: Responder,
        add: Callable[..., None],
        context: ssl.SSLContext | None,
        max_head_size: int,
    ) -> None:
        self._sock = sock
        self._address = address
        self._responder = responder
        self._add = add
        self._context = context
        self._parser = RequestParser(max_head_size)
        self._head: RequestHead | None = None
        self._data = memoryview(b"")  # that is to be written
        self._websocket: WebSocket | None = None
        self._client: str | None = None  # its address
        self._discarded = 0
        self._step: Callable[[bool], Want | None] = self._read_head if context is None else self._await_hello
        self.fd: int = sock.fileno()
        self.deadline = 0.0
        """When it is given up. For the one who keeps it."""
        self.patience_ends = 0.0
        """When its client has been waited for long enough, if its place is wanted. For the one who keeps it."""
        self.watched = False
        """Whether its socket is waited for. For the one who keeps it."""

    def advance(self, in_worker: bool) -> Want:
        """Go on as far as can be without waiting; return what is needed then.

        :param in_worker: whether the calling thread may take its time.
        """
        try:
            while True:
                want = self._step(in_worker)
                if want is not None:
                    return want
        except (ssl.SSLWantReadError, BlockingIOError):
            return Want.READ
        except ssl.SSLWantWriteError:
            return Want.WRITE
        except OSError as error:  # the client has gone, or does not speak TLS
            logger.debug("A connection has ended before it was a websocket: %s", error)
            self.abort()
            return Want.NOTHING
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Drop the connection."""
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            websocket.sock = None
        self._sock.close()

    def finish(self) -> None:
        """Give the websocket to its manager."""
        websocket = self._websocket
        assert websocket is not None, "the 101 was written"
        websocket.buf = self._parser.rest
        if hand_over(self._add, websocket, address=self._client):
            self._websocket = None
        else:
            self.abort()

    # --- the steps, each of which returns what it needs, or None to go on with the next one ---------------------------

    def _await_hello(self, in_worker: bool) -> Want | None:
        """Wait until the client speaks: a worker is for those that do."""
        self._step = self._start_tls
        return Want.READ

    def _start_tls(self, in_worker: bool) -> Want | None:
        if not in_worker:
            return Want.WORKER
        if self._context is not None:
            context, self._context = self._context, None
            self._sock.getpeername()  # the ssl module loses the socket of a client that has gone
            self._sock = context.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
        self._sock.do_handshake()
        self._step = self._read_head
        return None

    def _read_head(self, in_worker: bool) -> Want | None:
        data = self._sock.recv(RECEIVE)
        if not data:
            self.abort()
            return Want.NOTHING
        try:
            self._head = self._parser.receive(data)
        except HandshakeError as error:
            self._write(*self._responder.refuse(error))
            return None
        if self._head is not None:
            self._step = self._answer
        return None

    def _answer(self, in_worker: bool) -> Want | None:
        if self._responder.may_wait and not in_worker:
            return Want.WORKER
        assert self._head is not None, "it was read"
        scheme = "https" if isinstance(self._sock, ssl.SSLSocket) else "http"
        self._write(*self._responder.answer(self._head, Caller(self._sock, self._address, scheme)))
        return None

    def _write(self, data: bytes, websocket: WebSocket | None = None, address: str | None = None) -> None:
        self._data = memoryview(data)
        self._websocket = websocket
        self._client = address
        self._step = self._send

    def _send(self, in_worker: bool) -> Want | None:
        try:
            self._data = self._data[self._sock.send(self._data) :]
        except BlockingIOError:
            return Want.WRITE
        if self._data:
            return None
        if self._websocket is not None:
            return Want.MANAGER
        self._step = self._say_goodbye
        return None

    def _say_goodbye(self, in_worker: bool) -> Want | None:
        """End this direction only: a client that has sent more than was read would lose its answer by a reset."""
        if isinstance(self._sock, ssl.SSLSocket):
            with contextlib.suppress(OSError):  # it is said, and what comes in place of an answer does not matter
                self._sock.unwrap()
        self._sock.shutdown(socket.SHUT_WR)  # from here on nothing is decrypted
        self._step = self._discard
        return None

    def _discard(self, in_worker: bool) -> Want | None:
        data = self._sock.recv(RECEIVE)
        self._discarded += len(data)
        if data and self._discarded <= MOST_DISCARDED:
            return None
        self.abort()
        return Want.NOTHING
