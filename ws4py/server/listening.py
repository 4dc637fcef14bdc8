"""A socket that listens: at an address, or at the path of a unix socket."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Any

from ws4py.server.listenqueue import longest_allowed

__all__ = ["Address", "Listener"]

Address = tuple[str, int] | str | os.PathLike[str] | socket.socket


class Listener:
    """One socket that listens, and its path, if it has one.

    :ivar sock: the socket, which does not block.
    :ivar address: where it listens: (host, port, ...) with the port that was chosen, or a path.
    :param address: (host, port), an empty host for all of IPv4 and port 0 for any that is free; the path of a unix
        socket, at which nobody listens any more, too; or a socket that is bound.
    :param backlog: how many connections may wait until they are accepted; what the system allows by default.
    :param reuse_port: let several processes listen on this port.
    :raises OSError: if the address can't be listened on.
    """

    def __init__(self, address: Address, backlog: int | None = None, reuse_port: bool = False) -> None:
        self._path: str | None = None
        if isinstance(address, socket.socket):
            self.sock = address
        elif isinstance(address, tuple):
            self.sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        else:
            self.sock = socket.socket(socket.AF_UNIX)
        try:
            if isinstance(address, tuple):
                if os.name == "posix":
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if reuse_port:
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                self.sock.bind(address)
            elif not isinstance(address, socket.socket):
                self._bind_path(os.fspath(address))
            if self.sock.family in (socket.AF_INET, socket.AF_INET6):
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted has it from here
            if not self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                self.sock.listen(longest_allowed() if backlog is None else backlog)
            self.sock.setblocking(False)
        except BaseException:
            if self.sock is not address:
                self.sock.close()
            raise
        self.address: Any = self.sock.getsockname()

    def _bind_path(self, path: str) -> None:
        """Bind a unix socket, to a path at which nobody listens any more, too."""
        try:
            self.sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_deserted(path):
                raise
            os.unlink(path)
            self.sock.bind(path)
        if not path.startswith("\0"):
            self._path = path
            self._file = os.stat(path)

    def remove_path(self) -> None:
        """Remove the path of a unix socket, unless it is another one's by now."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(self._path), self._file):
                    os.unlink(self._path)

    def close(self) -> None:
        """Listen no more."""
        self.sock.close()
        self.remove_path()


def _is_deserted(path: str) -> bool:
    """Tell whether a path is that of a unix socket nobody listens at."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
