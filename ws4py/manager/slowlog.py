"""Callbacks that take long are counted here, and logged."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Final

from ws4py.manager.member import Member

__all__ = ["SlowCallbackLog"]

logger = logging.getLogger("ws4py")

REPORT_INTERVAL: Final = 60.0
"""How often, in seconds, slow callbacks of one class are logged at most."""


class SlowCallbackLog:
    """What a manager knows of callbacks that take long.

    :param count: counts that something happened.
    :param clock: a monotonic clock, in seconds.
    """

    def __init__(self, count: Callable[[str], object], clock: Callable[[], float]) -> None:
        self._count = count
        self._clock = clock
        self._reported: dict[type, float] = {}

    def report(self, member: Member, seconds: float, frame: FrameType | None) -> None:
        """Count a callback that takes long, and log it. By the watchdog.

        :param member: whose callback it is.
        :param seconds: for which it has run.
        :param frame: where its thread is.
        """
        self._count("slow_callbacks")
        websocket_class = type(member.websocket)
        now = self._clock()
        last = self._reported.get(websocket_class)
        if last is not None and now - last < REPORT_INTERVAL:
            return
        self._reported[websocket_class] = now
        stack = "" if frame is None else ". It is at:\n" + "".join(traceback.format_stack(frame))
        logger.warning("A callback of %s has run for %.1f seconds%s", member, seconds, stack)
