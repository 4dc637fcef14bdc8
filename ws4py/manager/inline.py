"""Who runs callbacks, and who polls: one thread does all, as in 0.6. A callback that blocks then blocks all."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from ws4py.engine.counters import WorkerCounters
from ws4py.manager.scheduler import Reactor, Worker, give_up
from ws4py.manager.watchdog import LOOKS, SlowCallbacks, Watchdog

__all__ = ["InlineScheduler"]


class InlineScheduler:
    """One thread. See :class:`~ws4py.manager.scheduler.Scheduler`.

    :param reactor: what polls.
    :param slow_callbacks: is told of turns that take long; None if nobody is.
    :param name: of the thread.
    """

    def __init__(self, reactor: Reactor, slow_callbacks: SlowCallbacks | None = None, name: str = "WebSocket") -> None:
        self.reliefs = 0
        self._reactor = reactor
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._worker = Worker(self._thread)
        self._joining = False
        self._watchdog = None if slow_callbacks is None else Watchdog(self._look, self._running, slow_callbacks)
        self._ended = threading.Event()

    def start(self) -> None:
        """See :meth:`Scheduler.start`."""
        try:
            if self._watchdog is not None:
                self._watchdog.start()
            self._thread.start()
        except BaseException:
            if self._watchdog is not None:
                self._watchdog.stop()
            self._reactor.finished = True
            self._ended.set()
            raise

    def rename(self, name: str) -> None:
        """See :meth:`Scheduler.rename`."""
        self._thread.name = name

    def join(self, timeout: float | None = None) -> bool:
        """See :meth:`Scheduler.join`: in a callback there is nobody else to wait for, and it returns at once."""
        return False if self.in_own_thread() else self._ended.wait(timeout)

    def is_alive(self) -> bool:
        """See :meth:`Scheduler.is_alive`."""
        return not self._ended.is_set()

    def after_fork_in_child(self) -> None:
        """See :meth:`Scheduler.after_fork_in_child`."""

    def in_own_thread(self) -> bool:
        """See :meth:`Scheduler.in_own_thread`."""
        return threading.current_thread() is self._thread

    def owns_engine(self) -> bool:
        """See :meth:`Scheduler.owns_engine`."""
        return self.in_own_thread()

    def runs(self, job: Any) -> bool:
        """See :meth:`Scheduler.runs`."""
        return self.in_own_thread() and self._worker.job is job

    def enter(self, job: Any) -> None:
        """See :meth:`Scheduler.enter`: nothing is needed for it."""

    def forget(self, job: Any) -> None:
        """See :meth:`Scheduler.forget`: nothing is kept for it."""

    def pass_on(self, job: Any, error: BaseException) -> None:
        """See :meth:`Scheduler.pass_on`: on a thread of ours there is nobody."""

    def is_kill(self, error: BaseException) -> bool:
        """See :meth:`Scheduler.is_kill`: threads can't be ended."""
        return False

    def throw(self, error: BaseException) -> None:
        """See :meth:`Scheduler.throw`: on a thread of ours there is nobody."""

    def relieve(self) -> None:
        """See :meth:`Scheduler.relieve`: no callback keeps who polls from it, or all do."""

    def begin_wait(self) -> bool:
        """See :meth:`Scheduler.begin_wait`: whoever waits, is no worker."""
        return True

    def end_wait(self) -> None:
        """See :meth:`Scheduler.end_wait`."""

    def joining(self) -> Sequence[Any]:
        """See :meth:`Scheduler.joining`."""
        return ()

    def counters(self) -> WorkerCounters:
        """See :meth:`Scheduler.counters`."""
        return self._worker.counters

    def state(self) -> tuple[int, int, int, int]:
        """See :meth:`Scheduler.state`: there are no workers."""
        return 0, 0, 0, 0

    def _work(self) -> None:
        reactor = self._reactor
        try:
            while not reactor.finished:
                try:
                    ready = reactor.cycle(None)
                except BaseException as error:  # noqa: BLE001 - whoever waits for this reactor must learn of its end
                    ready = reactor.fail(error)
                if ready:
                    self._run(ready)
        finally:
            if self._watchdog is not None:
                self._watchdog.stop()
            try:
                reactor.release()
            finally:
                self._ended.set()

    def _run(self, ready: Sequence[Any]) -> None:
        """Run callbacks until there are no more."""
        queue, worker, clock = deque(ready), self._worker, time.monotonic
        counters = worker.counters
        if self._watchdog is not None and self._watchdog.asleep:
            self._watchdog.wake()
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

    def _look(self) -> float | None:
        return None if self._worker.job is None else LOOKS[1]

    def _running(self) -> list[Worker]:
        return [self._worker]
