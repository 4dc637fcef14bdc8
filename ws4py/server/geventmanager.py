"""The manager of websockets for gevent: the hub does what elsewhere a thread does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from ws4py.backends.greenlets import Greenlets
from ws4py.limits import Limits
from ws4py.manager import WebSocketManager

__all__ = ["GreenletManager"]


class GreenletManager(WebSocketManager):
    """Runs websockets by one hub and a greenlet for each.

    To be used in the thread that started it; ``broadcast``, ``publish``, ``stop`` and ``remove`` may be called by
    others too.

    :param spawn: starts a greenlet, as :func:`gevent.spawn` does.
    :param limits: see :class:`~ws4py.limits.Limits`.
    :param options: single limits, by their names.
    :raises ValueError: for a limit out of range.
    """

    def __init__(
        self, spawn: Callable[..., gevent.Greenlet] = gevent.spawn, *, limits: Limits | None = None, **options: Any
    ) -> None:
        super().__init__(workers=0, backend=Greenlets(spawn), limits=limits, **options)
