"""Who runs callbacks, and who polls: one thread does all, as in 0.6. A callback that blocks then blocks all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from ws4py.engine.counters import WorkerCounters
from ws4py.manager.scheduler import Reactor, Worker, give_up
from ws4py.manager.threaded import PollingThread
from ws4py.manager.watchdog import SlowCallbacks

__all__ = ["InlineScheduler"]


class InlineScheduler(PollingThread):
    """One thread. See :class:`~ws4py.manager.scheduler.Scheduler`.

    :param reactor: what polls.
    :param slow_callbacks: is told of turns that take long; None if nobody is.
    :param name: of the thread.
    """

    def __init__(self, reactor: Reactor, slow_callbacks: SlowCallbacks | None = None, name: str = "WebSocket") -> None:
        super().__init__(reactor, 0, 0, slow_callbacks, name)
        self._worker = Worker(self._thread)

    def _current(self) -> Worker | None:
        return self._worker if self.in_own_thread() else None

    def _running(self) -> list[Worker]:
        return [self._worker]

    def counters(self) -> WorkerCounters:
        """See :meth:`Scheduler.counters`."""
        return self._worker.counters

    def state(self) -> tuple[int, int, int, int]:
        """See :meth:`Scheduler.state`: there are no workers."""
        return 0, 0, 0, 0

    def _run(self, ready: Sequence[Any]) -> None:
        """Run callbacks until there are no more."""
        queue, worker, clock = deque(ready), self._worker, time.monotonic
        counters = worker.counters
        self._watch()
        while queue:
            job = queue.popleft()
            worker.began = began = clock()
            worker.reported = False
            worker.job = job
            counters.turns += 1
            counters.in_place += 1
            try:
                if job.run_turn(counters):
                    queue.append(job)
            except BaseException as error:  # noqa: BLE001 - one job must not end a thread that is there for all
                give_up(job, error)
            counters.turn_time.observe(clock() - began)
        worker.job = None
