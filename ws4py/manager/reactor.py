"""What polls: one engine's cycles, and the steps in which they come to an end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ws4py.engine import Connection, Engine
from ws4py.limits import Limits
from ws4py.manager.member import Member
from ws4py.manager.registry import Registry
from ws4py.manager.scheduler import LAST_CALLS, Scheduler
from ws4py.messaging import CloseCode, CloseControlMessage

__all__ = ["GOODBYE", "Reactor"]

GOODBYE: Final = CloseControlMessage(CloseCode.GOING_AWAY, "Server is shutting down")

DRAIN_STEP: Final = 0.05
"""How far apart, in seconds, the steps are in which a stopping manager says goodbye; further with a slow pace."""


class Reactor:
    """One engine, from its opening to its end.

    :param engine: that is open.
    :param registry: of whom it serves.
    :param limits: of the manager.
    :param ended: called at the end with the error that it came by, None if it came by none.
    :ivar finished: whether nothing more will come.
    """

    def __init__(
        self, engine: Engine, registry: Registry, limits: Limits, ended: Callable[[BaseException | None], object]
    ) -> None:
        self.finished = False
        self._engine = engine
        self._registry = registry
        self.limits = limits
        self._ended = ended
        self._scheduler: Scheduler | None = None
        self._error: BaseException | None = None
        self._stopping = False
        self._queue: deque[Member] | None = None  # to whom no goodbye was said yet
        self._quota = 0  # to how many it is said in a step
        self._step = DRAIN_STEP
        self._next_step = self._deadline = 0.0
        self._dropped = False
        self._progress = -1
        self._last_calls = 0.0

    def attach(self, scheduler: Scheduler) -> None:
        """Know who runs the callbacks."""
        self._scheduler = scheduler

    @property
    def busy(self) -> bool:
        """Whether the next cycle has something to do at once."""
        return self._engine.busy

    def doze(self) -> bool:
        """See :meth:`ws4py.engine.Engine.doze`."""
        return self._engine.doze()

    def wake(self) -> None:
        """Have a cycle that waits come back. Any thread may call."""
        self._engine.wake()

    def cycle(self, timeout: float | None = None) -> list[Any]:
        """Have one cycle of the engine; see :meth:`ws4py.engine.Engine.cycle`. One thread at a time."""
        engine = self._engine
        if self._stopping:
            engine.draining = True
            self._drain(engine.clock())
            due = self._time_to_step()
            timeout = due if timeout is None else min(due, timeout)
        ready = engine.cycle(timeout)
        if self._stopping and not ready:
            self.finished = self._is_over()
        return ready

    def time_to_wait(self) -> float | None:
        """Return in how many seconds a cycle has something to do, if nothing happens; None for never."""
        due = self._engine.time_to_wait()
        if not self._stopping:
            return due
        step = self._time_to_step()
        return step if due is None else min(due, step)

    # --- the end ------------------------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Nothing more comes here, and what there is to be given back is the parent's. In a forked process."""
        self.finished = True
        self._ended = lambda error: None

    def stop(self) -> None:
        """Begin to stop: say goodbye to all, at a pace, and drop what is left after ``drain_timeout``. Any thread may
        call.
        """
        self._stopping = True
        self._engine.wake()

    def _drain(self, now: float) -> None:
        """Say goodbye to some."""
        engine = self._engine
        if self._queue is None:
            drain, pace = self.limits.drain_timeout, self.limits.drain_pace
            self._deadline = now + drain
            self._queue = deque(self._registry.members())
            if pace is None:  # one that spreads their return over half the time there is
                steps = max(1, int(drain / 2 / DRAIN_STEP))
                self._quota = max(100, -(-len(self._queue) // steps))
            else:
                self._quota = max(1, int(pace * DRAIN_STEP))
                self._step = self._quota / pace
            self._next_step = now
            self._say_goodbye(now)
            return  # what was said is written first, however little time there is
        self._say_goodbye(now)
        if self._dropped:
            return
        if now >= self._deadline:
            for _ in engine.connections:
                engine.count_limit("drain_timeout")
            self._drop_all()
        elif self._scheduler is not None:
            # Who waits for the end in a callback can't be waited for, but for the peer's answer like anybody else's.
            joining = self._scheduler.joining()
            left = list(engine.connections.values())
            if joining and all(item.read_ended and item.owner in joining for item in left):
                self._drop_all()

    def _say_goodbye(self, now: float) -> None:
        if now >= self._next_step and self._queue:
            for _ in range(min(self._quota, len(self._queue))):
                self._engine.attempt(_dismiss, self._queue.popleft().connection)
            self._next_step = now + self._step

    def _drop_all(self) -> None:
        self._dropped = True
        for connection in list(self._engine.connections.values()):
            self._engine.drop(connection)

    def _time_to_step(self) -> float:
        if self._queue is None:
            return 0.0
        due = self._last_calls if self._dropped else self._deadline
        if self._queue:
            due = min(due, self._next_step)
        remaining = max(0.0, due - self._engine.clock())
        if self._scheduler is not None and self._scheduler.joining():
            remaining = min(remaining, DRAIN_STEP)  # the last of those that join may be given up at any time
        return remaining

    def _is_over(self) -> bool:
        """Tell whether there is nothing left to wait for: a callback that does not return is left behind."""
        engine, scheduler = self._engine, self._scheduler
        left = [*engine.connections.values(), *engine.displaced]
        if self._queue is None or not left or scheduler is None:
            return self._queue is not None
        if not self._dropped:
            return False
        joining = scheduler.joining()
        if all(connection.owner in joining for connection in left):
            return True
        now, progress = engine.clock(), scheduler.counters().turns
        if progress != self._progress:
            self._progress, self._last_calls = progress, now + LAST_CALLS
        return now >= self._last_calls

    def fail(self, error: BaseException) -> list[Any]:
        """A cycle has raised: say goodbye to all as far as their sockets take it now, and drop them. Never raises.

        :returns: the owners that have become ready by that.
        """
        engine = self._engine
        self._error = error
        self._stopping = self.finished = True
        for connection in list(engine.connections.values()):
            engine.attempt(self._dismiss_now, connection)
            engine.attempt(engine.lifecycle.drop, connection)
        ready, engine.ready = engine.ready, []
        return ready

    def _dismiss_now(self, connection: Connection) -> None:
        if not connection.watched:
            self._engine.lifecycle.adopt(connection)
        connection.close(GOODBYE)
        if not connection.transport.blocked:
            self._engine.send([connection])

    def release(self) -> None:
        """Give back what the engine has: the last callbacks have had their time. Once, when nobody polls any more."""
        self._ended(self._error)


def _dismiss(connection: Connection) -> None:
    connection.close(GOODBYE)
