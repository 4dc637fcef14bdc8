"""How connections come to be watched, their timers, and how one is let go that has not ended. For the thread that
polls. How one ends is :mod:`ws4py.engine.connection`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ws4py.closing import CLOSED, KEEPALIVE_TIMEOUT
from ws4py.engine.connection import Connection
from ws4py.engine.core import Core
from ws4py.engine.timers import TimerWheel
from ws4py.framing import OPCODE_PING
from ws4py.keepalive import Keepalive, Verdict

__all__ = ["Lifecycle"]

logger = logging.getLogger("ws4py")

SLOW_TICK: Final = 60.0
"""How often, in seconds, it is seen after a connection for which nothing else is ever due."""


class Lifecycle:
    """What becomes of the connections of an engine, until their end has begun.

    :param engine: whose connections these are.
    """

    def __init__(self, engine: Core) -> None:
        self._engine = engine
        self.wheel: TimerWheel[Connection] = TimerWheel()

    def adopt(self, connection: Connection) -> None:
        """Begin to watch a new connection, and read what came before that."""
        connection.watched = True
        if connection.schedule():
            self._engine.ready.append(connection.owner)
        self._engine.read_at = self._engine.clock()
        self.reset_timer(connection)
        early = connection.owner.take_early()
        if early:
            self._engine.reader.take_in(connection, early)
        self._engine.watch(connection)

    def drop(self, connection: Connection) -> None:
        """Drop the socket, whatever its peer does; also of a connection that was not read yet."""
        if not connection.watched:
            self.adopt(connection)
        connection.end_reading(lost=True)

    def remove(self, connection: Connection, removed: Callable[[], object]) -> bool:
        """Forget a connection without ending it; return whether that was done.

        :param removed: is called then, when no callback runs.
        """
        if self._engine.connections.get(connection.fd) is not connection or connection.read_ended:
            return False
        if connection.transport.closed:
            self.drop(connection)  # by the application: there is nothing left that could be let go
            return False
        self._engine.unwatch(connection)
        self.wheel.cancel(connection)
        self._engine.unread.pop(connection, None)
        with self._engine.lock:
            del self._engine.connections[connection.fd]
            self._engine.counters.removed += 1
        connection.read_ended = connection.watched = connection.released = True
        connection.abandon(removed)
        connection.part()
        return True

    # --- timers -------------------------------------------------------------------------------------------------------

    def reset_timer(self, connection: Connection) -> None:
        """Set a connection's timer to what is due next."""
        due = connection.deadline or self._keepalive_due(connection)
        message = connection.message_deadline
        if message is not None:
            due = min(due, message.due)
        self.wheel.set(connection, due)

    def _keepalive_due(self, connection: Connection) -> float:
        interval, keepalive = connection.owner.ping_interval, connection.keepalive
        if keepalive is not None:
            due = keepalive.due(interval, connection.limits.ping_timeout)
        else:
            due = None if interval is None else connection.opened_at + interval
        return self._engine.clock() + SLOW_TICK if due is None else due

    def on_timer(self, connection: Connection) -> None:
        """Do what is due."""
        now = self._engine.clock()
        message = connection.message_deadline
        if message is not None and now >= message.due and self._engine.reader.expire_message(connection, message, now):
            return
        if connection.closing.state is CLOSED:
            return
        if connection.transport.closed:
            # By the application, whose affair it is; but a place in the limits is ours.
            connection.end_reading(lost=True)
        elif not connection.deadline:
            self._keep_alive(connection, now)
        elif now < connection.deadline:
            self.reset_timer(connection)
        elif connection.read_ended and not (connection.send_ended or connection.buffered):
            # A handler still blocks, so the peer's Close is not answered yet: that is due now.
            connection.deadline = now + connection.limits.close_timeout
            connection.reply_to_close()
        else:
            self._engine.count_limit("close_timeout")
            connection.end_reading(lost=True)

    def _keep_alive(self, connection: Connection, now: float) -> None:
        """Send the Ping that is due, or give up a peer of whom nothing has come since."""
        connection.shrink()
        interval, timeout = connection.owner.ping_interval, connection.limits.ping_timeout
        keepalive = connection.keepalive
        if keepalive is None:
            if interval is None:
                self.reset_timer(connection)
                return
            keepalive = connection.keepalive = Keepalive(connection.opened_at)
        # If it is we who don't read, that is no fault of the peer's.
        heard_at = now if connection.reading_paused or connection.stream.more else connection.heard_at
        verdict = keepalive.act(now, interval, timeout, heard_at)
        if verdict is Verdict.DEAD:
            self._engine.count_limit("ping_timeout")
            connection.give_up(KEEPALIVE_TIMEOUT)
            self._engine.send([connection])
            connection.end_reading(lost=True)
            return
        if verdict is Verdict.PING and keepalive.payload is not None:
            connection.send_control_now(OPCODE_PING, keepalive.payload)
        self.reset_timer(connection)
