"""What the schedulers have in common whose callbacks run on threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from ws4py.manager.scheduler import Reactor, Worker
from ws4py.manager.watchdog import LOOKS, SlowCallbacks, Watchdog

__all__ = ["PollingThread", "ThreadedScheduler"]


class ThreadedScheduler:
    """Workers that are threads, and may wait. See :class:`~ws4py.manager.scheduler.Scheduler`.

    :param reactor: what polls.
    :param limit: how many callbacks may run at once.
    :param max_waiting: how many workers may wait in a call of ours at once.
    """

    def __init__(self, reactor: Reactor, limit: int = 0, max_waiting: int = 0) -> None:
        self.reliefs = 0
        self._reactor = reactor
        self._limit = limit
        self._ended = threading.Event()
        self._lock = threading.RLock()  # over what follows; a signal handler may come between
        self._max_waiting = max_waiting
        # Workers that wait in a call of ours. Its lock is theirs alone: they have a connection's, too, which a signal
        # handler may want on a thread that it has interrupted with the other one.
        self._waiting = 0
        self._waiting_lock = threading.Lock()
        self._joining: dict[threading.Thread, Any] = {}  # jobs whose callbacks wait in join()
        self._lent = 0  # how many of them have others run in their place

    def _current(self) -> Worker | None:
        """Return what is known of the calling thread; None if it is no worker."""
        raise NotImplementedError

    def join(self, timeout: float | None = None) -> bool:
        """See :meth:`Scheduler.join`.

        What a callback waits for here are the last callbacks of others; so they have its place meanwhile.
        """
        worker = self._current()
        if worker is None or worker.job is None:
            return self._ended.wait(timeout)
        job = worker.job
        with self._lock:
            self._joining[worker.thread] = job
            lends = self._lent < self._limit  # so that threads have an end
            self._lent += lends
            if lends:
                self._lend(worker)
        bulkhead = job.bulkhead
        if bulkhead is not None and (other := bulkhead.leave()) is not None:
            self._put(other)
        try:
            self.relieve()
            self._reactor.wake()
            return self._ended.wait(timeout)
        finally:
            if bulkhead is not None:
                bulkhead.come_back()
            with self._lock:
                del self._joining[worker.thread]
                self._lent -= lends
                if lends:
                    self._take_back(worker)

    def _lend(self, worker: Worker) -> None:
        """Let one callback more run, while that of a worker waits for others. The lock is held."""
        raise NotImplementedError

    def _take_back(self, worker: Worker) -> None:
        """The callback waits no more. The lock is held."""
        raise NotImplementedError

    def _put(self, job: Any) -> None:
        """Put a job on the run queue again."""
        raise NotImplementedError

    def joining(self) -> Sequence[Any]:
        """See :meth:`Scheduler.joining`."""
        return list(self._joining.values())

    def is_alive(self) -> bool:
        """See :meth:`Scheduler.is_alive`."""
        return not self._ended.is_set()

    def after_fork_in_child(self) -> None:
        """See :meth:`Scheduler.after_fork_in_child`."""
        self._lock, self._waiting_lock = threading.RLock(), threading.Lock()

    def in_own_thread(self) -> bool:
        """See :meth:`Scheduler.in_own_thread`: nobody is."""
        return False

    def owns_engine(self) -> bool:
        """See :meth:`Scheduler.owns_engine`."""
        return self.in_own_thread()

    def runs(self, job: Any) -> bool:
        """See :meth:`Scheduler.runs`."""
        worker = self._current()
        return worker is not None and worker.job is job

    def relieve(self) -> None:
        """See :meth:`Scheduler.relieve`: no callback keeps who polls from it, or all do."""

    def begin_wait(self) -> bool:
        """See :meth:`Scheduler.begin_wait`."""
        if self._current() is None:
            return True
        with self._waiting_lock:
            if self._waiting >= self._max_waiting:
                return False
            self._waiting += 1
        self.relieve()
        return True

    def end_wait(self) -> None:
        """See :meth:`Scheduler.end_wait`."""
        if self._current() is not None:
            with self._waiting_lock:
                self._waiting -= 1

    # --- what only greenlets need -------------------------------------------------------------------------------------

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


class PollingThread(ThreadedScheduler):
    """One thread polls, and no other.

    :param reactor: what polls.
    :param limit: how many callbacks may run at once.
    :param max_waiting: how many workers may wait in a call of ours at once.
    :param slow_callbacks: is told of turns that take long; None if nobody is.
    :param name: of the thread.
    """

    def __init__(
        self, reactor: Reactor, limit: int, max_waiting: int, slow_callbacks: SlowCallbacks | None, name: str
    ) -> None:
        super().__init__(reactor, limit, max_waiting)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._watchdog = None if slow_callbacks is None else Watchdog(self._look, self._running, slow_callbacks)

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
        """See :meth:`Scheduler.join`: on this thread there is nobody else to wait for, and it returns at once."""
        return False if self.in_own_thread() else super().join(timeout)

    def in_own_thread(self) -> bool:
        """See :meth:`Scheduler.in_own_thread`. It runs callbacks where there are no workers."""
        return threading.current_thread() is self._thread

    def _work(self) -> None:
        reactor = self._reactor
        try:
            while not reactor.finished:
                try:
                    ready = reactor.cycle(self._patience())
                except BaseException as error:  # noqa: BLE001 - whoever waits for this reactor must learn of its end
                    ready = reactor.fail(error)
                if ready:
                    self._run(ready)
            self._finish()
        finally:
            if self._watchdog is not None:
                self._watchdog.stop()
            try:
                reactor.release()
            finally:
                self._ended.set()

    def _patience(self) -> float | None:
        """Return how long the next cycle may wait, in seconds; None for ever."""
        return None

    def _run(self, ready: Sequence[Any]) -> None:
        """Have callbacks run for what is ready."""
        raise NotImplementedError

    def _finish(self) -> None:
        """The last cycle is done: have the last callbacks run."""

    def _watch(self) -> None:
        """See that the watchdog is awake: there are callbacks that may take long."""
        if self._watchdog is not None and self._watchdog.asleep:
            self._watchdog.wake()

    def _running(self) -> list[Worker]:
        """Return those whose turns are looked after."""
        raise NotImplementedError

    def _look(self) -> float | None:
        return LOOKS[1] if any(worker.job is not None for worker in self._running()) else None
