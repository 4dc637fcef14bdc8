"""System calls that don't block, made without giving the interpreter's lock away.

Python's own methods give it away for each call. Beside a thread that computes it comes back after a switch interval
only (5 ms), so that each read or write takes that long. A call that returns at once can keep it: ``ctypes.PyDLL`` does.
It takes somewhat longer than the socket's own method, and so is used only while that is worth it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import threading
import time
import types
from typing import Any, Final

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

__all__ = ["Contention", "KeptLock", "interruptions", "kept_lock", "threads_are_greenlets"]

FLAGS: Final = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)


class KeptLock:
    """recv() and send() that keep the interpreter's lock. Used by one thread at a time.

    :param size: how many bytes are received at most.
    :raises OSError: where the system's library is not to be had.
    """

    def __init__(self, size: int) -> None:
        library = ctypes.PyDLL(None, use_errno=True)
        self._recv, self._send = library.recv, library.send
        for function in (self._recv, self._send):
            function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
            function.restype = ctypes.c_ssize_t
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
    """A call that does not wait, and takes so many seconds all the same, has waited for the interpreter's lock, or for
    the processor.
    """

    PERIOD: Final = 0.25
    """For how many seconds the lock is then kept, before one call tries again what it takes to give it away."""

    __slots__ = ("_interruptions", "_until", "present")

    def __init__(self) -> None:
        self.present = False
        self._until = 0.0
        self._interruptions = 0

    def is_present(self, now: float) -> bool:
        """Tell whether the lock is to be kept, or it is to be tried again what it takes to give it away."""
        if self.present and now >= self._until:
            self.present = False
        return self.present

    def note(self, began: float) -> bool:
        """Take in that one call has returned that gave the lock away and did not wait; tell whether the lock is to be
        kept from now on.
        """
        now = time.monotonic()
        if now - began >= self.THRESHOLD and not self._was_interrupted():
            self.present = True
            self._until = now + self.PERIOD
        return self.present

    def _was_interrupted(self) -> bool:
        """Tell whether the system has taken the processor away since this was asked last: that took the time, then."""
        before, self._interruptions = self._interruptions, interruptions()
        return self._interruptions != before


def interruptions() -> int:
    """Return how often the system has taken the processor away from the calling thread; 0 where that is not known."""
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
