"""Transports: one non-blocking socket each, plain or TLS. Used by the manager's thread only.

A TLS object is no more thread-safe than its documentation says, so it has one owner; and its reads and writes may each
want the other direction first, so whatever becomes ready, both are tried.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

from ws4py.engine.sockets import ManagedSocket, managed_part

__all__ = ["PlainTransport", "TLSTransport", "Transport", "make_transport"]

TLS_CHUNK: Final = 16384
"""The most bytes in a TLS record."""

RECORDS: Final = 8
"""How many records of TLS are read at most at a time: a peer may put a byte into each."""


Write = Callable[[bytes | memoryview], int]


class Transport(Protocol):
    """A socket as the manager sees it. None of the methods blocks."""

    secure: bool
    blocked: bool
    """Whether the last ``send`` left something to the kernel's pleasure: go on when the socket can be written."""
    wants_write: bool
    """Whether the last ``receive`` can go on only when the socket can be written: TLS has something to answer."""

    @property
    def closed(self) -> bool:
        """Whether somebody has closed the socket."""

    def receive(self, size: int) -> bytes:
        """Return what has come, ``size`` bytes at most, b"" at the end.

        :raises BlockingIOError: if nothing has come.
        :raises OSError: if the connection is broken.
        """

    @property
    def by_number(self) -> bool:
        """Whether bytes may be read and written by the number of the descriptor alone: it is nobody else's until
        :meth:`close`, and the socket adds nothing to them.
        """

    def pending(self) -> bool:
        """Tell whether more was received than could be returned, so that a poller will not show it."""

    def send(self, data: bytes | memoryview, write: Write | None = None) -> int:
        """Take as many bytes as can be sent now, and return their number.

        :param write: for a plain socket, in the place of its own method.

        :raises OSError: if the connection is broken.
        """

    def send_eof(self) -> None:
        """Tell the peer that nothing more comes. Nothing is raised."""

    def shutdown(self) -> None:
        """End both directions; the descriptor stays. Nothing is raised."""

    def close(self) -> None:
        """Give the descriptor back. Nothing is raised."""


class PlainTransport:
    """TCP, or a unix socket."""

    __slots__ = ("_sock", "blocked")

    secure = False
    wants_write = False

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.blocked = False

    @property
    def sock(self) -> socket.socket:
        """The socket."""
        return self._sock

    @property
    def closed(self) -> bool:
        """See :attr:`Transport.closed`."""
        return self._sock.fileno() < 0

    @property
    def by_number(self) -> bool:
        """See :attr:`Transport.by_number`. Another kind of socket may be closed by who has it."""
        return isinstance(self._sock, ManagedSocket)

    def receive(self, size: int) -> bytes:
        """See :meth:`Transport.receive`."""
        return self._sock.recv(size)

    def pending(self) -> bool:
        """See :meth:`Transport.pending`; a poller shows all that is left in the kernel."""
        return False

    def send(self, data: bytes | memoryview, write: Write | None = None) -> int:
        """See :meth:`Transport.send`.

        :param write: in the place of the socket's own method.
        """
        try:
            count = (write or self._sock.send)(data)
        except (BlockingIOError, InterruptedError):
            count = 0
        self.blocked = count < len(data)
        return count

    def send_eof(self) -> None:
        """See :meth:`Transport.send_eof`."""
        _shutdown(self._sock, socket.SHUT_WR)

    def shutdown(self) -> None:
        """See :meth:`Transport.shutdown`."""
        _shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """See :meth:`Transport.close`."""
        try:
            if isinstance(self._sock, ManagedSocket):
                self._sock.give_back()
            else:
                self._sock.close()
        except OSError:
            pass  # the descriptor is gone all the same


class TLSTransport:
    """TLS by the ssl module, or by pyOpenSSL (also as cheroot wraps it).

    :param sock: connected, its handshake done.
    """

    __slots__ = ("_chunk", "_end", "_eof", "_errors", "_sock", "_wants", "_wants_write", "blocked", "wants_write")

    secure = True
    by_number = False

    def __init__(self, sock: Any) -> None:
        # cheroot wraps pyOpenSSL's object in one that takes a lock and waits: the one inside does neither.
        self._sock = getattr(sock, "_ssl_conn", sock)
        self.blocked = False
        self.wants_write = False
        self._chunk: bytes | None = None  # what OpenSSL wants to be given again, to the letter
        self._end: OSError | bytes | None = None  # how reading has ended, while the bytes before that are handed over
        self._wants, self._wants_write, self._eof, self._errors = _exceptions_of(sock)

    def receive(self, size: int) -> bytes:
        """See :meth:`Transport.receive`. Reads records until there are no more, there were some, or ``size`` is
        reached.
        """
        parts: list[bytes] = []
        room = size
        self.wants_write = False
        for _ in range(RECORDS):
            if room <= 0 or self._end is not None:
                break
            try:
                part = self._sock.recv(min(room, TLS_CHUNK))
            except self._wants as error:
                self.wants_write = isinstance(error, self._wants_write)
                break
            except self._eof:
                part = b""
            except self._errors as error:
                self._end = ConnectionResetError(str(error))
                break
            if not part:
                self._end = b""
                break
            parts.append(part)
            room -= len(part)
        if parts:
            return b"".join(parts)
        if self._end is None:
            raise BlockingIOError("No record has come")
        if isinstance(self._end, OSError):
            raise self._end
        return self._end

    @property
    def closed(self) -> bool:
        """See :attr:`Transport.closed`."""
        try:
            return bool(self._sock.fileno() < 0)
        except self._errors:
            return True

    def pending(self) -> bool:
        """See :meth:`Transport.pending`: what OpenSSL has decrypted, no poller shows, nor the end that it has met."""
        try:
            return self._end is not None or bool(self._sock.pending())
        except self._errors:
            return False

    def send(self, data: bytes | memoryview, write: Write | None = None) -> int:
        """See :meth:`Transport.send`. What OpenSSL could not write at once counts as taken, and is kept here to be
        retried.
        """
        taken = 0
        self.blocked = False
        while True:
            chunk = self._chunk
            if chunk is None:
                chunk = bytes(data[taken : taken + TLS_CHUNK])
                if not chunk:
                    return taken
                taken += len(chunk)
            try:
                count = self._sock.send(chunk)
            except self._wants:
                self._chunk = chunk
                self.blocked = True
                return taken
            except self._errors as error:
                raise ConnectionResetError(str(error)) from error
            self._chunk = chunk[count:] or None

    def send_eof(self) -> None:
        """See :meth:`Transport.send_eof`: close_notify, then the end of the TCP direction."""
        try:
            if isinstance(self._sock, ssl.SSLSocket):
                self._sock.unwrap()
            else:
                self._sock.shutdown()
        except self._errors:
            pass  # it goes on to wait for the peer's close_notify, which nobody waits for
        self._shutdown(socket.SHUT_WR)

    def shutdown(self) -> None:
        """See :meth:`Transport.shutdown`."""
        self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        # The descriptor itself is shut down: the wrappers' own methods mean TLS by that word, or drop the TLS object.
        try:
            duplicate = socket.socket(fileno=os.dup(self._sock.fileno()))
        except OSError:
            return
        _shutdown(duplicate, how)
        duplicate.close()

    def close(self) -> None:
        """See :meth:`Transport.close`."""
        managed = managed_part(self._sock)
        try:
            if managed is None:
                self._sock.close()
            else:
                managed.give_back()
        except self._errors:
            pass  # the descriptor is gone all the same


def _shutdown(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        pass  # not connected any more


_Classes = tuple[type[Exception], ...]


def _exceptions_of(sock: Any) -> tuple[_Classes, _Classes, _Classes, _Classes]:
    """Return what a TLS socket raises: if it has to wait, if that is until it can be written, at the end of the stream,
    and if it or its TLS is broken.
    """
    waits = (BlockingIOError, InterruptedError)
    broken = (OSError, ValueError, TypeError)
    if isinstance(sock, ssl.SSLSocket) or hasattr(sock, "_sslobj"):  # the latter is gevent's
        write = ssl.SSLWantWriteError
        return (ssl.SSLWantReadError, write, *waits), (write,), (ssl.SSLEOFError,), broken
    from OpenSSL import SSL

    return (
        (SSL.WantReadError, SSL.WantWriteError, *waits),
        (SSL.WantWriteError,),
        (SSL.ZeroReturnError,),
        (SSL.Error, *broken),
    )


def is_secure(sock: Any) -> bool:
    """Tell whether a socket speaks TLS: one of the ssl module, or of pyOpenSSL."""
    return isinstance(sock, ssl.SSLSocket) or hasattr(sock, "get_cipher_list") or hasattr(sock, "_ssl_conn")


def make_transport(sock: Any) -> Transport:
    """Return the transport of a connected socket, which is made non-blocking."""
    sock.setblocking(False)
    return TLSTransport(sock) if is_secure(sock) else PlainTransport(sock)
