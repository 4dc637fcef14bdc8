"""What a connection sends: frames are put into its outbox by any thread, and written by the one that polls.

Whole messages go straight into the outbox. What needs more (to wait for room, fragments, an order of encoding) is the
:class:`~ws4py.engine.sender.Sender`'s, which there is only then.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final

from ws4py.engine.core import Core
from ws4py.engine.outbox import Outbox
from ws4py.engine.overflow import OVERFLOW
from ws4py.engine.sender import Sender
from ws4py.engine.traffic import Traffic
from ws4py.engine.transport import Transport
from ws4py.framing import (
    FIN,
    OPCODE_BINARY,
    OPCODE_CLOSE,
    OPCODE_PING,
    OPCODE_PONG,
    OPCODE_TEXT,
    RSV1,
    payload_size,
)
from ws4py.limits import Limits, OverflowPolicy
from ws4py.messaging import CloseControlMessage
from ws4py.streaming import Stream

__all__ = ["NO_SLOTS", "Outgoing"]

NO_SLOTS: Final[tuple[str, ...]] = ()
"""Of classes that say what a connection does, and leave to their subclasses how its attributes are kept."""


class Outgoing:
    """The sending half of a connection.

    :param engine: is told that there is something to write.
    :param stream: encodes.
    :param limits: of the connection.
    :ivar transport: of its socket, non-blocking.
    """

    __slots__ = NO_SLOTS

    transport: Transport

    def __init__(self, engine: Core, stream: Stream, limits: Limits) -> None:
        self.engine = engine
        self.stream = stream
        self.limits = limits
        self.closing = stream.closing_handshake
        self.lock = engine.make_lock()
        # Shared, under the lock.
        self.outbox: Outbox | None = None
        self.send_ended = False  # nothing more is put into the outbox
        self.dirty = False  # the engine was told to look
        self.needs_update = False  # the engine is to see to more than the outbox when something was written
        self.traffic: Traffic | None = None
        codec = stream.codec
        self.sender = Sender(self, engine.make_lock()) if codec is not None and codec.ordered else None

    # --- any thread ---------------------------------------------------------------------------------------------------

    def send_message(self, opcode: int, payload: bytes, timeout: float | None = None) -> None:
        """Send a whole message. Waits for room in the outbox.

        :param timeout: how long at most, in seconds; ``send_timeout`` by default, and the peer is then given up. With 0
            it does not wait, and the peer is not given up.
        :raises ConnectionClosed: if the connection is closing or closed.
        :raises SlowConsumer: if there was no room in time, or too many workers wait already.
        """
        sender = self.sender
        if sender is not None and sender.encoding is not None:
            sender.send_message(opcode, payload, timeout)
            return
        frame = self.stream.encode_message(opcode, payload)
        size = len(frame)  # before the lock, as in Outbox.append()
        lock = self.lock
        usual = False
        try:
            lock.acquire()  # by hand where every message comes by: "with" takes more than twice the time
            outbox, traffic = self.outbox, self.traffic
            if (
                outbox is not None
                and traffic is not None
                and outbox.size < self.limits.max_outbox_size
                and self.closing.sent is None
                and not self.send_ended
                and self.sender is None
            ):
                # As append() does, without its call and that of the outbox: nearly every message takes this way.
                outbox.frames.append(frame)
                outbox.size += size
                if opcode == OPCODE_TEXT:
                    traffic.texts_sent += 1
                    traffic.text_bytes_sent += len(payload)
                else:
                    traffic.binaries_sent += 1
                    traffic.binary_bytes_sent += len(payload)
                if frame[0] & RSV1:
                    traffic.encoded_from += len(payload)
                    traffic.encoded_to += payload_size(frame)
                usual = True
                told, self.dirty = self.dirty, True
                lock.release()
                if not told:
                    self.engine.mark_dirty(self)
            else:
                lock.release()
        except BaseException:  # KeyboardInterrupt, say: what a signal handler raises may come in at any call
            if self.engine.holds(lock):
                lock.release()
            self.engine.mark_dirty(self)
            raise
        if not usual:
            self._send_unusually(frame, opcode, len(payload), timeout)

    def _send_unusually(self, frame: bytes, opcode: int, size: int, timeout: float | None) -> None:
        """Send a frame where there is no outbox yet, no room, or something else to be seen to."""
        with self.lock:
            roomy = self.outbox is None or self.outbox.size < self.limits.max_outbox_size
            simple = roomy and self.may_append and self.sender is None
            dirty = simple and self.append(frame, opcode, True, size)
        if dirty:
            self.engine.mark_dirty(self)
        elif not simple:
            with self.take_sender() as sender:
                sender.put(frame, opcode, True, size, timeout=timeout)

    def send_fragments(self, opcode: int, parts: Iterator[bytes], timeout: float | None = None) -> None:
        """Send a message whose parts are made while it is sent. Other messages wait for its end; control frames don't.

        :param timeout: how long to wait for room for a part; see :meth:`send_message`.
        :raises ConnectionClosed: see :meth:`send_message`.
        :raises Exception: whatever ``parts`` raises: the connection is then closed with 1011.
        """
        with self.take_sender() as sender:
            sender.send_fragments(opcode, parts, timeout)

    def send_control(self, frame: bytes, timeout: float | None = None) -> None:
        """Send a Ping or a Pong for the application; it may overtake messages. Waits like :meth:`send_message`."""
        with self.take_sender() as sender:
            sender.put(frame, frame[0] & 0x0F, False, 0, own=True, timeout=timeout)

    def close(self, message: CloseControlMessage) -> None:
        """Send a Close after all that was sent before, if none was sent yet. Never waits."""
        if self.engine.holds(self.lock):
            self.engine.ask(lambda: self.close(message))
            return
        with self.lock:
            if self.send_ended or not self.closing.send(message):
                return
            self.needs_update = True
            sender = self.sender
            if sender is not None and sender.fragmenting:
                sender.close = message
            else:
                self.append_close(message)
            if sender is not None:
                sender.tell_waiting()
            self.dirty = True
        self.engine.mark_dirty(self)

    @property
    def buffered(self) -> int:
        """How many bytes wait to be written."""
        outbox, sender = self.outbox, self.sender
        size = 0 if outbox is None else outbox.size
        return size if sender is None else size + sender.deferred_size

    @property
    def send_timeout(self) -> float:
        """How long, in seconds, a send waits at most."""
        return self.limits.send_timeout

    def append(self, frame: bytes, opcode: int, whole: bool, size: int) -> bool:
        """Put a frame into the outbox, and count it; tell whether the engine has to be told. The lock is held.

        :param opcode: of the message that it is, or is a part of.
        :param whole: it is, or it ends, a message.
        :param size: of its payload before a codec had it, in bytes.
        """
        outbox, traffic = self.outbox, self.traffic
        if outbox is None:
            outbox = self.outbox = Outbox()
        if traffic is None:
            traffic = self.traffic = Traffic()
        outbox.append(frame)
        if opcode == OPCODE_TEXT:
            traffic.texts_sent += whole
            traffic.text_bytes_sent += size
        elif opcode == OPCODE_BINARY:
            traffic.binaries_sent += whole
            traffic.binary_bytes_sent += size
        elif opcode == OPCODE_PING:
            traffic.pings_sent += 1
        elif opcode == OPCODE_PONG:
            traffic.pongs_sent += 1
        else:
            traffic.closes_sent += 1
        # Of a message in fragments, the first one says for all that they are encoded.
        if frame[0] & RSV1 or (not frame[0] & 0x0F and self.stream.codec is not None):
            traffic.encoded_from += size
            traffic.encoded_to += payload_size(frame)
        if self.dirty:
            return False
        self.dirty = True
        return True

    def append_message(self, opcode: int, payload: bytes) -> None:
        """Put a whole message into the outbox, however full that is.

        :raises ConnectionClosed: if the connection is closing or closed, possibly.
        """
        sender = self.sender
        if sender is not None and sender.ordered:
            sender.append_message(opcode, payload)
            return
        frame = self.stream.encode_message(opcode, payload)
        with self.lock:
            if not self.may_append:
                return
            if self.sender is None:
                dirty = self.append(frame, opcode, True, len(payload))
            else:
                dirty = self.sender.append(frame, opcode, True, len(payload))
        if dirty:
            self.engine.mark_dirty(self)

    def append_close(self, message: CloseControlMessage) -> None:
        """Put a Close into the outbox. The lock is held, and :attr:`closing` has allowed it."""
        self.append(self.stream.encode(FIN | OPCODE_CLOSE, message.data), OPCODE_CLOSE, True, 0)

    def take_sender(self) -> Sender:
        """Return what sends where more is needed than to append to the outbox: to be used in a ``with`` statement, in
        which it stays the connection's.
        """
        with self.lock:
            sender = self.sender = self.sender or Sender(self)
            sender.users += 1
        return sender

    @property
    def may_append(self) -> bool:
        """Whether messages may be put into the outbox: until a Close is, and until the connection is given up."""
        return self.closing.sent is None and not self.send_ended

    def offer(self, frame: bytes, opcode: int, size: int, policy: OverflowPolicy, key: Hashable = None) -> bool:
        """Send a broadcast if there is room, without ever waiting; return whether it was accepted.

        :param frame: a whole message, as this connection's stream would encode it.
        :param size: of its payload before a codec had it, in bytes.
        :param policy: what to do if there is no room.
        :param key: of the messages that find no room under ``latest``, the newest of each key is kept.
        """
        if self.engine.holds(self.lock):
            self.engine.ask(lambda: self.offer(frame, opcode, size, policy, key))
            return True
        if self.outbox_full:
            self.engine.make_way(self)  # who broadcasts much at once may keep from writing who would
        with self.lock:
            if self.closing.sent is not None or self.send_ended:
                return False
            full = self.buffered >= self.limits.max_outbox_size
            if not full:
                accepted = True
                if self.sender is None:
                    dirty = self.append(frame, opcode, True, size)
                else:
                    self.sender.supersede(key)
                    dirty = self.sender.append(frame, opcode, True, size)
            else:
                told = self.dirty
                accepted = OVERFLOW[policy](self, (frame, opcode, size), key)
                dirty = self.dirty and not told  # a policy may append, or give up
        if full:
            self.engine.count_limit(f"overflow_{policy}")
        if dirty:
            self.engine.mark_dirty(self)
        return accepted

    def offer_in_order(
        self, opcode: int, payload: bytes, frame: bytes, policy: OverflowPolicy, key: Hashable = None
    ) -> bool:
        """Send a broadcast that this connection's codec has to encode for itself; see :meth:`offer`.

        :param frame: the message as it is without a codec, for when there is no room now.
        """
        sender = self.sender
        if sender is None or not sender.ordered:
            return self.offer(frame, opcode, len(payload), policy, key)
        if self.engine.holds(self.lock) or self.engine.holds(sender.encoding):
            self.engine.ask(lambda: self.offer_in_order(opcode, payload, frame, policy, key))
            return True
        accepted = sender.offer_in_order(opcode, payload, key)
        return self.offer(frame, opcode, len(payload), policy, key) if accepted is None else accepted

    def send_control_now(self, opcode: int, payload: bytes) -> None:
        """Put a Ping or a Pong of the engine's own into the outbox, however full that is. For the thread that polls,
        which writes it in the next cycle.
        """
        frame = self.stream.encode(FIN | opcode, payload)
        with self.lock:
            if self.may_append or (self.sender is not None and self.sender.may_finish_fragments):
                dirty = self.append(frame, opcode, True, 0)
            else:
                dirty = False
        if dirty:
            self.engine.mark_dirty(self)

    def give_up(self, message: CloseControlMessage) -> None:
        """Throw away what waits, and send a Close instead, behind what is already half written."""
        with self.lock:
            self.give_up_locked(message)

    def give_up_locked(self, message: CloseControlMessage) -> None:
        """See :meth:`give_up`. The lock is held."""
        if self.send_ended:
            return
        self.send_ended = self.needs_update = self.dirty = True
        self.closing.send(message)
        last = self.closing.sent or message
        if self.outbox is None:
            self.outbox = Outbox()
        self.outbox.give_up(self.stream.encode(FIN | OPCODE_CLOSE, last.data))
        if self.traffic is None:
            self.traffic = Traffic()
        self.traffic.closes_sent = 1
        if self.sender is not None:
            self.sender.end()

    @property
    def stalled(self) -> bool:
        """Whether callbacks have to wait until the peer has read something."""
        outbox = self.outbox
        if outbox is None or (outbox.size < self.limits.max_outbox_size and self.sender is None):
            return False
        return not self.send_ended and self.buffered >= self.limits.max_outbox_size

    # --- writing: the thread that polls -------------------------------------------------------------------------------

    @property
    def outbox_full(self) -> bool:
        """Whether so much waits to be written that nothing is read."""
        return self.outbox is not None and self.buffered >= self.limits.max_outbox_size

    @property
    def sent_all(self) -> bool:
        """Whether nothing is left to be written, and nothing more will be."""
        return self.send_ended and (self.outbox is None or self.outbox.empty) and not self.transport.blocked

    def take_output(self) -> bytes | memoryview | None:
        """Return what is to be written, as one piece, None for nothing; :meth:`output_taken` or :meth:`output_left`
        must follow before the next.
        """
        lock = self.lock
        lock.acquire()
        try:
            self.dirty = False
            output = None if self.outbox is None else self.outbox.take()
        finally:
            lock.release()
        return b"" if output is None and self.transport.blocked else output

    def output_taken(self, size: int) -> bool:
        """All of the ``size`` bytes of :meth:`take_output` were written. Tell whether there is more to write."""
        outbox, traffic = self.outbox, self.traffic
        if outbox is None or traffic is None:
            return False
        traffic.bytes_sent += size
        if self.sender is None:
            return outbox.taken()  # which needs no lock: it changes nothing that others do
        with self.lock:
            outbox.taken()
            self.sender.offer_room()
            return outbox.waiting

    def output_left(self, count: int) -> None:
        """Only ``count`` bytes of :meth:`take_output` were written."""
        outbox, traffic = self.outbox, self.traffic
        if outbox is None or traffic is None:
            return
        traffic.bytes_sent += count
        with self.lock:
            outbox.left(count)
            if self.sender is not None:
                self.sender.offer_room()

    def discard_output(self) -> None:
        """Throw the outbox away: there is nobody to write to. Senders that wait are told."""
        with self.lock:
            self.send_ended = self.needs_update = True
            if self.outbox is not None:
                self.outbox.clear()
            if self.sender is not None:
                self.sender.end()

    def shrink(self) -> None:
        """Give back what an idle connection does not need."""
        with self.lock:
            if self.outbox is not None and self.outbox.empty:
                self.outbox = None
            if self.sender is not None and self.sender.idle:
                self.sender = None
