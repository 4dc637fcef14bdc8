"""Pollers: which sockets are ready. Used by the manager's thread only."""

from __future__ import annotations

import math
import select
import sys
from types import BuiltinFunctionType
from typing import Any, Final, Protocol

from ws4py.engine.system import KeptLock

__all__ = ["LONGEST_WAIT", "EPollPoller", "KQueuePoller", "PollPoller", "Poller", "SelectPoller", "default_poller"]

READ: Final = 1
WRITE: Final = 2

LONGEST_WAIT: Final = 1_000_000.0
"""The longest wait that a poller asks the system for, in seconds; epoll takes milliseconds in 32 bits. It then returns
with nothing, and is asked again.
"""

_kqueue_module: Any = select  # its names are not those of every system

Event = tuple[int, int]
"""A file descriptor, and ``READ``, ``WRITE`` or both. An error or a hang-up is shown as both."""


class Poller(Protocol):
    """What :class:`~ws4py.manager.WebSocketManager` asks of a poller; any object with these methods will do."""

    def register(self, fd: int, interest: int = READ) -> None:
        """Watch ``fd`` for ``READ``, ``WRITE`` or both."""

    def modify(self, fd: int, interest: int) -> None:
        """Watch a registered ``fd`` for something else, at least one of the two."""

    def unregister(self, fd: int) -> None:
        """Watch ``fd`` no longer; nothing happens if it is not watched."""

    def poll(self, timeout: float | None = None) -> list[Event]:
        """Wait until a socket is ready, for ``timeout`` seconds at most (None: for ever), and return those that are."""

    def release(self) -> None:
        """Give back what the poller holds."""


def _checked(fd: int) -> int:
    if not isinstance(fd, int) or fd < 0:
        raise ValueError(f"{fd!r} is not an open file descriptor")
    return fd


class EPollPoller:
    """Linux's epoll, level-triggered.

    :param timeout: the longest wait of a ``poll()`` without one, in seconds; None is for ever.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self.timeout = timeout
        self._epoll = select.epoll()

    def register(self, fd: int, interest: int = READ) -> None:
        """Watch ``fd``."""
        self._epoll.register(_checked(fd), _EPOLL_MASKS[interest])

    def modify(self, fd: int, interest: int) -> None:
        """Change what ``fd`` is watched for."""
        self._epoll.modify(fd, _EPOLL_MASKS[interest])

    def unregister(self, fd: int) -> None:
        """Watch ``fd`` no longer."""
        try:
            self._epoll.unregister(fd)
        except (OSError, ValueError):
            pass  # closed or never registered: either way it is not watched

    def poll(self, timeout: float | None = None) -> list[Event]:
        """Return what is ready, after at most ``timeout`` seconds."""
        if timeout is None:
            timeout = self.timeout
        timeout = -1 if timeout is None else min(timeout, LONGEST_WAIT)
        return [(fd, _EPOLL_EVENTS.get(mask) or _epoll_event(mask)) for fd, mask in self._epoll.poll(timeout, 4096)]

    def look(self, kept: KeptLock) -> list[Event]:
        """Return what is ready now, and keep the interpreter's lock."""
        ready = kept.look(self._epoll.fileno())
        return [(fd, _EPOLL_EVENTS.get(mask) or _epoll_event(mask)) for fd, mask in ready]

    def release(self) -> None:
        """Close the epoll's own descriptor."""
        self._epoll.close()


if sys.platform == "linux":
    _EPOLL_MASKS: Final = {
        READ: select.EPOLLIN,
        WRITE: select.EPOLLOUT,
        READ | WRITE: select.EPOLLIN | select.EPOLLOUT,
    }
    _EPOLL_EVENTS: Final = {mask: interest for interest, mask in _EPOLL_MASKS.items()}
else:  # the class can be imported, and says at its call that there is no epoll
    _EPOLL_MASKS = {}
    _EPOLL_EVENTS = {}


def _epoll_event(mask: int) -> int:
    """Read an error or a hang-up as both, so that whoever tries either direction meets it."""
    if mask & ~(select.EPOLLIN | select.EPOLLOUT):
        return READ | WRITE
    return _EPOLL_EVENTS[mask]


class KQueuePoller:
    """The kqueue of the BSDs and of macOS.

    :param timeout: the longest wait of a ``poll()`` without one, in seconds; None is for ever.
    :raises RuntimeError: where there is no kqueue.
    """

    def __init__(self, timeout: float | None = None) -> None:
        if not hasattr(select, "kqueue"):
            raise RuntimeError("This system has no kqueue")
        self.timeout = timeout
        self._kqueue = _kqueue_module.kqueue()
        self._interests: dict[int, int] = {}

    def _change(self, fd: int, interest: int) -> None:
        current = self._interests.get(fd, 0)
        changes = [
            _kqueue_module.kevent(
                fd,
                _kqueue_module.KQ_FILTER_READ if bit == READ else _kqueue_module.KQ_FILTER_WRITE,
                _kqueue_module.KQ_EV_ADD if interest & bit else _kqueue_module.KQ_EV_DELETE,
            )
            for bit in (READ, WRITE)
            if (current ^ interest) & bit
        ]
        if changes:
            self._kqueue.control(changes, 0)
        if interest:
            self._interests[fd] = interest
        else:
            self._interests.pop(fd, None)

    def register(self, fd: int, interest: int = READ) -> None:
        """Watch ``fd``."""
        self._change(_checked(fd), interest)

    def modify(self, fd: int, interest: int) -> None:
        """Change what ``fd`` is watched for."""
        self._change(fd, interest)

    def unregister(self, fd: int) -> None:
        """Watch ``fd`` no longer."""
        try:
            self._change(fd, 0)
        except OSError:
            self._interests.pop(fd, None)  # closed already, which took it out of the kqueue

    def poll(self, timeout: float | None = None) -> list[Event]:
        """Return what is ready, after at most ``timeout`` seconds."""
        ready: dict[int, int] = {}
        limit = max(1, 2 * len(self._interests))
        for event in self._kqueue.control(None, limit, _bounded(self.timeout if timeout is None else timeout)):
            bit = READ if event.filter == _kqueue_module.KQ_FILTER_READ else WRITE
            ready[event.ident] = ready.get(event.ident, 0) | bit
        return list(ready.items())

    def release(self) -> None:
        """Close the kqueue's own descriptor."""
        self._kqueue.close()
        self._interests.clear()


class PollPoller:
    """poll(), level-triggered: what a process has that gevent has patched, where it gives way to the other greenlets.

    :param timeout: the longest wait of a ``poll()`` without one, in seconds; None is for ever.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self.timeout = timeout
        self._poll = select.poll()

    def register(self, fd: int, interest: int = READ) -> None:
        """Watch ``fd``."""
        self._poll.register(_checked(fd), _POLL_MASKS[interest])

    def modify(self, fd: int, interest: int) -> None:
        """Change what ``fd`` is watched for."""
        self._poll.modify(fd, _POLL_MASKS[interest])

    def unregister(self, fd: int) -> None:
        """Watch ``fd`` no longer."""
        try:
            self._poll.unregister(fd)
        except (KeyError, ValueError):
            pass  # never registered, or no descriptor: either way it is not watched

    def poll(self, timeout: float | None = None) -> list[Event]:
        """Return what is ready, after at most ``timeout`` seconds."""
        timeout = _bounded(self.timeout if timeout is None else timeout)
        ready = self._poll.poll(None if timeout is None else math.ceil(timeout * 1000))
        return [(fd, _poll_event(mask)) for fd, mask in ready]

    def release(self) -> None:
        """Forget all descriptors."""
        self._poll = select.poll()


if sys.platform != "win32":
    _POLL_MASKS: Final = {READ: select.POLLIN, WRITE: select.POLLOUT, READ | WRITE: select.POLLIN | select.POLLOUT}
else:
    _POLL_MASKS = {}


def _poll_event(mask: int) -> int:
    """Read an error or a hang-up as both; see :func:`_epoll_event`."""
    if mask & ~(select.POLLIN | select.POLLOUT):
        return READ | WRITE
    return READ * bool(mask & select.POLLIN) | WRITE * bool(mask & select.POLLOUT)


class SelectPoller:
    """select(), which is everywhere, for descriptors below 1024; a library that has replaced it may have no such limit.

    :param timeout: the longest wait of a ``poll()`` without one, in seconds; None is for ever.
    """

    MAX_FD = 1024

    def __init__(self, timeout: float | None = None) -> None:
        self.timeout = timeout
        self._interests: dict[int, int] = {}

    def register(self, fd: int, interest: int = READ) -> None:
        """Watch ``fd``.

        :raises ValueError: if select() can't watch so high a number.
        """
        limited = sys.platform != "win32" and isinstance(select.select, BuiltinFunctionType)
        if _checked(fd) >= self.MAX_FD and limited:
            raise ValueError(f"select() watches descriptors below {self.MAX_FD}, not {fd}: use another poller")
        self._interests[fd] = interest

    def modify(self, fd: int, interest: int) -> None:
        """Change what ``fd`` is watched for."""
        self._interests[fd] = interest

    def unregister(self, fd: int) -> None:
        """Watch ``fd`` no longer."""
        self._interests.pop(fd, None)

    def poll(self, timeout: float | None = None) -> list[Event]:
        """Return what is ready, after at most ``timeout`` seconds."""
        readers = [fd for fd, interest in self._interests.items() if interest & READ]
        writers = [fd for fd, interest in self._interests.items() if interest & WRITE]
        timeout = _bounded(self.timeout if timeout is None else timeout)
        try:
            readable, writable, _ = select.select(readers, writers, [], timeout)
        except OSError:
            closed = [fd for fd in self._interests if not _is_open(fd)]
            if not closed:
                raise
            return [(fd, READ | WRITE) for fd in closed]  # whoever tries to use one meets the error
        ready = dict.fromkeys(readable, READ)
        for fd in writable:
            ready[fd] = ready.get(fd, 0) | WRITE
        return list(ready.items())

    def release(self) -> None:
        """Forget all descriptors."""
        self._interests.clear()


def _bounded(timeout: float | None) -> float | None:
    return None if timeout is None else min(timeout, LONGEST_WAIT)


def _is_open(fd: int) -> bool:
    try:
        select.select([fd], [], [], 0)
    except OSError:
        return False
    return True


def default_poller() -> Poller:
    """Return the best poller of this system."""
    if hasattr(select, "epoll"):
        return EPollPoller()
    if hasattr(select, "kqueue"):
        return KQueuePoller()
    if hasattr(select, "poll"):
        return PollPoller()
    return SelectPoller()
