"""How much a peer may send in a second. The time is passed in."""

from __future__ import annotations

from typing import Final, NamedTuple

from ws4py.limits import Limits
from ws4py.messaging import Message
from ws4py.streaming import Stream

__all__ = ["Excess", "Rate", "make_rate"]


class Excess(NamedTuple):
    """A limit that a peer has passed, by its name, and what the peer is told."""

    limit: str
    reason: str


MESSAGES: Final = Excess("max_messages_per_second", "Too many messages a second")


class Rate:
    """What has come of one connection in a second of the clock. By who reads.

    :param most: how many frames there may be, those of control messages and fragments too.
    """

    __slots__ = ("_frames", "_most", "_second")

    def __init__(self, most: int) -> None:
        self._most = most
        self._second = 0
        self._frames = 0

    def receive(self, stream: Stream, now: float, data: bytes, frames: int, messages: int, size: int) -> list[Message]:
        """Take in what has come, as far as there may be so much; see :meth:`Stream.receive_some`.

        :param now: in seconds.
        """
        second = int(now)
        if self._second != second:
            self._second, self._frames = second, 0
        begun = stream.frames_received
        found = stream.receive_some(data, min(frames, max(0, self._most - self._frames)), messages, size)
        self._frames += stream.frames_received - begun
        return found

    def excess(self, stream: Stream) -> Excess | None:
        """Return the limit for which the connection is to be given up: more has come than may; None if it is not."""
        return MESSAGES if self._frames >= self._most and stream.held_back else None


def make_rate(limits: Limits) -> Rate | None:
    """Return what looks after the limits of a second; None if there are none."""
    most = limits.max_messages_per_second
    return None if most is None else Rate(most)
