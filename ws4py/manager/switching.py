"""How long a thread that computes may keep the others waiting, while managers run.

The interval belongs to the whole interpreter (:func:`sys.setswitchinterval`), so the least that a running manager asks
for holds; it is put back when the last of them has stopped. It is never made longer than it was.
"""

from __future__ import annotations

import sys
import threading
from typing import Final

__all__ = ["SwitchIntervals", "switch_intervals"]


class SwitchIntervals:
    """What running managers ask for. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[int, float] = {}  # by the id of who asks
        self._before = 0.0  # what held when nobody asked
        self._set = 0.0  # what was set last

    def ask(self, who: object, interval: float) -> None:
        """Have the interval be at most so many seconds, until :meth:`withdraw`."""
        with self._lock:
            if not self._wanted:
                self._before = sys.getswitchinterval()
            self._wanted[id(who)] = interval
            self._apply()

    def withdraw(self, who: object) -> None:
        """Ask for nothing any more. Who has not asked may call, too."""
        with self._lock:
            if self._wanted.pop(id(who), None) is None:
                return
            if self._wanted or sys.getswitchinterval() == self._set:  # else the application has changed it since
                self._apply()

    def _apply(self) -> None:
        sys.setswitchinterval(min([self._before, *self._wanted.values()]))
        self._set = sys.getswitchinterval()  # which rounds


switch_intervals: Final = SwitchIntervals()
