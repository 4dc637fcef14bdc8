"""How a manager starts: it gets all that a run needs, or nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ws4py.engine import Engine
from ws4py.limits import Limits
from ws4py.manager.adaptive import AdaptiveScheduler
from ws4py.manager.inline import InlineScheduler
from ws4py.manager.pool import PoolScheduler
from ws4py.manager.reactor import Reactor
from ws4py.manager.registry import Registry
from ws4py.manager.scheduler import Scheduler
from ws4py.manager.watchdog import SlowCallbacks

__all__ = ["Setup"]


@dataclass(frozen=True)
class Setup:
    """What is needed for a run.

    :ivar backend: what the manager waits with.
    :ivar engine: that is opened for the run.
    :ivar registry: of whom it serves.
    :ivar limits: of the manager.
    :ivar workers: how many callbacks may run at once.
    :ivar dispatch: who polls.
    :ivar slow_callback: from how many seconds on a turn takes long; None for never.
    :ivar report_slow: is told of such turns.
    :ivar name: of the threads.
    :ivar daemon: whether the process may end meanwhile.
    :ivar ended: called at the end with the error that it came by, None if it came by none.
    """

    backend: Any
    engine: Engine
    registry: Registry
    limits: Limits
    workers: int
    dispatch: str
    slow_callback: float | None
    report_slow: Callable[[Any, float, FrameType | None], object]
    name: str
    daemon: bool
    ended: Callable[[BaseException | None], object]

    def begin(self) -> tuple[Reactor, Scheduler]:
        """Begin a run: return what polls, and who runs callbacks.

        :raises RuntimeError: if the system has no thread for it.
        :raises OSError: if the system has no descriptors for it.
        """
        backend, engine = self.backend, self.engine
        with contextlib.ExitStack() as undo:
            poller = backend.make_poller(engine.wake)
            if not backend.given_poller:
                undo.callback(poller.release)
            wakeup = backend.make_wakeup()
            undo.callback(wakeup.release)
            relay = backend.make_relay()
            if relay is not None:
                undo.callback(relay.release)
            engine.open(poller, wakeup, relay, backend.given_poller)
            undo.callback(engine.forget_poller)
            reactor = Reactor(engine, self.registry, self.limits, self.ended)
            scheduler = self._make_scheduler(reactor)
            reactor.attach(scheduler)
            if not self.daemon and not backend.greenlets:  # something has to keep the process alive
                threading.Thread(target=scheduler.join, name=f"{self.name}-foreground").start()
            engine.callers = scheduler
            scheduler.start()
            undo.pop_all()
        return reactor, scheduler

    def _make_scheduler(self, reactor: Reactor) -> Scheduler:
        slow = None if self.slow_callback is None else SlowCallbacks(self.slow_callback, self.report_slow)
        waiting = self.limits.max_waiting_senders
        if self.backend.greenlets:
            greenlets: Scheduler = self.backend.make_scheduler(reactor)
            return greenlets
        if not self.workers:
            return InlineScheduler(reactor, slow, self.name)
        if self.dispatch == "adaptive":
            return AdaptiveScheduler(reactor, self.workers, waiting, slow, self.name)
        return PoolScheduler(reactor, self.workers, waiting, slow, self.name)
