"""What becomes of the managers of a process when it forks, and when it ends.

A fork happens while the forking thread holds the locks of all managers. So none is another thread's, which the child
has not, and what they guard is whole there. They are taken in the order in which a manager takes several of them: its
own, the registry's, for each connection its codec's and then its own, and the engine's.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from typing import Any, Final

__all__ = ["GRACE", "managers", "shut_down"]

logger = logging.getLogger("ws4py")

GRACE: Final = 5.0
"""For how many seconds callbacks may go on after the drain, before nobody waits for them any more."""

LONGEST_WAIT: Final = 1.0
"""How long, in seconds, a fork waits for the locks at most. The child makes new ones in any case."""

managers: weakref.WeakSet[Any] = weakref.WeakSet()
"""The managers of this process."""


_forking = threading.RLock()  # held by the thread that forks
_held: list[Any] = []  # what it holds beside that


def _before_fork() -> None:
    _forking.acquire()
    deadline = time.monotonic() + LONGEST_WAIT
    for manager in sorted(managers, key=id):
        _held.extend(lock for lock in manager.locks() if _take(lock, deadline))


def _take(lock: Any, deadline: float) -> bool:
    return bool(lock.acquire(timeout=max(0.0, deadline - time.monotonic())))


def _after_fork() -> None:
    while _held:
        _held.pop().release()
    _forking.release()


def _after_fork_in_child() -> None:
    _after_fork()
    for manager in list(managers):
        manager.after_fork_in_child()


def shut_down(*running: Any) -> None:
    """Close every websocket of some managers with 1001, and wait for the managers' ends. Blocks, as long as the longest
    drain, and :data:`GRACE`.
    """
    deadline = time.monotonic() + max((manager.limits.drain_timeout for manager in running), default=0.0) + GRACE
    for manager in running:
        try:
            manager.stop()
        except Exception:
            logger.exception("A manager could not be stopped")
    for manager in running:
        try:
            manager.join(max(0.0, deadline - time.monotonic()))
        except Exception:
            logger.exception("A manager could not be waited for")


def _shut_down_all() -> None:
    """Shut down the managers that still run.

    The interpreter calls this when the threads that it waits for have ended. Daemon threads go on until it returns, and
    no others can be started, from Python 3.12 on.
    """
    shut_down(*(manager for manager in list(managers) if manager.is_alive()))


atexit.register(_shut_down_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
