"""What is read: a share of it is decoded in each cycle, counted, answered if that is the engine's business, and put
into the inbox. For the thread that polls.
"""

from __future__ import annotations

import logging
from typing import Final

from ws4py.closing import MESSAGE_TIMEOUT
from ws4py.deadline import MessageDeadline, watch_message
from ws4py.engine.connection import Connection
from ws4py.engine.core import Core
from ws4py.engine.traffic import Traffic
from ws4py.exc import TooManyFragmentsException
from ws4py.framing import OPCODE_BINARY, OPCODE_PONG, OPCODE_TEXT
from ws4py.messaging import CloseCode, CloseControlMessage, Message

__all__ = ["Reader"]

logger = logging.getLogger("ws4py")

TURN_FRAMES: Final = 256
"""How many frames are taken in of one connection in a cycle."""

TURN_SIZE: Final = 1 << 18
"""After how many bytes of decoded payload the rest of what has come of a connection waits for the next cycle."""

LARGEST_PONG: Final = 131
"""How many bytes the frame of a Pong may have."""


class Reader:
    """Takes in what an engine reads.

    :param engine: whose connections these are.
    """

    def __init__(self, engine: Core) -> None:
        self._engine = engine

    def take_in(self, connection: Connection, data: bytes) -> None:
        """Take in what was just read of a connection: ``b""`` is its end."""
        engine = self._engine
        if not data:
            connection.end_reading(lost=True)
            return
        traffic = connection.traffic
        if traffic is None:
            traffic = connection.traffic = Traffic()
        traffic.bytes_received += len(data)
        connection.heard_at = engine.read_at
        if connection.read_ended:
            return  # what comes behind a Close or an error is read only to be thrown away
        message = connection.stream.take_message(data)
        if message is None or connection.rate is not None:
            self.decode(connection, data)
            return
        # As decode() and _sort() do, for what is read most often: nothing is left over, and no message is unfinished.
        size = len(message.data)
        if message.opcode == OPCODE_TEXT:
            traffic.texts_received += 1
            traffic.text_bytes_received += size
        else:
            traffic.binaries_received += 1
            traffic.binary_bytes_received += size
        connection.active_at = engine.read_at
        if connection.deliver([message], size):
            engine.ready.append(connection.owner)
        if connection.reading_paused:
            engine.count_limit("inbox")
            engine.watch(connection)

    def decode(self, connection: Connection, data: bytes) -> None:
        """Take in as much as is one cycle's share, and as limits allow, of what has come of a connection.

        :param data: that was just read; or nothing, to go on with what was left.
        """
        if connection.read_ended:
            return
        engine, stream, limits = self._engine, connection.stream, connection.limits
        rate, room = connection.rate, limits.max_outbox_size - connection.buffered
        # No more than there is room for their answers in the outbox, if all are Pings.
        frames = min(TURN_FRAMES, room // LARGEST_PONG + 1)
        most, most_size = connection.inbox_room
        if rate is None:
            found = stream.receive_some(data, frames, most, min(most_size, TURN_SIZE))
        else:
            found = rate.receive(stream, engine.clock(), data, frames, most, min(most_size, TURN_SIZE))
        messages, size = self._sort(connection, found)
        if messages:
            connection.active_at = engine.read_at
            if connection.deliver(messages, size):
                engine.ready.append(connection.owner)
        if stream.ended:  # the peer has sent its Close, or broken a rule
            if stream.error is not None:
                self._count_failure(connection, stream.error)
            connection.end_reading()
            return
        excess = None if rate is None else rate.excess(stream)
        if excess is not None:
            engine.count_limit(excess.limit)
            connection.give_up(CloseControlMessage(CloseCode.POLICY_VIOLATION, excess.reason))
            connection.end_reading()
            return
        unfinished = stream.unfinished
        if unfinished:
            connection.count_unfinished()
        if unfinished or connection.message_deadline is not None:
            self._watch_message(connection)
        if connection.reading_paused:
            engine.count_limit("inbox")
        if stream.more or connection.reading_paused or room <= 0:
            engine.watch(connection)

    def _sort(self, connection: Connection, messages: list[Message]) -> tuple[list[Message], int]:
        """Count messages and answer those that are the engine's business; return the others, and the bytes of payload
        in them.
        """
        traffic = connection.traffic
        assert traffic is not None, "bytes were received"
        opcodes = [message.opcode for message in messages]
        texts, binaries = opcodes.count(OPCODE_TEXT), opcodes.count(OPCODE_BINARY)
        if texts + binaries < len(messages):
            messages = [message for message in messages if not self._answer(connection, message)]
        size = sum([len(message.data) for message in messages if message.opcode <= OPCODE_BINARY])
        binary_size = 0
        if binaries:
            binary_size = sum([len(message.data) for message in messages if message.opcode == OPCODE_BINARY])
            traffic.binaries_received += binaries
            traffic.binary_bytes_received += binary_size
        traffic.texts_received += texts
        traffic.text_bytes_received += size - binary_size
        return messages, size

    def _answer(self, connection: Connection, message: Message) -> bool:
        """Count a control message, and answer it if that is the engine's business; tell whether it is, so that the
        message is not for the inbox.
        """
        opcode = message.opcode
        if opcode <= OPCODE_BINARY:
            return False
        self._engine.counters.controls_received[opcode] += 1
        reply = connection.stream.reply(message)
        if reply is not None:
            connection.send_control_now(*reply)
        return opcode != OPCODE_PONG or self._is_own(connection, message)

    def _is_own(self, connection: Connection, pong: Message) -> bool:
        """Tell whether a Pong is the engine's business: it answers its Ping, or nobody wants it."""
        keepalive = connection.keepalive
        if keepalive is not None and keepalive.waiting and keepalive.ponged(self._engine.read_at, pong.data):
            if keepalive.latency is not None:
                self._engine.counters.round_trips.observe(keepalive.latency)
            self._engine.lifecycle.reset_timer(connection)
            return True
        return not connection.owner.wants_pongs or (keepalive is not None and pong.data == keepalive.payload)

    def _count_failure(self, connection: Connection, error: CloseControlMessage) -> None:
        """Log the rule that the peer has broken, and count it if it is a limit."""
        logger.debug("%s is closed with %s: %s", connection.owner, error.code, error)
        if connection.stream.failure is TooManyFragmentsException:
            self._engine.count_limit("max_fragments")
        elif error.code == CloseCode.MESSAGE_TOO_BIG:
            self._engine.count_limit("max_message_size")

    # --- the deadline of a message ------------------------------------------------------------------------------------

    def _watch_message(self, connection: Connection) -> None:
        """Give the message that has begun a deadline, if there is one."""
        before, now = connection.message_deadline, self._engine.read_at
        deadline = watch_message(connection.stream, before, now, connection.limits.message_timeout)
        connection.message_deadline = deadline
        if deadline is not None and deadline is not before:
            self._engine.lifecycle.reset_timer(connection)

    def expire_message(self, connection: Connection, deadline: MessageDeadline, now: float) -> bool:
        """Close a connection whose message does not come to its end; tell whether that was done."""
        engine = self._engine
        if not engine.may_read(connection):  # it is we who don't read
            timeout = connection.limits.message_timeout or 0.0
            connection.message_deadline = MessageDeadline(now, timeout, deadline.message)
            return False
        if not deadline.is_late(now, connection.stream.unfinished_size):
            return False
        engine.count_limit("message_timeout")
        connection.give_up(MESSAGE_TIMEOUT)
        connection.end_reading()
        return True
