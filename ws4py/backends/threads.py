"""Threads: the usual backend of a manager."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Final

from ws4py.engine.pollers import Poller, default_poller
from ws4py.engine.relay import Relay
from ws4py.engine.sockets import Closable, managed_part, take_over
from ws4py.engine.transport import Transport, make_transport
from ws4py.engine.wakeup import Wakeup

__all__ = ["Threads"]

BREATH: Final = 0.0002
"""How long, in seconds, one who reads statistics rests between two slices."""


class Threads:
    """What a manager of threads waits with.

    :param poller: to wait for sockets with; the system's best by default.
    """

    greenlets = False

    def __init__(self, poller: Poller | None = None) -> None:
        self._poller = poller

    def make_lock(self) -> Any:
        """Return a lock; a signal handler may come while the same thread holds it."""
        return threading.RLock()

    def holds(self, lock: Any) -> bool:
        """Tell whether the calling thread holds a lock."""
        return bool(lock._is_owned())

    def make_condition(self, lock: Any) -> threading.Condition:
        """Return a condition over a lock."""
        return threading.Condition(lock)

    def make_event(self) -> threading.Event:
        """Return an event."""
        return threading.Event()

    def make_poller(self, wake: Any) -> Poller:
        """Return what waits for sockets."""
        return self._poller or default_poller()

    def make_wakeup(self) -> Wakeup:
        """Return what wakes the thread that waits."""
        return Wakeup()

    def make_relay(self) -> Relay | None:
        """Return what carries the messages of forked processes; None where there are none."""
        return Relay() if hasattr(os, "fork") else None

    @property
    def given_poller(self) -> bool:
        """Whether the poller is the application's."""
        return self._poller is not None

    def make_transport(self, sock: Any, owner: Closable) -> tuple[Transport, Any]:
        """Return the transport of a connected socket, which is made non-blocking, and the socket that stands in its
        place.

        :param owner: is told when the application closes that.
        """
        sock = take_over(sock)
        managed = managed_part(sock)
        if managed is not None:
            managed.manage(owner)
        return make_transport(sock), sock

    def breathe(self) -> None:
        """Let other threads run, in the midst of something that takes long."""
        time.sleep(BREATH)


def let_go(sock: Any) -> None:
    """Give a socket that an engine had back to the application, open and blocking."""
    managed = managed_part(sock)
    if managed is not None:
        managed.release()
    sock.setblocking(True)
