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
        self._before = 0.0  # what the application wants
        self._set = 0.0  # what was set last

    def ask(self, who: object, interval: float) -> None:
        """Have the interval be at most so many seconds, until :meth:`withdraw`."""
        with self._lock:
            self._look()
            self._wanted[id(who)] = interval
            self._apply()

    def withdraw(self, who: object) -> None:
        """Ask for nothing any more. Who has not asked may call, too."""
        with self._lock:
            if id(who) in self._wanted:
                self._look()
                del self._wanted[id(who)]
                self._apply()

    def _look(self) -> None:
        """Find out what the application wants: what holds, if nobody asked before, or it was changed since."""
        now = sys.getswitchinterval()
        if not self._wanted or now != self._set:
            self._before = now

    def _apply(self) -> None:
        least = min([self._before, *self._wanted.values()])
        if least != sys.getswitchinterval():  # to set the same again could make it less: it is rounded down
            sys.setswitchinterval(least)
        self._set = sys.getswitchinterval()


switch_intervals: Final = SwitchIntervals()
