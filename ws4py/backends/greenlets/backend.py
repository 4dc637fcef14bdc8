"""What a manager whose callbacks run on greenlets is made with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from ws4py.backends.greenlets.hub import HubPoller, HubWakeup
from ws4py.backends.greenlets.scheduler import GreenletScheduler
from ws4py.backends.greenlets.sockets import make_transport
from ws4py.backends.greenlets.waiting import GreenletCondition, native_lock
from ws4py.engine.relay import Relay
from ws4py.engine.sockets import Closable
from ws4py.engine.transport import Transport

__all__ = ["Greenlets"]


class Greenlets:
    """What a manager of greenlets waits with.

    :param spawn: starts a greenlet, as :func:`gevent.spawn` does.
    """

    greenlets = True
    given_poller = False

    def __init__(self, spawn: Callable[..., gevent.Greenlet] = gevent.spawn) -> None:
        self._spawn = spawn
        self._hub: Any = None
        self._poller: Any = None
        self._scheduler: GreenletScheduler | None = None

    def make_lock(self) -> Any:
        """Return a lock."""
        return native_lock()

    def holds(self, lock: Any) -> bool:
        """Tell whether the calling thread holds a lock."""
        return bool(lock._is_owned())

    def make_condition(self, lock: Any) -> GreenletCondition:
        """Return a condition over a lock."""
        return GreenletCondition(lock)

    def make_event(self) -> Any:
        """Return an event."""
        return Event()

    def make_poller(self, wake: Callable[[], None]) -> HubPoller:
        """Return what waits for sockets, in the hub of the calling thread."""
        self._hub = gevent.get_hub()
        poller = self._poller = HubPoller(self._hub.loop, wake)
        return poller

    def make_relay(self) -> Relay | None:
        """Return what carries the messages of forked processes; None where there are none."""
        return Relay() if hasattr(os, "fork") else None

    def make_wakeup(self) -> HubWakeup:
        """Return what wakes the hub."""
        return HubWakeup(self._hub, self._cycle)

    def _cycle(self) -> None:
        if self._scheduler is not None:
            self._scheduler.cycle()

    def make_scheduler(self, reactor: Any) -> GreenletScheduler:
        """Return what runs callbacks."""
        self._scheduler = GreenletScheduler(reactor, self._spawn, self._hub, self._poller)
        return self._scheduler

    def make_transport(self, sock: Any, owner: Closable) -> tuple[Transport, Any]:
        """Return the transport of a connected socket of gevent, which is made non-blocking, and the socket."""
        return make_transport(sock), sock

    def breathe(self) -> None:
        """Let other greenlets run, in the midst of something that takes long."""
        if gevent.get_hub() is not self._hub:
            time.sleep(0.0002)
        elif gevent.getcurrent() is not self._hub:
            gevent.sleep(0)
