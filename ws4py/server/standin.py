"""Taking a connection away from a server that does not know of it.

The server keeps what it has, the number of a descriptor or a TLS object, and finds another socket under that: the
stand-in. What is written to it is taken, and read by nobody; whoever reads from it meets the end of the stream. So the
server answers the request as any other, logs it, and closes its connection, while the real one is somebody else's.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import sys
from typing import Any, Final, NamedTuple

if sys.platform == "win32":
    SUPPORTED: Final = False
else:
    import fcntl
    import resource

    SUPPORTED: Final = True
    """Whether this system has what it takes: a descriptor can be made another's while its number is used."""

__all__ = ["SUPPORTED", "Taken", "check_reserve", "close_far", "raise_limit", "take"]

LOW: Final = 1024
"""Numbers of descriptors below this are left to the server, as far as there are others: some servers use select()."""

RESERVE: Final = 128
"""How many descriptors are left to the server and the application at least, so that accepting a connection or opening a
file never fails for want of one: gunicorn's worker, for one, would end.
"""


NO_MORE: Final = f"{RESERVE} descriptors are kept for the server, and no others are left"


class Taken(NamedTuple):
    """A connection that was taken away."""

    sock: Any
    """The connection: a socket, or what can do what an SSLSocket can."""
    far: socket.socket
    """The far end of the stand-in, for :func:`close_far`."""


def raise_limit() -> None:
    """Allow this process all the descriptors that it may have."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS calls it unlimited, and refuses that
            pass


def take(connection: Any) -> Taken:
    """Take a connection away from its server.

    :param connection: an SSLSocket, or what has the ``fileno()`` of a plain socket.
    :raises OSError: if no descriptors are left; nothing has changed then.
    """
    stand_in, far = socket.socketpair()
    try:
        far.shutdown(socket.SHUT_WR)
        if isinstance(connection, ssl.SSLSocket):
            _check(connection.fileno())
            return Taken(_take_tls(connection, stand_in), far)
        with stand_in:
            return Taken(_take_plain(connection.fileno(), stand_in), far)
    except BaseException:
        stand_in.close()
        far.close()
        raise


def close_far(far: socket.socket) -> None:
    """Close the far end of a stand-in, when the server has answered: a write to it fails from then on.

    What was written is read before, else whoever reads from the stand-in would meet a reset in the place of the end.
    """
    far.setblocking(False)
    try:
        while far.recv(65536):
            pass
    except OSError:
        pass  # that was all
    far.close()


def _take_plain(fd: int, stand_in: socket.socket) -> socket.socket:
    """Whoever has the number ``fd`` has the stand-in from then on."""
    assert sys.platform != "win32"
    stand_in.setblocking(os.get_blocking(fd))
    taken = socket.socket(fileno=_duplicate(fd))
    try:
        os.dup2(stand_in.fileno(), fd, inheritable=False)
    except BaseException:
        taken.close()
        raise
    return taken


def _duplicate(fd: int) -> int:
    """Return another number for a descriptor.

    :raises OSError: if none are left, but for the reserve.
    """
    assert sys.platform != "win32"
    number = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _numbers().start)
    try:
        _check(number)
    except OSError:
        os.close(number)
        raise
    return number


def _check(number: int) -> None:
    """See whether a connection that is taken away may have a number.

    :raises OSError: if not.
    """
    if number >= _numbers().stop:
        raise OSError(NO_MORE)


def check_reserve(number: int) -> None:
    """See whether the reserve is there, by a number that is in use: the system gives the lowest that is free.

    :raises OSError: if it is not.
    """
    if number >= _limit() - RESERVE:
        raise OSError(NO_MORE)


def _limit() -> int:
    """Return how many descriptors this process may have."""
    if sys.platform == "win32":
        return sys.maxsize
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _numbers() -> range:
    """Return the numbers that connections may have which are taken away."""
    limit = _limit()
    pollers = hasattr(select, "epoll") or hasattr(select, "kqueue")  # else the manager has to use select(), too
    if pollers and limit >= 2 * LOW:
        return range(LOW, limit - RESERVE)
    return range(min(limit, LOW) - RESERVE)


# --- TLS --------------------------------------------------------------------------------------------------------------


def _take_tls(sock: ssl.SSLSocket, stand_in: socket.socket) -> ssl.SSLSocket:
    """Whoever has the object ``sock`` has the stand-in from then on.

    OpenSSL has the descriptor by its number, so that has to stay what it is; what the object does is changed instead.
    """
    taken = _TakenTLS(sock)
    stand_in.settimeout(sock.gettimeout())
    for name in _THEIRS:
        setattr(sock, name, getattr(stand_in, name))
    return taken


_ATTRIBUTES: Final = ("context", "family", "proto", "session", "session_reused", "timeout", "type")
_THEIRS: Final = [
    name for name in dir(socket.socket) if not name.startswith("_") and name not in (*_ATTRIBUTES, "makefile")
]


class _TakenTLS(ssl.SSLSocket):
    """The connection of a TLS object whose own methods are another's: those of its class do it."""

    def __init__(self, held: ssl.SSLSocket) -> None:
        self._held = held

    def __getattr__(self, name: str) -> Any:
        """Return what the object knows of its connection."""
        return getattr(self.__dict__["_held"], name)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all; the class would call the object's method."""
        view = memoryview(data).cast("B")
        while view:
            view = view[ssl.SSLSocket.send(self._held, view, flags) :]


def _method(name: str) -> Any:
    """Return a method of :class:`_TakenTLS` that calls one of SSLSocket on the object."""
    of_class = getattr(ssl.SSLSocket, name)

    def call(self: _TakenTLS, *arguments: Any, **options: Any) -> Any:
        return of_class(self._held, *arguments, **options)

    return call


def _attribute(name: str) -> Any:
    """Return an attribute of :class:`_TakenTLS` that is the object's."""
    return property(lambda self: getattr(self._held, name))


for _name in dir(ssl.SSLSocket):
    if _name in _ATTRIBUTES:
        setattr(_TakenTLS, _name, _attribute(_name))
    elif not _name.startswith("_") and _name not in ("makefile", "sendall", "sendfile"):
        setattr(_TakenTLS, _name, _method(_name))
