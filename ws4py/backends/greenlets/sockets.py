"""Sockets of gevent: who has them, and how the engine reads and writes them."""

from __future__ import annotations

from typing import Any

from gevent import socket

from ws4py.engine.transport import PlainTransport, TLSTransport, Transport

__all__ = ["close_socket", "make_transport", "take_socket"]


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
    """The TLS object inside gevent's socket, with the methods that :class:`~ws4py.engine.transport.TLSTransport`
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
