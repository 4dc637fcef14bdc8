"""Who runs callbacks, and who polls: what the schedulers have in common.

:mod:`ws4py.manager.adaptive` has workers that do both, :mod:`ws4py.manager.pool` a thread that polls and workers that
run callbacks, :mod:`ws4py.manager.inline` one thread for all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from ws4py.engine.counters import WorkerCounters

__all__ = ["Job", "Reactor", "Scheduler", "Worker", "await_last_calls", "give_up"]

logger = logging.getLogger("ws4py")

LAST_CALLS: Final = 0.5
"""How long, in seconds, the last callbacks of a manager may go without one returning: those that still run then are
left behind.
"""

PAUSE: Final = 0.01
"""How often, in seconds, that is looked after."""


class Job(Protocol):
    """What can be put on the run queue: a connection with something in its inbox."""

    queued_at: float
    bulkhead: Any
    """Bounds how many of its kind may run at once; None if nothing does."""

    def run_turn(self, counters: WorkerCounters) -> bool:
        """Run the callbacks that are due, and tell whether there are more. May block."""

    def fail(self, error: BaseException) -> None:
        """Be told that the turn raised: there will be no other one until the job is put on the run queue again."""


def give_up(job: Job, error: BaseException) -> None:
    """Tell a job that its turn raised. Never raises."""
    try:
        job.fail(error)
    except BaseException:
        logger.exception("A turn raised, and so did the end of its connection")


def await_last_calls(busy: Callable[[], bool], progress: Callable[[], int]) -> None:
    """Wait while callbacks run, but not for those that don't return.

    :param busy: tells whether any run.
    :param progress: returns a number that grows when one begins.
    """
    seen, deadline = -1, 0.0
    while busy():
        now = time.monotonic()
        if (number := progress()) != seen:
            seen, deadline = number, now + LAST_CALLS
        elif now >= deadline:
            return
        time.sleep(PAUSE)


class Worker:
    """What is known of one thread that runs callbacks.

    :ivar lock: held but for a moment: to acquire it is to park.
    :ivar polls_first: it was sent to poll, whatever waits on the run queue.
    :ivar job: whose callbacks it runs now; None if it runs none.
    :ivar began: when it began to, in seconds.
    :ivar reported: whether that this takes long has been reported.
    :ivar lent: another one's callback may run in the place of this one's, which waits, or has waited.
    """

    __slots__ = ("_looked_at", "_used", "began", "counters", "job", "lent", "lock", "polls_first", "reported", "thread")

    def __init__(self, thread: threading.Thread) -> None:
        self.thread = thread
        self.counters = WorkerCounters()
        self.lock = threading.Lock()
        self.lock.acquire()
        self.polls_first = False
        self.job: Job | None = None
        self.began = 0.0
        self.reported = False
        self.lent = False
        self._looked_at = 0.0
        self._used = 0.0  # how much processor time it had used then

    def waits(self, before: float) -> bool:
        """Tell whether the turn that runs began ``before`` that, and has waited, not computed, since this was asked
        last. For the watchdog.
        """
        if self.job is None or self.began > before:
            return False
        now, used = time.monotonic(), _processor_time(self.thread)
        looked_at, before_used = self._looked_at, self._used
        self._looked_at, self._used = now, used
        return looked_at > self.began and 2 * (used - before_used) < now - looked_at


def _processor_time(thread: threading.Thread) -> float:
    """Return for how many seconds a thread has used a processor; 0 if that is not known."""
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0))
    except (AttributeError, OSError):  # not on each system; or it has just ended
        return 0.0


class Reactor(Protocol):
    """What polls: it is called by one thread at a time."""

    finished: bool
    """Whether nothing more will come, so that the workers are to end."""

    def cycle(self, timeout: float | None) -> Sequence[Any]:
        """Do what is due, write, wait for ``timeout`` seconds at most (None: for ever), read, and return what has
        become ready.
        """

    def wake(self) -> None:
        """Have a cycle that waits come back. Any thread may call."""

    def fail(self, error: BaseException) -> Sequence[Any]:
        """A cycle has raised: drop everything, and return what has become ready by that."""

    def release(self) -> None:
        """Give back what the reactor has: it has finished, and the last callbacks have had their time."""


class Scheduler(Protocol):
    """Who runs callbacks, and who polls. Any thread may call what has no other note.

    :ivar reliefs: how often a worker was sent to poll since callbacks kept the others from it.
    """

    reliefs: int

    def start(self) -> None:
        """Begin.

        :raises RuntimeError: if the system has no thread for it; nothing is left running then.
        """

    def rename(self, name: str) -> None:
        """Give the thread that is there all the time another name."""

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the reactor has finished and was released, for ``timeout`` seconds at most; return whether it was.

        In a callback the callbacks on the caller's own stack are not waited for.
        """

    def is_alive(self) -> bool:
        """Tell whether it has started, and the reactor has not finished."""

    def after_fork_in_child(self) -> None:
        """Have free locks, since their owners may be threads of the parent's, and no more work."""

    def in_own_thread(self) -> bool:
        """Tell whether the caller is the one thread that polls and runs callbacks, too."""

    def owns_engine(self) -> bool:
        """Tell whether the caller may do now what is for the thread that polls."""

    def runs(self, job: Any) -> bool:
        """Tell whether the caller is in a callback of a job."""

    def relieve(self) -> None:
        """See that somebody polls: the caller is about to wait."""

    def enter(self, job: Any) -> None:
        """There is a job more: get what its turns need. By who added it, who may wait."""

    def forget(self, job: Any) -> None:
        """A job was let go: there will be no turn for it. By who owns the engine."""

    def pass_on(self, job: Any, error: BaseException) -> None:
        """Let what a callback has raised go on to whom it is meant for. By who ran the callback."""

    def is_kill(self, error: BaseException) -> bool:
        """Tell whether a callback was ended by this from outside, so that it is nobody's fault."""

    def throw(self, error: BaseException) -> None:
        """Let what met who polls by chance go on to whom it is meant for. By who owns the engine."""

    def begin_wait(self) -> bool:
        """The caller is about to wait in a call of ours; return False if it may not, since enough workers do."""

    def end_wait(self) -> None:
        """The caller waits no more."""

    def joining(self) -> Sequence[Any]:
        """Return the jobs whose callbacks wait in :meth:`join`."""

    def counters(self) -> WorkerCounters:
        """Return the sums over all workers, retired ones included."""

    def state(self) -> tuple[int, int, int, int]:
        """Return how many workers there may be, are, and are idle, and how many jobs wait for one."""
