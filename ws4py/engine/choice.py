"""Which engine a manager has."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ws4py.engine.connection import Connection
from ws4py.engine.pure import Engine
from ws4py.engine.system import threads_are_greenlets
from ws4py.native import ENGINE, demanded, load

__all__ = ["make_engine"]


def make_engine(
    backend: Any,
    read_ended: Callable[[Any], object],
    released: Callable[[Any, Connection], object],
    clock: Callable[[], float] = time.monotonic,
) -> Engine:
    """Return the compiled engine where the environment demands it, and the pure one else.

    Greenlets have the pure one, and so do a poller and a clock of the application's own: C waits, and knows the time,
    by itself.

    :param backend: see :class:`ws4py.engine.pure.Engine`, also for the others.
    :raises ImportError: if the compiled one is demanded, and was not compiled.
    """
    usual = not (backend.greenlets or backend.given_poller or threads_are_greenlets()) and clock is time.monotonic
    if demanded() != "compiled" or not usual or load(ENGINE) is None:
        return Engine(backend, read_ended, released, clock)
    from ws4py.engine.compiled import CompiledEngine

    return CompiledEngine(backend, read_ended, released)
