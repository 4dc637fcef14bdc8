"""The hub of gevent as what an engine waits with: it watches sockets, and can be woken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from ws4py.engine.pollers import READ

__all__ = ["HubPoller", "HubWakeup"]


class HubPoller:
    """Watches sockets with the hub's loop, and collects which are ready. See :class:`~ws4py.manager.Poller`."""

    def __init__(self, loop: Any, notify: Callable[[], None]) -> None:
        self._loop = loop
        self._notify = notify
        self._watchers: dict[int, Any] = {}
        self._events: list[tuple[int, int]] = []
        self._left = False
        self._on_event = self._ready  # one bound method for all

    def register(self, fd: int, interest: int = READ) -> None:
        """Watch ``fd``."""
        watcher = self._watchers[fd] = self._loop.io(fd, interest)  # READ and WRITE are libev's numbers, too
        watcher.start(self._on_event, fd, pass_events=True)

    def modify(self, fd: int, interest: int) -> None:
        """Change what ``fd`` is watched for."""
        self.unregister(fd)
        self.register(fd, interest)

    def unregister(self, fd: int) -> None:
        """Watch ``fd`` no longer."""
        watcher = self._watchers.pop(fd, None)
        if watcher is not None:
            watcher.stop()
            watcher.close()

    def leave(self) -> None:
        """Leave what is watched to the parent process: each is watched no longer when the hub meets it here. To stop
        them now, before gevent has given this process a loop of its own, could stop the parent's.
        """
        self._left = True

    def _ready(self, events: int, fd: int) -> None:
        if self._left:
            self.unregister(fd)
            return
        self._events.append((fd, events))
        if len(self._events) == 1:
            self._notify()

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Return what has become ready since the last call. It does not wait: the hub does."""
        events, self._events = self._events, []
        return events

    def release(self) -> None:
        """Watch nothing any more."""
        for fd in list(self._watchers):
            self.unregister(fd)


class HubWakeup:
    """Has the hub come back to its engine. See :class:`ws4py.engine.wakeup.Wakeup`."""

    def __init__(self, hub: Any, cycle: Callable[[], None]) -> None:
        self._hub = hub
        self._cycle = cycle

    def fileno(self) -> int:
        """There is no descriptor."""
        return -1

    def wake(self) -> None:
        """Have the hub run a cycle. Any thread may call."""
        loop = self._hub.loop
        if gevent.get_hub() is self._hub:
            loop.run_callback(self._cycle)
        else:
            loop.run_callback_threadsafe(self._cycle)

    def drain(self) -> None:
        """There is nothing to be drained."""

    def release(self) -> None:
        """There is nothing to be given back."""
