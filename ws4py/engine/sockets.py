"""Sockets that belong to an engine."""

from __future__ import annotations

import _socket
import os
import socket
from collections.abc import Callable
from typing import Any

__all__ = ["ManagedSocket", "managed_part", "take_over"]


class ManagedSocket(socket.socket):
    """A plain socket that an engine reads and writes by its number.

    Its descriptor is given back by the engine alone, once: were an application to close it, the number could be another
    file's or connection's before the engine has noticed. So :meth:`close` tells the engine, which drops the connection,
    and gives the descriptor back at its end.
    """

    __slots__ = ("_on_close",)

    _on_close: Callable[[], object] | None

    def close(self) -> None:
        """Have the connection dropped; the descriptor is given back at its end."""
        on_close = getattr(self, "_on_close", None)
        if on_close is None:
            super().close()
        else:
            on_close()

    def detach(self) -> int:
        """Give the descriptor to the caller. The connection is dropped without being ended.

        :returns: a duplicate of the descriptor.
        """
        if getattr(self, "_on_close", None) is None:
            return super().detach()
        duplicate = os.dup(self.fileno())
        self.close()
        return duplicate

    def manage(self, on_close: Callable[[], object]) -> None:
        """Belong to an engine.

        :param on_close: is called when the application closes the socket.
        """
        self._on_close = on_close

    def release(self) -> None:
        """Belong to nobody: :meth:`close` closes."""
        self._on_close = None

    def give_back(self) -> None:
        """Close the descriptor. For the engine."""
        self._on_close = None
        super().close()


def managed_part(sock: Any) -> ManagedSocket | None:
    """Return what of a socket is a :class:`ManagedSocket`: itself, or what pyOpenSSL wraps, also as cheroot wraps that;
    None if nothing is.
    """
    inner = getattr(getattr(sock, "_ssl_conn", sock), "_socket", sock)
    return inner if isinstance(inner, ManagedSocket) else None


def take_over(sock: Any) -> Any:
    """Return a :class:`ManagedSocket` in the place of a plain socket, which is detached; another one as it is.

    One of pyOpenSSL has a ManagedSocket inside from then on: OpenSSL itself writes to the number, whoever has that.
    """
    connection = getattr(sock, "_ssl_conn", sock)
    if hasattr(connection, "get_cipher_list") and hasattr(connection, "_socket"):
        connection._socket = take_over(connection._socket)
        return sock
    if type(sock) is ManagedSocket:
        return sock
    if type(sock) is not ManagedSocket.__base__ or not isinstance(sock, _socket.socket):
        return sock  # of a kind of its own; greenlets' takes the place of the usual one where the process is patched
    if sock._io_refs:  # type: ignore[attr-defined]
        return sock  # a file of it is open, too
    timeout = sock.gettimeout()
    managed = ManagedSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
    managed.settimeout(timeout)
    return managed
