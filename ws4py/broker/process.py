"""What becomes of the brokers of a process when it forks, and when it ends.

The managers are stopped before the brokers are closed: this module is imported before theirs, with the package, and
the interpreter begins with what was registered last.
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from typing import Any, Final

__all__ = ["brokers"]

logger = logging.getLogger("ws4py")

brokers: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""The brokers of this process."""


def _after_fork_in_child() -> None:
    for broker in list(brokers):
        broker.after_fork_in_child()


def _close_all() -> None:
    for broker in list(brokers):
        try:
            broker.close()
        except Exception:
            logger.exception("A broker could not be closed at the end of the process")


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
