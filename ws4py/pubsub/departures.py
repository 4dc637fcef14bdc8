"""What is to be done a while later, unless it is called off by then."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable

__all__ = ["Departures"]

logger = logging.getLogger("ws4py")


class Departures:
    """Calls functions after some seconds, on a thread that there is while any is due. Any thread may call.

    A process that ends does not wait for what is due, nor does a forked one do it.

    :param clock: monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._running = False
        self._process = os.getpid()

    def __len__(self) -> int:
        """Return how many are due."""
        return len(self._due)

    def after(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function in some seconds; 0 is soon. What it raises is logged.

        If the system has no thread now, it is called when a later call of this finds one.
        """
        if self._process != os.getpid():
            self.__init__(self._clock)  # type: ignore[misc]
        with self._lock:
            heapq.heappush(self._due, (self._clock() + seconds, next(self._numbers), function))
            if self._running:
                self._lock.notify()
                return
            self._running = True
        try:
            threading.Thread(target=self._run, name="ws4py-departures", daemon=True).start()
        except RuntimeError:
            logger.exception("There is no thread for what is to be done later")
            self._running = False

    def _run(self) -> None:
        while True:
            with self._lock:
                while self._due and (pause := self._due[0][0] - self._clock()) > 0.0:
                    self._lock.wait(pause)
                if not self._due:
                    self._running = False
                    return
                function = heapq.heappop(self._due)[2]
            try:
                function()
            except Exception:
                logger.exception("What was to be done later has failed")
