"""What becomes of the managers of a process when it forks, and when it ends."""

from __future__ import annotations

import atexit
import logging
import os
import time
import weakref
from typing import Any, Final

__all__ = ["managers"]

logger = logging.getLogger("ws4py")

GRACE: Final = 5.0
"""How long, in seconds, the managers have at the end of the process beyond their ``drain_timeout``."""

managers: weakref.WeakSet[Any] = weakref.WeakSet()
"""The managers of this process."""


def _after_fork_in_child() -> None:
    for manager in list(managers):
        manager.after_fork_in_child()


def _stop_all() -> None:
    """Stop the managers that still run, in order, and wait for them.

    The interpreter calls this when the threads that it waits for have ended. Daemon threads go on until it returns, and
    no others can be started, from Python 3.12 on.
    """
    running = [manager for manager in list(managers) if manager.is_alive()]
    deadline = time.monotonic() + max((manager.limits.drain_timeout for manager in running), default=0.0) + GRACE
    for manager in running:
        try:
            manager.stop()
        except Exception:
            logger.exception("A manager could not be stopped at the end of the process")
    for manager in running:
        try:
            manager.join(max(0.0, deadline - time.monotonic()))
        except Exception:
            logger.exception("A manager could not be waited for at the end of the process")


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
