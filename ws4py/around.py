"""What surrounds the callbacks of a websocket: an application's context, a transaction, a log's context."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

__all__ = ["Around", "Surroundings"]

Around = Callable[[Any], AbstractContextManager[object]]
"""Is called with the websocket before each callback; the callback runs within the context manager that it returns."""


class Surroundings:
    """Calls the callbacks of one websocket within a context manager.

    They see one context of :mod:`contextvars`, which is the websocket's own: a copy of the one in which this is made.
    So what a callback sets is there in the next one, on whatever thread, and never in another websocket's.

    :param around: makes the context manager. Its ``__exit__`` is told of what the callback has raised.
    """

    __slots__ = ("_around", "_context")

    def __init__(self, around: Around) -> None:
        self._around = around
        self._context = contextvars.copy_context()

    def call(self, websocket: Any, callback: Callable[..., object], *arguments: Any) -> None:
        """Call a callback. By one thread at a time.

        :raises Exception: what the callback or the context manager raises.
        """
        self._context.run(self._call, websocket, callback, arguments)

    def _call(self, websocket: Any, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        with self._around(websocket):
            callback(*arguments)
