"""What a manager's arguments are if they are not given, and may be."""

from __future__ import annotations

import math
import os
from typing import Any, Final

from ws4py.engine.pollers import Poller

__all__ = [
    "DEFAULT_WORKERS",
    "DISPATCHES",
    "SLOW_CALLBACK",
    "checked_dispatch",
    "checked_frequency",
    "checked_seconds",
    "checked_workers",
]

DEFAULT_WORKERS: Final = 32
"""How many callbacks may run at once, by default."""

DISPATCHES: Final = ("adaptive", "pool")
"""Who polls: the workers themselves, or a thread of its own."""

SLOW_CALLBACK: Final = 1.0
"""After how many seconds a callback is reported, by default."""


def checked_workers(workers: Any) -> int:
    """Return a number of workers.

    :raises ValueError: if it is none.
    """
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 0:
        raise ValueError(f"workers must be a whole number of at least 0, not {workers!r}")
    return workers


def checked_seconds(name: str, seconds: float | None) -> float | None:
    """Return a time in seconds, above 0 or None.

    :param name: of the argument.
    :raises ValueError: if it is none.
    """
    if seconds is not None and not (isinstance(seconds, (int, float)) and 0 < seconds < math.inf):
        raise ValueError(f"{name} must be a number of seconds above 0 or None, not {seconds!r}")
    return seconds


def checked_dispatch(dispatch: str | None, poller: Poller | None) -> str:
    """Return one of :data:`DISPATCHES`: what is given, or what the environment says, or what goes with a poller.

    :raises ValueError: for another word, or one that does not go with a poller of one's own.
    """
    if dispatch is None:
        dispatch = "pool" if poller is not None else os.environ.get("WS4PY_DISPATCH") or DISPATCHES[0]
    if dispatch not in DISPATCHES:
        raise ValueError(f"dispatch must be one of {', '.join(DISPATCHES)}, not {dispatch!r}")
    if dispatch != "pool" and poller is not None:
        raise ValueError("A poller of one's own goes with dispatch='pool': it is used by one thread alone")
    return dispatch


def checked_frequency(frequency: Any) -> float | None:
    """Return how often a websocket wants Pings, in seconds; 0 is never, None what the limits say.

    :raises ValueError: if it is no such number.
    """
    if frequency is not None and not (isinstance(frequency, (int, float)) and 0 <= frequency < math.inf):
        raise ValueError(f"heartbeat_freq must be a number of seconds of at least 0 or None, not {frequency!r}")
    return frequency
