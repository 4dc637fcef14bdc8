"""What is done with a broadcast for which an outbox has no room, by the name of the policy."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Final

from ws4py.closing import SLOW_CONSUMER
from ws4py.engine.core import Line
from ws4py.engine.sender import Sender, Waiting

__all__ = ["OVERFLOW"]


def _close(connection: Line, waiting: Waiting, key: Hashable) -> bool:
    connection.give_up_locked(SLOW_CONSUMER)
    return False


def _drop(connection: Line, waiting: Waiting, key: Hashable) -> bool:
    return False


def _latest(connection: Line, waiting: Waiting, key: Hashable) -> bool:
    if connection.sender is None:
        connection.sender = Sender(connection)
    connection.sender.keep(waiting, key)
    return True


OVERFLOW: Final[Mapping[str, Callable[[Line, Waiting, Hashable], bool]]] = {
    "close": _close,
    "drop": _drop,
    "latest": _latest,
}
"""Functions that are given the connection, whose lock is held, the message and its key, and tell whether the message
was accepted. They may change the outbox, append to it, or give the connection up. :data:`ws4py.limits.OverflowPolicy`
names them.
"""
