"""A reactor without an engine, and jobs without a connection."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tests.helpers import PATIENCE, until, wait_for
from ws4py.engine.counters import WorkerCounters

LONG = 10 * PATIENCE
"""Seconds until what waits here comes back by itself: so long that every test has failed by then."""

_numbers = itertools.count()


class Job:
    """A job: something to do, and then perhaps more.

    :param function: what its turns do.
    :param more: how many turns follow the first one.
    """

    def __init__(self, function: Callable[[], object] = lambda: None, more: int = 0) -> None:
        self.queued_at = 0.0
        self.bulkhead: Any = None
        self.number = next(_numbers)
        self.function = function
        self.more = more
        self.turns = 0
        self.threads: list[threading.Thread] = []
        self.error: BaseException | None = None
        self.overlapped = False
        self.done = threading.Event()
        self._inside = threading.Lock()

    def run_turn(self, counters: WorkerCounters) -> bool:
        if not self._inside.acquire(blocking=False):
            self.overlapped = True
            return False
        try:
            self.threads.append(threading.current_thread())
            self.function()
            self.turns += 1
            if self.turns <= self.more:
                return True
        finally:
            self._inside.release()
        self.done.set()
        return False

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.done.set()

    def wait(self) -> None:
        wait_for(self.done)
        assert not self.overlapped


class Blocked(Job):
    """A job whose turn lasts until it is let go."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.entered = threading.Event()
        self.gate = threading.Event()

    def _wait(self) -> None:
        self.entered.set()
        self.gate.wait(LONG)

    def wait_entered(self) -> None:
        wait_for(self.entered)


class Reactor:
    """What polls, by hand: :meth:`offer` makes jobs ready.

    :ivar cycles: how many cycles have begun.
    :ivar polling: whether one waits.
    :ivar faults: what was wrong with how it was called.
    :ivar fatal: what the next cycle raises.
    :ivar on_fail: makes the jobs that become ready when a cycle has raised.
    """

    def __init__(self) -> None:
        self.finished = False
        self.cycles = 0
        self.timeouts: list[float | None] = []
        self.polling = False
        self.faults: list[str] = []
        self.fatal: BaseException | None = None
        self.failed_with: BaseException | None = None
        self.on_fail: Callable[[], Sequence[Any]] = list
        self.on_cycle: Callable[[], object] = lambda: None
        self.on_release: Callable[[], object] = lambda: None
        self.released = threading.Event()
        self._ready: deque[Sequence[Any]] = deque()
        self._stopping = False
        self._woken = False
        self._changed = threading.Condition()
        self._role = threading.Lock()

    # what a scheduler calls

    def cycle(self, timeout: float | None) -> Sequence[Any]:
        if not self._role.acquire(blocking=False):
            self.faults.append("two cycles at once")
            return ()
        try:
            if self.finished:
                self.faults.append("a cycle after the last")
            self.on_cycle()
            with self._changed:
                self.cycles += 1
                self.timeouts.append(timeout)
                self.polling = True
                self._changed.wait_for(self._has_something, LONG if timeout is None else timeout)
                self.polling = self._woken = False
                if self.fatal is not None:
                    raise self.fatal
                if self._ready:
                    return self._ready.popleft()
                self.finished = self._stopping
                return ()
        finally:
            self._role.release()

    def _has_something(self) -> bool:
        return bool(self._ready or self._woken or self._stopping or self.fatal)

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> Sequence[Any]:
        self.failed_with = error
        ready = self.on_fail()
        self.finished = True
        return ready

    def release(self) -> None:
        if self.released.is_set():
            self.faults.append("released twice")
        self.on_release()
        self.released.set()

    # what a test calls

    def offer(self, *jobs: Any) -> None:
        """Let a cycle return jobs, together."""
        self.offer_as(jobs)

    def offer_as(self, ready: Sequence[Any]) -> None:
        """Let a cycle return just this."""
        with self._changed:
            self._ready.append(ready)
            self._changed.notify_all()

    def stop(self) -> None:
        """Let the last cycle be the one that finds nothing ready."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def raise_next(self, error: BaseException) -> None:
        with self._changed:
            self.fatal = error
            self._changed.notify_all()

    def wait_polling(self) -> None:
        """Wait until somebody waits in a cycle, and nothing is left to be taken up."""
        until(lambda: self.polling and not self._ready and not self._woken)

    def wait_cycles(self, more: int) -> None:
        """Wait until so many more cycles have come back and been begun: somebody polls again and again."""
        for _ in range(more):
            seen = self.cycles
            self.wait_polling()
            self.wake()
            until(lambda seen=seen: self.cycles > seen)  # type: ignore[misc]
