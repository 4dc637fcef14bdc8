"""What is counted beside the connections, one writer each."""

from __future__ import annotations

from collections import Counter

from ws4py.engine.histogram import Histogram

__all__ = ["EngineCounters", "WorkerCounters"]


class EngineCounters:
    """Counted by the thread that polls, but for what is said to be otherwise.

    :ivar opened: connections that were added. Any thread adds to it, under the engine's lock.
    :ivar removed: those that were let go, open.
    :ivar controls_received: control frames, by opcode.
    :ivar limits: how often each limit or policy acted, by its name. Any thread adds to it, under the engine's lock.
    :ivar events: how often something happened, by its name in a snapshot. Any thread adds to it, under the engine's
        lock.
    :ivar round_trips: from a Ping of the engine to its Pong.
    :ivar loop_lag: how late timers went off.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.removed = 0
        self.controls_received: Counter[int] = Counter()
        self.limits: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.round_trips = Histogram()
        self.loop_lag = Histogram()


class WorkerCounters:
    """Counted by one worker's thread.

    :ivar turns: connections that it took from the run queue.
    :ivar in_place: of those, the ones that the thread had read itself.
    :ivar messages: messages that it handed to handlers.
    :ivar errors: exceptions that handlers raised.
    :ivar queue_wait: from when a connection was put on the run queue to when it was taken.
    :ivar turn_time: how long a turn took.
    """

    def __init__(self) -> None:
        self.turns = 0
        self.in_place = 0
        self.messages = 0
        self.errors = 0
        self.queue_wait = Histogram()
        self.turn_time = Histogram()

    def merge(self, other: WorkerCounters) -> None:
        """Add what another one has counted."""
        self.turns += other.turns
        self.in_place += other.in_place
        self.messages += other.messages
        self.errors += other.errors
        self.queue_wait.merge(other.queue_wait)
        self.turn_time.merge(other.turn_time)
