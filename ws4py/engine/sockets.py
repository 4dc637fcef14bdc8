"""Sockets that belong to an engine."""

from __future__ import annotations

import _socket
import os
import socket
from typing import Any, Protocol

__all__ = ["Closable", "ManagedSocket", "can_be_managed", "managed_part", "take_over"]


class Closable(Protocol):
    """Whose socket it is."""

    def close_by_application(self) -> None:
        """The application has closed the socket itself."""


class ManagedSocket(socket.socket):
    """A plain socket that an engine reads and writes by its number.

    Its descriptor is given back by the engine alone, once: were an application to close it, the number could be another
    file's or connection's before the engine has noticed. So :meth:`close` tells the engine, which drops the connection,
    and gives the descriptor back at its end.
    """

    __slots__ = ("_owner",)

    _owner: Closable | None

    def close(self) -> None:
        """Have the connection dropped; the descriptor is given back at its end."""
        owner = getattr(self, "_owner", None)
        if owner is None:
            super().close()
        else:
            owner.close_by_application()

    def detach(self) -> int:
        """Give the descriptor to the caller. The connection is dropped without being ended.

        :returns: a duplicate of the descriptor.
        """
        if getattr(self, "_owner", None) is None:
            return super().detach()
        duplicate = os.dup(self.fileno())
        self.close()
        return duplicate

    def manage(self, owner: Closable) -> None:
        """Belong to an engine.

        :param owner: is told when the application closes the socket.
        """
        self._owner = owner

    def release(self) -> None:
        """Belong to nobody: :meth:`close` closes."""
        self._owner = None

    def give_back(self) -> None:
        """Close the descriptor. For the engine."""
        self._owner = None
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
    if type(sock) is ManagedSocket or not can_be_managed(sock):
        return sock
    timeout = sock.gettimeout()
    managed = ManagedSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
    managed.settimeout(timeout)
    return managed


def can_be_managed(sock: Any) -> bool:
    """Tell whether :func:`take_over` returns a ManagedSocket for this plain socket."""
    if type(sock) is ManagedSocket:
        return True
    if type(sock) is not ManagedSocket.__base__ or not isinstance(sock, _socket.socket):
        return False  # of a kind of its own; greenlets' takes the place of the usual one where the process is patched
    return not sock._io_refs  # type: ignore[attr-defined]  # else a file of it is open, too
