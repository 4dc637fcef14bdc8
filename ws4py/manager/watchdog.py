"""The watchdog: it looks after callbacks that take long while there are any, and sleeps otherwise."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Final, NamedTuple

from ws4py.manager.scheduler import Worker

__all__ = ["LOOKS", "SlowCallbacks", "Watchdog"]

logger = logging.getLogger("ws4py")

LOOKS: Final = (0.002, 0.02)
"""How often, in seconds, it looks while callbacks run: if nobody polls, and if somebody does.

A look takes the interpreter's lock away from a callback that computes, so more frequent ones would cost more than they
bring.
"""

QUIET_LOOKS: Final = 5
"""After how many looks in a row that find nothing to watch it sleeps until it is woken."""


class SlowCallbacks(NamedTuple):
    """Who is told of turns that take long.

    :ivar seconds: from when on a turn does.
    :ivar report: is given the job, for how many seconds it has run, and where its thread is; once for each turn.
    """

    seconds: float
    report: Callable[[Any, float, FrameType | None], object]


class Watchdog(threading.Thread):
    """Looks while there is something to watch.

    :param look: is called to look; returns in how many seconds to look again, None if there is nothing to watch.
    :param workers: returns those whose turns are looked after.
    :param slow_callbacks: is told of turns that take long.
    :param name: of the thread.
    :param at_end: is called when it was stopped, on its thread.
    :ivar asleep: whether it has to be woken when callbacks are going to run.
    """

    def __init__(
        self,
        look: Callable[[], float | None],
        workers: Callable[[], Sequence[Worker]],
        slow_callbacks: SlowCallbacks | None,
        name: str = "WebSocketWatchdog",
        at_end: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.asleep = False
        self._look = look
        self._workers = workers
        self._slow_callbacks = slow_callbacks
        self._at_end = at_end
        self._stopped = False
        self._alarm = threading.Lock()
        self._alarm.acquire()

    def wake(self) -> None:
        """Have it look from now on. Any thread may call."""
        self.asleep = False
        try:
            self._alarm.release()
        except RuntimeError:
            pass  # it was woken by another thread, and has yet to notice

    def stop(self) -> None:
        """Have it end. Any thread may call."""
        self._stopped = True
        self.wake()

    def run(self) -> None:
        """Look until it is stopped."""
        quiet = 0
        pause = LOOKS[0]
        while not self._stopped:
            if quiet >= QUIET_LOOKS:
                self.asleep = True
                # Whoever puts jobs on the run queue looks whether it sleeps after that; so look once more.
                if self._look() is None and not self._stopped:
                    self._alarm.acquire()
                self.asleep = False
                quiet = 0
            else:
                self._alarm.acquire(timeout=pause)
            again = self._look()
            quiet = quiet + 1 if again is None else 0
            pause = again or LOOKS[0]
            if again is not None and self._slow_callbacks is not None:
                self._report(self._slow_callbacks)
        self._at_end()

    def _report(self, slow: SlowCallbacks) -> None:
        now = time.monotonic()
        for worker in self._workers():
            job = worker.job
            if job is not None and not worker.reported and now - worker.began > slow.seconds:
                worker.reported = True
                frame = sys._current_frames().get(worker.thread.ident or 0)
                try:
                    slow.report(job, now - worker.began, frame)
                except BaseException:
                    logger.exception("That a callback takes long could not be reported")
