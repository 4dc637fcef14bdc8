"""What greenlets of one thread or of several wait on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from gevent import monkey
from gevent.event import Event

__all__ = ["GreenletCondition", "native_lock"]

native_lock: Callable[[], Any] = monkey.get_original("_thread", "RLock")
"""Makes a reentrant lock of the system's threads, whatever is patched. Greenlets of one thread never meet at it, since
none gives way while it holds one.
"""


class GreenletCondition(threading.Condition):
    """A condition over a native lock that greenlets wait on, of one thread or several."""

    def __init__(self, lock: Any) -> None:
        super().__init__(lock)
        self._guard = lock
        self._changed = Event()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until ``predicate()`` is true, for ``timeout`` seconds at most; return what it said last.

        The lock is held by the caller, but not while it waits.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                break
            changed = self._changed
            self._guard.release()
            try:
                changed.wait(remaining)
            finally:
                self._guard.acquire()
        return result

    def notify_all(self) -> None:
        """Let all that wait look again. The lock is held."""
        changed, self._changed = self._changed, Event()
        changed.set()
