"""The stations of a connection's life, from its adoption to the release of its descriptor, and its timers.

All of it happens on the manager's thread.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from ws4py.deadline import MessageDeadline
from ws4py.framing import FIN, OPCODE_PING
from ws4py.labels import code_label
from ws4py.manager.batch import BatchIO, Received
from ws4py.manager.connection import ENDED, Connection, Phase
from ws4py.manager.limits import Limits
from ws4py.manager.pollers import READ, WRITE, Poller
from ws4py.manager.statistics import ManagerCounters
from ws4py.manager.timers import TimerWheel
from ws4py.messaging import CloseCode, CloseControlMessage

__all__ = ["Lifecycle"]

logger = logging.getLogger("ws4py")


LOOK: Final = 30.0
"""How often, in seconds, connections without a timer are looked at."""


class Lifecycle:
    """What becomes of the connections of one manager.

    :param limits: of the manager.
    :param clock: a monotonic clock, in seconds.
    """

    poller: Poller
    _io: BatchIO
    _wheel: TimerWheel[Connection]

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.counters = ManagerCounters()
        self._clock = clock
        # Over the manager's state, the addresses and the shared counters; never held over a call that waits.
        # A signal handler may come between and need it, too.
        self._lock = threading.RLock()
        self._connections: dict[int, Connection] = {}  # by descriptor, until that is given back
        self._displaced: set[Connection] = set()  # whose descriptors are others' before they have ended
        self._open = 0  # of those, the ones whose end has not begun
        self._addresses: Counter[str] = Counter()
        self._dirty: deque[Connection] = deque()  # what the thread is to look at
        self._ready: list[Connection] = []  # what goes to the run queue at the end of a cycle
        # Of what has come there is a rest that no poller shows: it is the next cycle's. An ordered set.
        self._unread: dict[Connection, None] = {}
        self._look_at: float | None = None  # when those are to be looked at that no timer is set for
        self._pings = 0
        self._read_at = 0.0  # when what is being taken in was read
        self._has_tls = False  # whether there ever was a connection with TLS

    def count_limit(self, name: str) -> None:
        """Count that a limit or a policy acted. Any thread may call."""
        with self._lock:
            self.counters.limits[name] += 1

    def _fail(self, connection: Connection, error: BaseException) -> None:
        """Something done for a connection has raised: that ends it, and nobody else."""
        logger.error("%s is ended: what was done for it raised", connection, exc_info=error)
        self._count_fault()
        try:
            self._lose(connection)
        except BaseException:
            logger.exception("%s is ended, but not in order", connection)

    def _attempt(self, act: Callable[[Connection], object], connection: Connection) -> None:
        """Do something for a connection; an exception ends it."""
        try:
            act(connection)
        except BaseException as error:  # noqa: BLE001 - this thread is there for all connections
            self._fail(connection, error)

    def _count_fault(self) -> None:
        with self._lock:
            self.counters.faults += 1

    def _take_in(self, connections: Sequence[Connection], results: Sequence[Received]) -> None:
        """Take in what was read from connections."""
        raise NotImplementedError

    def _adopt(self, connection: Connection) -> None:
        """Begin to watch a new connection, and read what came before that."""
        connection.phase = Phase.OPEN
        self._has_tls = self._has_tls or connection.transport.secure
        self.counters.opened += 1
        if connection.schedule():
            self._ready.append(connection)
        self._read_at = self._clock()
        interval = self._ping_interval(connection)
        if interval is not None:
            self._set_timer(connection, self._read_at + interval)
        else:
            self._look_again(self._read_at)
        early, connection.websocket.buf = connection.websocket.buf, b""
        if early:
            self._take_in([connection], [bytes(early)])
        self._watch(connection)

    def _may_read(self, connection: Connection) -> bool:
        """Tell whether anything is to be read of a connection now."""
        phase = connection.phase
        return phase < Phase.SHUT and (phase >= Phase.ENDED or not (connection.starved or connection.outbox_full))

    def _watch(self, connection: Connection) -> None:
        """Have the poller watch for what the connection can use now; one that can't be watched is lost."""
        transport = connection.transport
        interest = 0
        if self._may_read(connection):
            interest = WRITE if transport.wants_write else READ
            if connection.stream.more or (transport.secure and transport.pending()):
                self._unread[connection] = None
        if transport.blocked and connection.phase != Phase.SHUT:
            interest |= WRITE
        if interest == connection.interest:
            return
        if self._connections.get(connection.fd) is not connection:
            connection.interest = 0
            return  # the application has closed the socket, and its number is another one's
        try:
            if not interest:
                self.poller.unregister(connection.fd)
            elif not connection.interest:
                self.poller.register(connection.fd, interest)
            else:
                self.poller.modify(connection.fd, interest)
        except (OSError, ValueError) as error:
            logger.error("%s can't be watched: %s", connection, error)
            self._lose(connection)
            return
        connection.interest = interest

    def _settle(self, connection: Connection) -> None:
        """See what a connection needs after something was written or its state has changed."""
        connection.unsettled = False
        phase = connection.phase
        if phase == Phase.OPEN and connection.close_queued:
            connection.phase = phase = Phase.CLOSING
            self._set_timer(connection, self._clock() + connection.limits.close_timeout)
        if phase == Phase.ENDED:
            if connection.sent_all:
                self._say_goodbye(connection)
            else:
                connection.unsettled = True  # until the last is written
        phase = connection.phase
        if phase < Phase.SHUT:
            if connection.starved:
                connection.unsettled = connection.refresh_starved()
            if connection.schedule():
                self._ready.append(connection)
            self._watch(connection)
        elif connection.schedule():
            self._ready.append(connection)
        if phase == Phase.SHUT and connection.finished:
            self._release(connection)

    def _end_reading(self, connection: Connection) -> None:
        """Nothing more comes of this connection: let its last callbacks run, and the answer to a Close be sent."""
        if connection.phase >= Phase.ENDED:
            return
        idle = connection.idle
        connection.phase = Phase.ENDED
        connection.message_deadline = None
        connection.stream.stop_reading()
        self._set_timer(connection, self._clock() + connection.limits.close_timeout)
        self._count_out(connection)
        try:
            if idle:  # else the answers to the messages before the Close go first
                connection.reply_to_close()
        finally:  # whatever else fails, closed() is owed
            if connection.deliver([ENDED], 0):
                self._ready.append(connection)
            self._dirty.append(connection)

    def _say_goodbye(self, connection: Connection) -> None:
        """All is written: end our direction, and the peer's if it has nothing more to say."""
        connection.transport.finish()
        stream = connection.stream
        if stream.closing is not None and not stream.always_mask:
            self._shut(connection)  # a server ends TCP first (RFC 6455, section 7.1.1)
        else:
            # To shut the whole socket while the peer still sends could destroy the Close on its way to it.
            connection.phase = Phase.LINGERING

    def _shut(self, connection: Connection) -> None:
        connection.phase = Phase.SHUT
        self._wheel.cancel(connection)
        self._dirty.append(connection)
        try:
            connection.transport.shutdown()
        finally:
            self._watch(connection)

    def _lose(self, connection: Connection) -> None:
        """The socket is at its end, or broken."""
        if connection.phase == Phase.SHUT:
            return
        connection.discard_output()
        try:
            self._end_reading(connection)
        finally:
            self._shut(connection)

    def _drop(self, connection: Connection) -> None:
        """Give a connection up, whatever its peer does."""
        if connection.phase == Phase.NEW:
            self._adopt(connection)
        self._lose(connection)

    def _release(self, connection: Connection) -> None:
        """closed() has returned: give the descriptor back."""
        owned = self._connections.get(connection.fd) is connection
        if not owned and connection not in self._displaced:
            return
        code = connection.websocket.close_code
        with self._lock:
            if owned:
                del self._connections[connection.fd]
            self._displaced.discard(connection)
            self._forget_address(connection)
            self.counters.gone.add(connection)
            self.counters.closed[code_label(CloseCode.ABNORMAL_CLOSURE.value if code is None else code)] += 1
        websocket = connection.websocket
        if websocket._connection is connection:  # closed() may have made it a new one's
            websocket._connection = None  # or each would keep the other until the garbage collector comes
        if owned:
            connection.transport.close()

    def _let_go(self, connection: Connection) -> None:
        """Forget a connection without ending it."""
        if self._connections.get(connection.fd) is not connection or connection.phase >= Phase.ENDED:
            return
        if connection.transport.closed:
            self._drop(connection)  # by the application: there is nothing left that could be let go
            return
        if connection.interest:
            self.poller.unregister(connection.fd)
        if connection.phase != Phase.NEW:
            self._wheel.cancel(connection)
        with self._lock:
            del self._connections[connection.fd]
            self._forget_address(connection)
            self.counters.gone.add(connection)
            self.counters.removed += 1
        connection.phase = Phase.SHUT
        connection.abandon()
        self._count_out(connection)
        connection.websocket._detach(connection if connection.in_turn else None)

    def _count_out(self, connection: Connection) -> None:
        """Count a connection as open no longer."""
        with self._lock:
            self._open -= 1

    def _forget_address(self, connection: Connection) -> None:
        """Count a connection of its peer's address no longer. The lock is held."""
        if connection.address is not None:
            self._addresses[connection.address] -= 1
            if not self._addresses[connection.address]:
                del self._addresses[connection.address]

    # --- timers -------------------------------------------------------------------------------------------------------

    def _set_timer(self, connection: Connection, when: float) -> None:
        """Let what the connection's phase waits for be due at ``when``; the message that has begun may be due before
        it.
        """
        connection.deadline = when
        if connection.message_deadline is not None:
            when = min(when, connection.message_deadline.due)
        if when < math.inf:
            self._wheel.set(connection, when)
        else:
            self._look_again(self._clock())

    def _look_again(self, now: float) -> None:
        """Have those looked at, in a while, that nothing is due for: no timer tells that the application has closed the
        socket, nor does a poller.
        """
        if self._look_at is None:
            self._look_at = now + LOOK

    def _look(self) -> None:
        """Drop those without a timer whose sockets the application has closed."""
        self._look_at = None
        for connection in list(self._connections.values()):
            if connection.timer_slot < 0 and Phase.NEW < connection.phase < Phase.SHUT:
                if connection.transport.closed:
                    self._attempt(self._drop, connection)
                else:
                    self._look_again(self._clock())

    def _ping_interval(self, connection: Connection) -> float | None:
        frequency = connection.websocket.heartbeat_freq
        if frequency is None:
            return connection.limits.ping_interval
        return frequency or None  # 0 sends none

    def _on_timer(self, connection: Connection, now: float) -> None:
        message = connection.message_deadline
        if message is not None and now >= message.due and self._give_up_message(connection, message, now):
            return
        if connection.phase < Phase.SHUT and now < connection.deadline:
            self._set_timer(connection, connection.deadline)
        elif connection.phase == Phase.OPEN:
            self._keep_alive(connection, now)
        elif connection.phase == Phase.ENDED and not connection.sent_all and not connection.outbox_size:
            # A handler still blocks, so the peer's Close is not answered yet: that is due now.
            connection.reply_to_close()
            self._set_timer(connection, now + connection.limits.close_timeout)
            self._dirty.append(connection)
        elif connection.phase < Phase.SHUT:
            self.count_limit("close_timeout")
            self._lose(connection)

    def _watch_message(self, connection: Connection) -> None:
        """Give the message that has begun a deadline, if there is one."""
        stream, timeout = connection.stream, connection.limits.message_timeout
        if not stream.unfinished or stream.more or timeout is None:  # if there is more, it is we who take their time
            connection.message_deadline = None
        elif connection.message_deadline is None or connection.messages_begun != stream.messages_begun:
            connection.messages_begun = stream.messages_begun
            connection.message_deadline = MessageDeadline(self._read_at, timeout)
            self._set_timer(connection, connection.deadline)

    def _give_up_message(self, connection: Connection, message: MessageDeadline, now: float) -> bool:
        """Close a connection whose message does not come to its end; tell whether that was done."""
        if not self._may_read(connection):  # it is we who don't read
            connection.message_deadline = MessageDeadline(now, connection.limits.message_timeout or 0.0)
            return False
        if not message.is_late(now, connection.stream.unfinished_size):
            return False
        self.count_limit("message_timeout")
        connection.give_up(CloseControlMessage(CloseCode.POLICY_VIOLATION, "A message was not finished in time"))
        self._end_reading(connection)
        return True

    def _keep_alive(self, connection: Connection, now: float) -> None:
        """Send the Ping that is due, or give up a peer of whom nothing has come since."""
        interval = self._ping_interval(connection)
        timeout = connection.limits.ping_timeout
        if interval is None:
            self._set_timer(connection, math.inf)
            return
        if connection.ping_payload is None:
            self._pings = (self._pings + 1) & 0xFFFFFFFF
            connection.ping_payload = self._pings.to_bytes(4, "big")
            connection.ping_sent_at = now
            connection.ping_bytes = connection.bytes_received
            self._send_control(connection, OPCODE_PING, connection.ping_payload)
            self._set_timer(connection, math.inf if timeout is None else now + timeout)
        elif timeout is None:
            self._set_timer(connection, math.inf)
        elif connection.starved or connection.stream.more or connection.ping_bytes != connection.bytes_received:
            # It is we who don't read; or the Pong can't come before the end of a long frame that does come.
            connection.ping_bytes = connection.bytes_received
            self._set_timer(connection, now + timeout)
        else:
            self.count_limit("ping_timeout")
            connection.give_up(CloseControlMessage(CloseCode.INTERNAL_ERROR, "Keepalive ping timeout"))
            data = connection.take_output()
            if data:
                sent = self._io.send([(connection.transport, data)])[0]
                if isinstance(sent, int):
                    connection.bytes_sent += sent
            self._lose(connection)

    def _send_control(self, connection: Connection, opcode: int, data: bytes) -> None:
        """Put a control frame of our own into the outbox; it is written with the next batch."""
        if connection.offer_control(connection.stream.encode(FIN | opcode, data)):
            self._dirty.append(connection)
