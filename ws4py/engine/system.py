"""System calls that don't block, made without giving the interpreter's lock away.

Python's own methods give it away for each call. Beside a thread that computes it comes back after a switch interval
only (5 ms), so that each read or write takes that long. A call that returns at once can keep it: ``ctypes.PyDLL`` does.
It takes somewhat longer than the socket's own method, and so is used only while that is worth it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
import threading
import time
import types
from typing import Any, Final

__all__ = ["Contention", "KeptLock", "kept_lock", "threads_are_greenlets"]

FLAGS: Final = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)


EVENT: Final = struct.Struct("=Ii4x" if platform.machine() == "x86_64" else "@I4xi4x")
"""What epoll says of one descriptor: events, and the number, which is half of a union; see epoll_ctl(2). On x86-64
alone there is no padding between.
"""

MOST_EVENTS: Final = 4096


class KeptLock:
    """recv(), send() and a look at an epoll that keep the interpreter's lock. Used by one thread at a time.

    :param size: how many bytes are received at most.
    :raises OSError: where the system's library is not to be had.
    :raises AttributeError: where it has not all of these calls.
    """

    def __init__(self, size: int) -> None:
        library = ctypes.PyDLL(None, use_errno=True)
        self._recv, self._send = library.recv, library.send
        for function in (self._recv, self._send):
            function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
            function.restype = ctypes.c_ssize_t
        self._epoll_wait = library.epoll_wait
        self._epoll_wait.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        self._events = ctypes.create_string_buffer(MOST_EVENTS * EVENT.size)
        self._events_view = memoryview(self._events)
        self._size = size
        self._buffer = ctypes.create_string_buffer(size)
        self._address = ctypes.addressof(self._buffer)
        self._view = memoryview(self._buffer)

    def receive(self, fd: int) -> bytes:
        """Return what has come, b"" at the end.

        :raises BlockingIOError: if nothing has come.
        :raises OSError: if the connection is broken.
        """
        count = self._recv(fd, self._address, self._size, FLAGS)
        if count < 0:
            raise _error()
        return bytes(self._view[:count])

    def send(self, fd: int, data: bytes | memoryview) -> int:
        """Return how many bytes were taken.

        :raises BlockingIOError: if none could be.
        :raises OSError: if the connection is broken.
        """
        data = bytes(data)
        count: int = self._send(fd, data, len(data), FLAGS)
        if count < 0:
            raise _error()
        return count

    def look(self, epoll: int) -> list[tuple[int, int]]:
        """Return what is ready now: descriptors, and epoll's bits for each.

        :param epoll: the epoll's descriptor.
        :raises OSError: if that is none.
        """
        count = self._epoll_wait(epoll, self._events, MOST_EVENTS, 0)
        if count < 0:
            raise _error()
        return [(fd, mask) for mask, fd in EVENT.iter_unpack(self._events_view[: count * EVENT.size])]


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number or errno.EIO, os.strerror(number))


def kept_lock(size: int) -> KeptLock | None:
    """Return the system calls; None where there are none like these, or no lock that is worth keeping."""
    enabled: Any = getattr(sys, "_is_gil_enabled", None)
    if sys.platform != "linux" or (enabled is not None and not enabled()) or threads_are_greenlets():
        return None
    try:
        return KeptLock(size)
    except (OSError, AttributeError):
        return None


def threads_are_greenlets() -> bool:
    """Tell whether the process is patched, by gevent or eventlet, so that what it calls threads is run in turns."""
    return not isinstance(threading.get_ident, types.BuiltinFunctionType)


class Contention:
    """Notices that another thread computes: the interpreter's lock, once given away, does not come back at once.

    Used by one thread at a time.

    :ivar present: whether the lock is to be kept.
    """

    THRESHOLD: Final = 0.001
    """Calls that do not wait, and take so many seconds all the same, have waited for the interpreter's lock, or for the
    processor; that is taken for the same, since it costs little.
    """

    PERIOD: Final = 0.25
    """For how many seconds the lock is then kept, before it is tried again what it takes to give it away."""

    __slots__ = ("_until", "present")

    def __init__(self) -> None:
        self.present = False
        self._until = 0.0

    def is_present(self, now: float) -> bool:
        """Tell whether the lock is to be kept, or it is to be tried again what it takes to give it away."""
        if self.present and now >= self._until:
            self.present = False
        return self.present

    def note(self, began: float) -> float:
        """Take in that calls have returned, few of them, that gave the lock away and did not wait.

        :param began: when the first of them began.
        :returns: the time now.
        """
        now = time.monotonic()
        if now - began >= self.THRESHOLD:
            self.present = True
            self._until = now + self.PERIOD
        return now
