"""Who runs callbacks, and who polls: one thread polls, and a pool of workers runs the callbacks."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from ws4py.engine.counters import WorkerCounters
from ws4py.engine.histogram import KEPT_VALUES
from ws4py.manager.scheduler import Job, Reactor, Worker, await_last_calls, give_up
from ws4py.manager.threaded import PollingThread
from ws4py.manager.watchdog import SlowCallbacks

__all__ = ["PoolScheduler", "WorkerPool"]

logger = logging.getLogger("ws4py")

REST: Final = 0.0005
"""How long, in seconds, the thread that polls lets the workers have the interpreter to themselves after giving them
work.
"""

IDLE_TIMEOUT: Final = 30.0
"""After how many idle seconds a worker retires, unless it is the last one."""

FRESH: Final = 0.001
"""For so long, in seconds, a worker that took a job is trusted to come back for the next one."""

STUCK: Final = 0.05
"""After how long, in seconds, without a job being taken the workers count as blocked, however busy the processor is."""

HELP_INTERVALS: Final = (0.0005, 0.005)
"""How often, in seconds, the pool looks whether work that waits needs more workers: at first, and after a while."""


RETRY: Final = (0.05, 5.0)
"""In how many seconds it is tried again to start a thread that the system has refused: at first, and at most."""


class WorkerPool:
    """Threads, started when there is work for them and ended when there has been none for a while.

    A job wakes no further worker while one is at work that will soon be back for the next: short turns are not fought
    over by threads that then wait for each other. It is for the manager's thread to :meth:`help` when the work waits
    all the same.

    :param limit: how many threads there may be.
    :param name: what their names begin with.
    """

    def __init__(self, limit: int, name: str = "WebSocketWorker") -> None:
        self.limit = limit
        self.lent = 0  # how many threads there may be beyond that, while as many wait for others
        self._name = name
        self._queue: deque[Job] = deque()
        self._idle: list[threading.Lock] = []  # a held lock for each worker that waits on it; the last one goes first
        self._taker: threading.Lock | None = None  # the worker, by its lock, that took a job last and is at it still
        self._taken_at = 0.0
        self._stopping = False
        self._lock: Any = threading.RLock()  # over the number of threads and their counters
        self._threads: dict[threading.Thread, Worker] = {}
        self._retired = WorkerCounters()
        self._started = 0
        self._retry_at = 0.0  # when a thread may be started again, if the last one could not
        self._retry_in = 0.0
        self._help_interval = HELP_INTERVALS[0]
        self._checked_at = 0.0
        self._checked_cpu = 0.0
        self._resting = False
        self._rested = threading.Lock()  # released by the worker that ends the manager's rest
        self._rested.acquire()

    @property
    def size(self) -> int:
        """How many threads there are."""
        return len(self._threads)

    @property
    def idle(self) -> int:
        """How many of them wait for work."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a worker."""
        return len(self._queue)

    def counters(self) -> WorkerCounters:
        """Return the sums over all workers, retired ones included. Any thread may call."""
        total = WorkerCounters()
        with self._lock:
            for counters in (self._retired, *(worker.counters for worker in self._threads.values())):
                total.merge(counters)
        return total

    def submit(self, jobs: Sequence[Job]) -> None:
        """Put jobs on the run queue. Any thread may call; it does not wait."""
        now = time.monotonic()
        for job in jobs:
            job.queued_at = now
        self._queue.extend(jobs)
        if self._taker is None or now - self._taken_at > FRESH:
            self._wake()

    def _wake(self) -> None:
        """Send an idle worker, or a new one, to the queue."""
        try:
            self._idle.pop().release()
        except IndexError:
            self._start()

    def rest(self, timeout: float) -> None:
        """Wait until the run queue is empty, for ``timeout`` seconds at most. For the manager's thread.

        What the workers send meanwhile is then written as one batch, and nobody had to wake the manager for it.
        """
        self._resting = True
        if self._queue or self._taker is not None:
            self._rested.acquire(timeout=timeout)
        self._resting = False

    def _end_rest(self) -> None:
        self._resting = False
        try:
            self._rested.release()
        except RuntimeError:
            pass  # another worker has done so, and the manager has yet to notice

    def help(self) -> float | None:
        """Send more workers to the queue if jobs wait because handlers block. To be called again while jobs wait.

        Handlers that use the processor would only be slowed down by more threads; so if this process used nearly all
        the time of one processor since the last call, nothing is done; unless no job was taken for a while, for then it
        is not the handlers that use it.

        :returns: in how many seconds to call again; None if nothing waits, or no more workers are allowed.
        """
        try:
            oldest = self._queue[0].queued_at
        except IndexError:
            self._checked_at = 0.0
            return None
        busy, limit = self.size - len(self._idle), self.limit + self.lent
        if busy >= limit:
            return None
        now, cpu = time.monotonic(), time.process_time()
        if now < self._retry_at and not self._idle:
            return self._retry_at - now
        elapsed, used = now - self._checked_at, cpu - self._checked_cpu
        if not self._checked_at:
            self._checked_at, self._checked_cpu = now, cpu
            self._help_interval = HELP_INTERVALS[0]
        elif elapsed >= self._help_interval:
            self._checked_at, self._checked_cpu = now, cpu
            stuck = now - max(oldest, self._taken_at) >= STUCK
            if now - oldest >= HELP_INTERVALS[0] and (used < 0.8 * elapsed or stuck):
                for _ in range(min(len(self._queue), max(1, busy), limit - busy)):
                    self._wake()
            else:
                self._help_interval = min(2 * self._help_interval, HELP_INTERVALS[1])
        return self._help_interval

    def _start(self) -> None:
        with self._lock:
            if self._stopping or len(self._threads) >= self.limit + self.lent or time.monotonic() < self._retry_at:
                return
            self._started += 1
            thread = threading.Thread(target=self._run, name=f"{self._name}-{self._started}", daemon=True)
            self._threads[thread] = Worker(thread)
        try:
            thread.start()
        except Exception:  # the system has no more threads: the workers that there are must do
            with self._lock:
                del self._threads[thread]
                first = not self._retry_in
                self._retry_in = RETRY[0] if first else min(2 * self._retry_in, RETRY[1])
                self._retry_at = time.monotonic() + self._retry_in
            if first:
                logger.exception("A worker thread could not be started. It is tried again, and logged once")
        else:
            self._retry_in = 0.0

    def _run(self) -> None:
        thread = threading.current_thread()
        try:
            self._work(thread)
        finally:
            with self._lock:
                self._forget(thread)

    def _work(self, thread: threading.Thread) -> None:
        worker = self._threads[thread]
        counters, lock = worker.counters, worker.lock
        queue = self._queue
        clock = time.monotonic
        # As Histogram.observe() does, without the calls: nearly every message is a turn.
        waits, turns = counters.queue_wait.settle(), counters.turn_time.settle()
        job: Job | None
        now = clock()
        while True:
            try:
                job = queue.popleft()
            except IndexError:
                job = worker.job = None  # an idle worker keeps no connection alive
                if self._taker is lock:
                    self._taker = None
                if self._resting:
                    self._end_rest()
                if self._stopping or not self._park(lock):
                    break
                now = clock()
                continue
            bulkhead = job.bulkhead
            if bulkhead is not None and not bulkhead.enter(job):
                continue
            self._taken_at = worker.began = began = now  # the end of one turn is the beginning of the next
            self._taker = lock
            worker.reported = False
            worker.job = job
            counters.turns += 1
            waits.append(began - job.queued_at)
            try:
                more = job.run_turn(counters)
            except BaseException as error:  # noqa: BLE001 - one job must not end a thread that is there for all
                more = False
                give_up(job, error)
            now = clock()
            turns.append(now - began)
            if len(turns) >= KEPT_VALUES:
                waits, turns = counters.queue_wait.settle(), counters.turn_time.settle()
            if bulkhead is not None and (other := bulkhead.leave()) is not None:
                queue.append(other)
            if more:
                job.queued_at = now
                queue.append(job)

    def _park(self, lock: threading.Lock) -> bool:
        """Wait for work; return False if this worker is to end."""
        if self.size > self.limit + self.lent:
            with self._lock:
                self._forget(threading.current_thread())
            return False
        while True:
            self._idle.append(lock)
            # Whoever queues a job looks for an idle worker after that; so after becoming one, look at the queue.
            if self._queue or self._stopping:
                self._unpark(lock)
                return True
            if lock.acquire(timeout=-1 if self.size == 1 else IDLE_TIMEOUT):
                return True
            if not self._unpark(lock):
                return True
            with self._lock:
                if len(self._threads) > 1:
                    self._forget(threading.current_thread())
                    return False

    def _unpark(self, lock: threading.Lock) -> bool:
        """Be idle no longer; return False if somebody was just about to wake this worker."""
        try:
            self._idle.remove(lock)
        except ValueError:
            lock.acquire()
            return False
        return True

    def _forget(self, thread: threading.Thread) -> None:
        """Keep what a worker that ends has counted. The lock is held."""
        worker = self._threads.pop(thread, None)
        if worker is not None:
            self._retired.merge(worker.counters)

    def run_here(self) -> None:
        """Run what waits on the calling thread, if there is no worker: none can be started, or not any more."""
        if self.size or not self._queue:
            return
        counters = WorkerCounters()
        while self._queue:
            job = self._queue.popleft()
            counters.turns += 1
            began = time.monotonic()
            counters.queue_wait.observe(began - job.queued_at)
            try:
                if job.run_turn(counters):
                    self._queue.append(job)
            except BaseException as error:  # noqa: BLE001 - one job must not end a thread that is there for all
                give_up(job, error)
            counters.turn_time.observe(time.monotonic() - began)
        with self._lock:
            self._retired.merge(counters)

    def current(self) -> Worker | None:
        """Return the worker that the caller is, None if it is none."""
        return self._threads.get(threading.current_thread())

    def after_fork_in_child(self) -> None:
        """Have a free lock, since its owner may be a thread of the parent's, and no more work."""
        self._lock = threading.RLock()
        self._queue.clear()
        self._stopping = True

    def workers(self) -> list[Worker]:
        """Return what is known of the threads. Any thread may call."""
        with self._lock:
            return list(self._threads.values())

    def stop(self) -> None:
        """Let every worker end when the queue is empty. Any thread may call; it does not wait."""
        for _ in range(len(self._queue)):
            self._wake()  # the others may be blocked for good, and later none is started
        self._stopping = True
        while True:
            try:
                self._idle.pop().release()
            except IndexError:
                return


class PoolScheduler(PollingThread):
    """One thread polls, and a pool of workers runs callbacks. See :class:`~ws4py.manager.scheduler.Scheduler`.

    :param reactor: what polls.
    :param limit: how many callbacks may run at once.
    :param max_waiting: how many workers may wait in a call of ours at once.
    :param slow_callbacks: is told of turns that take long; None if nobody is.
    :param name: of the thread that polls.
    """

    def __init__(
        self,
        reactor: Reactor,
        limit: int,
        max_waiting: int | None = None,
        slow_callbacks: SlowCallbacks | None = None,
        name: str = "WebSocketManager",
    ) -> None:
        if max_waiting is None:
            max_waiting = max(1, limit // 2)
        super().__init__(reactor, limit, max_waiting, slow_callbacks, name)
        self._pool = WorkerPool(limit)

    def after_fork_in_child(self) -> None:
        """See :meth:`Scheduler.after_fork_in_child`."""
        super().after_fork_in_child()
        self._pool.after_fork_in_child()

    def _current(self) -> Worker | None:
        return self._pool.current()

    def _lend(self, worker: Worker) -> None:
        self._pool.lent = self._lent

    _take_back = _lend

    def _put(self, job: Any) -> None:
        self._pool.submit([job])

    def _running(self) -> list[Worker]:
        return self._pool.workers()

    def counters(self) -> WorkerCounters:
        """See :meth:`Scheduler.counters`."""
        return self._pool.counters()

    def state(self) -> tuple[int, int, int, int]:
        """See :meth:`Scheduler.state`."""
        pool = self._pool
        return pool.limit, pool.size, pool.idle, pool.waiting

    def _patience(self) -> float | None:
        return self._pool.help()

    def _run(self, ready: Sequence[Any]) -> None:
        self._pool.submit(ready)
        self._watch()
        self._pool.rest(REST)

    def _finish(self) -> None:
        pool = self._pool
        pool.stop()
        pool.run_here()
        await_last_calls(lambda: pool.size > len(self._joining), lambda: pool.counters().turns)
