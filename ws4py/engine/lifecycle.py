"""The life of a connection, from its adoption to the release of its descriptor, and its timers. For the thread that
polls.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ws4py.closing import CLOSED, KEEPALIVE_TIMEOUT
from ws4py.engine.connection import Connection
from ws4py.engine.core import Core
from ws4py.engine.inbox import END
from ws4py.engine.timers import TimerWheel
from ws4py.framing import OPCODE_PING
from ws4py.keepalive import Keepalive, Verdict

__all__ = ["Lifecycle"]

logger = logging.getLogger("ws4py")

SLOW_TICK: Final = 60.0
"""How often, in seconds, it is seen after a connection for which nothing else is ever due."""


class Lifecycle:
    """What becomes of the connections of an engine.

    The end of one goes through :meth:`end_reading` (its last callbacks are due), :meth:`update` (they have returned and
    all is written) and :meth:`release`; :meth:`abort` is the short way to the first and leaves out the writing.

    Who begins it is ``Reader.decode`` (the peer has sent its Close, or broken a rule), :meth:`on_timer` (a time is up),
    or who calls :meth:`abort` (the socket is lost). ``end_reading`` puts ``END`` into the inbox, for which
    ``Member._finish`` calls ``WebSocket.terminate``, and that ``closed()``; then it has the engine call ``update``.

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

    def update(self, connection: Connection) -> None:
        """See what a connection needs after something was written or its state has changed."""
        if connection.released:
            return
        connection.needs_update = False
        closing = connection.closing
        if closing.sent is not None and not connection.deadline and not connection.read_ended:
            connection.deadline = self._engine.clock() + connection.limits.close_timeout
            self.reset_timer(connection)
        if connection.read_ended and not connection.eof_sent and closing.state is not CLOSED:
            if connection.sent_all:
                connection.eof_sent = True
                connection.transport.send_eof()
                if closing.ends_tcp(connection.stream.always_mask):
                    self._end_tcp(connection)
            else:
                connection.needs_update = True  # until the last is written
        if closing.state is not CLOSED and connection.reading_paused:
            connection.needs_update = connection.refresh_reading_paused() or connection.needs_update
        if connection.schedule():
            self._engine.ready.append(connection.owner)
        if closing.state is not CLOSED:
            self._engine.watch(connection)
        elif connection.owner.finished:
            self.release(connection)

    def end_reading(self, connection: Connection) -> None:
        """Nothing more comes of this connection: let its last callbacks run, and the answer to a Close be sent."""
        if connection.read_ended:
            return
        idle = connection.idle
        connection.read_ended = True
        connection.message_deadline = None
        connection.stream.stop_reading()
        connection.deadline = self._engine.clock() + connection.limits.close_timeout
        self.reset_timer(connection)
        self._engine.read_ended(connection.owner)
        try:
            if idle:  # else the answers to the messages before the Close go first
                connection.reply_to_close()
        finally:  # whatever else fails, closed() is owed
            if connection.deliver([END], 0):
                self._engine.ready.append(connection.owner)
            self._engine.look_again(connection)

    def _end_tcp(self, connection: Connection) -> None:
        """End both directions; the descriptor is kept until ``closed()`` has returned."""
        connection.closing.lose()
        self.wheel.cancel(connection)
        try:
            connection.transport.shutdown()
        finally:
            self._engine.watch(connection)

    def abort(self, connection: Connection) -> None:
        """Drop the socket, whatever its peer does."""
        if connection.closing.state is CLOSED and connection.read_ended:
            return
        connection.watched = True
        connection.discard_output()
        try:
            self.end_reading(connection)
        finally:
            self._engine.look_again(connection)
            self._end_tcp(connection)

    def drop(self, connection: Connection) -> None:
        """Drop the socket, also of a connection that was not read yet."""
        if not connection.watched:
            self.adopt(connection)
        self.abort(connection)

    def release(self, connection: Connection) -> None:
        """``closed()`` has returned: give the descriptor back."""
        owned = self._engine.connections.get(connection.fd) is connection
        if not owned and connection not in self._engine.displaced:
            return
        with self._engine.lock:
            if owned:
                del self._engine.connections[connection.fd]
            self._engine.displaced.discard(connection)
        connection.released = True
        self._engine.unread.pop(connection, None)
        try:
            if owned:
                connection.transport.close()
        finally:
            self._engine.released(connection.owner, connection)
            connection.part()

    def remove(self, connection: Connection, removed: Callable[[], object]) -> bool:
        """Forget a connection without ending it; return whether that was done.

        :param removed: is called then, when no callback runs.
        """
        if self._engine.connections.get(connection.fd) is not connection or connection.read_ended:
            return False
        if connection.transport.closed:
            self.drop(connection)  # by the application: there is nothing left that could be let go
            return False
        if connection.interest and self._engine.poller is not None:
            self._engine.poller.unregister(connection.fd)
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
            self.abort(connection)  # by the application, whose affair it is, but a place in the limits is ours
        elif not connection.deadline:
            self._keep_alive(connection, now)
        elif now < connection.deadline:
            self.reset_timer(connection)
        elif connection.read_ended and not connection.sent_all and not connection.buffered:
            # A handler still blocks, so the peer's Close is not answered yet: that is due now.
            connection.reply_to_close()
            connection.deadline = now + connection.limits.close_timeout
            self.reset_timer(connection)
            self._engine.look_again(connection)
        else:
            self._engine.count_limit("close_timeout")
            self.abort(connection)

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
            self.abort(connection)
            return
        if verdict is Verdict.PING and keepalive.payload is not None:
            connection.send_control_now(OPCODE_PING, keepalive.payload)
        self.reset_timer(connection)
