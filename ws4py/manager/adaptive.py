"""Who runs callbacks, and who polls: workers do both, one of them polls at a time, and a watchdog relieves them.

This is the way of the Go runtime (``findRunnable``, ``netpoll``, ``sysmon``), and the Leader/Followers pattern. At low
load one thread does everything, and no message changes threads; handlers that wait are spread over the pool.

A worker takes the next job off the run queue. With nothing there it polls, if nobody does, else it parks. While it runs
callbacks nobody polls; so between two of them it looks at the sockets itself if that is due, and if one of them takes
longer than :data:`PATIENCE`, the watchdog sends another worker. Once a callback has waited (not computed) so long, and
for :data:`EAGER` seconds after, a worker first sees that another one is there to poll before it runs a callback.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any, Final

from ws4py.engine.counters import WorkerCounters
from ws4py.engine.histogram import KEPT_VALUES
from ws4py.manager.scheduler import Reactor, Worker, await_last_calls, give_up
from ws4py.manager.threaded import ThreadedScheduler
from ws4py.manager.watchdog import LOOKS, SlowCallbacks, Watchdog

__all__ = ["AdaptiveScheduler"]

logger = logging.getLogger("ws4py")

PATIENCE: Final = 0.001
"""For how long, in seconds, nobody may poll before a worker that runs callbacks does so between two of them."""

EAGER: Final = 0.1
"""For how long, in seconds, after a callback that has waited the next ones are expected to wait, too."""

IDLE_TIMEOUT: Final = 30.0
"""After how many idle seconds a worker retires, unless it and one more are all that are left."""

RETRY: Final = 1.0
"""After how many seconds a thread is asked for again when the system had none."""


class AdaptiveScheduler(ThreadedScheduler):
    """Workers that poll. See :class:`~ws4py.manager.scheduler.Scheduler`.

    :param reactor: what polls.
    :param limit: how many callbacks may run at once. Beyond them there is one thread more, so that somebody polls when
        all wait.
    :param max_waiting: how many workers may wait in a call of ours at once.
    :param slow_callbacks: is told of turns that take long; None if nobody is.
    :param name: of the thread that is there all the time.
    """

    def __init__(
        self,
        reactor: Reactor,
        limit: int,
        max_waiting: int | None = None,
        slow_callbacks: SlowCallbacks | None = None,
        name: str = "WebSocketManager",
    ) -> None:
        super().__init__(reactor, limit, max(1, limit // 2) if max_waiting is None else max_waiting)
        self._queue: deque[Any] = deque()
        self._slots = [None] * limit  # taken by who runs callbacks
        self._role = threading.Lock()  # held by who polls
        self._polled_at = 0.0
        self._parked: list[Worker] = []  # the last one goes first
        self._coming = False  # a worker was sent to poll
        self._eager_until = 0.0
        # Shared by all, under the lock.
        self._workers: dict[threading.Thread, Worker] = {}
        self._retired = WorkerCounters()
        self._started = 0
        self._retry_at = 0.0  # when a thread may be asked for again, if the system had none
        self._failed = False  # a cycle has raised
        self._watchdog = Watchdog(self._look, self._running, slow_callbacks, name, self._end)

    # --- for the manager ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """See :meth:`Scheduler.start`: the first worker, the reserve and the watchdog."""
        with self._lock:  # so no worker begins before all are there
            try:
                self._start_worker()
                self._start_worker()
                self._watchdog.start()
            except BaseException:
                self._reactor.finished = True
                self._workers.clear()
                self._ended.set()
                raise

    def rename(self, name: str) -> None:
        """See :meth:`Scheduler.rename`: it is the watchdog that has the name."""
        self._watchdog.name = name

    def after_fork_in_child(self) -> None:
        """See :meth:`Scheduler.after_fork_in_child`."""
        super().after_fork_in_child()
        self._queue.clear()

    def _current(self) -> Worker | None:
        return self._workers.get(threading.current_thread())

    def _lend(self, worker: Worker) -> None:
        if not worker.lent:  # else it has gone on without one since it was lent before
            worker.lent = True
            self._slots.append(None)

    def _take_back(self, worker: Worker) -> None:
        try:
            self._slots.pop()
        except IndexError:
            return  # it goes on without one, and gives none back
        worker.lent = False

    def _put(self, job: Any) -> None:
        self._queue.append(job)

    def relieve(self) -> None:
        """See that somebody polls: the caller, a callback, is about to wait. Any thread may call."""
        if not self._coming and not self._role.locked():
            self._send_worker(polls_first=True)

    def counters(self) -> WorkerCounters:
        """See :meth:`Scheduler.counters`."""
        total = WorkerCounters()
        with self._lock:
            for counters in (self._retired, *(worker.counters for worker in self._workers.values())):
                total.merge(counters)
        return total

    def state(self) -> tuple[int, int, int, int]:
        """See :meth:`Scheduler.state`."""
        size = min(len(self._workers), self._limit)  # without the reserve
        return self._limit, size, max(0, size - self._busy), len(self._queue)

    @property
    def _busy(self) -> int:
        """How many workers run callbacks."""
        return self._limit - len(self._slots)

    # --- a worker -----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        with self._lock:  # start() has returned, or given this thread up
            worker = self._workers.get(threading.current_thread())
            if worker is None:
                return
        queue, slots, role = self._queue, self._slots, self._role
        in_place = self._coming = False
        try:
            while not self._reactor.finished:
                if queue and slots and not worker.polls_first:
                    try:
                        slot = slots.pop()
                    except IndexError:
                        continue  # another worker was faster
                    try:
                        self._run(worker, in_place)
                    finally:
                        if not worker.lent:
                            slots.append(slot)
                        worker.lent = False
                elif role.acquire(False):
                    self._coming = worker.polls_first = False
                    # Whoever had the role before put on the run queue what was ready; so having it, look again.
                    self._poll(0.0 if queue and slots else None)
                    in_place = True
                else:
                    worker.polls_first = in_place = False
                    if not self._park(worker):
                        return
                    self._coming = False
        finally:
            if self._reactor.finished:
                self._run(worker, False)  # closed() may be owed to those who were dropped last
            with self._lock:
                self._forget(worker)

    def _poll(self, timeout: float | None) -> None:
        """Have one cycle, and put what became ready on the run queue. The role is held, and given up, unless this was
        the last cycle.
        """
        reactor = self._reactor
        try:
            ready = reactor.cycle(timeout)
        except BaseException as error:  # noqa: BLE001 - whoever waits for this reactor must learn of its end
            self._failed = True
            ready = reactor.fail(error)
        self._polled_at = now = time.monotonic()
        for job in ready:
            job.queued_at = now
        self._queue.extend(ready)  # while the role is held: the next one who has it must not wait then
        if reactor.finished:
            self._let_all_end()
            return
        self._role.release()
        if ready and self._watchdog.asleep:
            self._watchdog.wake()

    def _run(self, worker: Worker, in_place: bool) -> None:
        """Run callbacks until the queue is empty. A slot is held.

        :param in_place: this thread has polled just before.
        """
        queue, role, clock = self._queue, self._role, time.monotonic
        counters = worker.counters
        # As Histogram.observe() does, without the calls: nearly every message is a turn.
        waits, turns = counters.queue_wait.kept, counters.turn_time.kept
        began, first = clock(), counters.turns
        while True:
            eager = began < self._eager_until
            # With no job in hand, which would be left behind were this the last cycle.
            if not eager and began - self._polled_at > PATIENCE and queue and role.acquire(False):
                worker.job = None
                self._poll(0.0)
                began = clock()
            if not queue:
                break
            try:
                job = queue.popleft()
            except IndexError:
                break  # another worker was faster
            bulkhead = job.bulkhead
            if bulkhead is not None and not bulkhead.enter(job):
                continue
            if eager and not self._coming and not role.locked():
                self._send_worker()
            worker.began = began
            worker.job = job
            waits.append(began - job.queued_at)
            counters.turns += 1
            try:
                more = job.run_turn(counters)
            except BaseException as error:  # noqa: BLE001 - one job must not end a thread that is there for all
                more = False
                give_up(job, error)
            now = clock()
            turns.append(now - began)
            if len(turns) >= KEPT_VALUES:
                waits, turns = counters.queue_wait.settle(), counters.turn_time.settle()
            if now - began > PATIENCE:
                worker.reported = False
            if bulkhead is not None and (other := bulkhead.leave()) is not None:
                queue.append(other)
            if more:
                job.queued_at = now
                queue.append(job)
            began = now
        worker.job = None  # an idle worker keeps no connection alive
        if in_place:
            counters.in_place += counters.turns - first

    def _park(self, worker: Worker) -> bool:
        """Wait to be sent; return False if this worker is to end."""
        self._parked.append(worker)
        # Whoever gives the role up, or ends, looks among the parked after that; so after becoming one, look again.
        if self._reactor.finished or not self._role.locked():
            self._unpark(worker)
            return True
        spare = len(self._workers) > 2
        if worker.lock.acquire(timeout=IDLE_TIMEOUT if spare else -1) or not self._unpark(worker):
            return True
        with self._lock:
            if len(self._workers) > 2:
                self._forget(worker)
                return False
        return True

    def _unpark(self, worker: Worker) -> bool:
        """Be parked no longer; return False if somebody was just about to send this worker."""
        try:
            self._parked.remove(worker)
        except ValueError:
            worker.lock.acquire()
            return False
        return True

    def _send_worker(self, polls_first: bool = False) -> bool:
        """Send a parked worker, or a new one, to poll or to run callbacks: whatever is to be done. Return whether there
        was one.

        :param polls_first: it is to poll, whatever waits.
        """
        self._coming = True
        try:
            worker = self._parked.pop()
        except IndexError:
            if len(self._workers) > self._limit + self._lent or time.monotonic() < self._retry_at:
                self._coming = False
                return False
            try:
                self._start_worker(polls_first)
                self._retry_at = 0.0
            except Exception:  # the system has no more threads: those that there are must do
                if not self._retry_at:
                    logger.exception("A worker thread could not be started. It is tried again, and logged once")
                self._retry_at = time.monotonic() + RETRY
                self._coming = False
                return False
            return True
        worker.polls_first = polls_first
        worker.lock.release()
        return True

    def _start_worker(self, polls_first: bool = False) -> None:
        with self._lock:
            self._started += 1
            thread = threading.Thread(target=self._work, name=f"WebSocketWorker-{self._started}", daemon=True)
            worker = self._workers[thread] = Worker(thread)
            worker.polls_first = polls_first
            try:
                thread.start()
            except BaseException:
                del self._workers[thread]
                raise

    def _forget(self, worker: Worker) -> None:
        """Keep what a worker that ends has counted. The lock is held."""
        if self._workers.pop(worker.thread, None) is not None:
            self._retired.merge(worker.counters)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _let_all_end(self) -> None:
        """The reactor has finished: let the parked ones run what is left to be run, and end. By who polled last."""
        self._watchdog.stop()
        while True:
            try:
                self._parked.pop().lock.release()
            except IndexError:
                return

    def _end(self) -> None:
        """Give back what the reactor has. By the watchdog: every worker may be in a callback that waits for this."""
        try:
            if self._failed:  # so there are callbacks that nobody has waited for
                await_last_calls(lambda: len(self._workers) > len(self._joining), lambda: self.counters().turns)
            self._reactor.release()
        finally:
            self._ended.set()

    # --- the watchdog -------------------------------------------------------------------------------------------------

    def _look(self) -> float | None:
        """Send a worker if callbacks keep everybody from polling, and find out whether callbacks wait. By the watchdog.

        :returns: in how many seconds to look again; None if there is nothing to watch.
        """
        polled = self._role.locked()
        if not self._busy:
            return None if polled else LOOKS[0]
        now = time.monotonic()
        with self._lock:  # so no thread ends meanwhile: to ask for the processor time of one that has may crash
            for worker in self._workers.values():
                if worker.waits(now - PATIENCE):
                    self._eager_until = now + EAGER
        if not polled and not self._coming and now - self._polled_at > PATIENCE:
            self.reliefs += self._send_worker(polls_first=True)
            return LOOKS[0]
        return LOOKS[polled and now < self._eager_until]

    def _running(self) -> list[Worker]:
        with self._lock:
            return list(self._workers.values())
