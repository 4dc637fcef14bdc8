"""One connection of the pure engine: what was received and waits for callbacks, what was sent and waits to be written.

Three kinds of threads meet here. Any thread sends and closes. A worker takes what the inbox holds, one worker at a
time. The thread that polls reads, writes and ends the connection. What they share is guarded by the connection's lock,
which is held for a few assignments only: never over a callback, a system call or a wait.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

from ws4py.deadline import MessageDeadline
from ws4py.engine.core import Core
from ws4py.engine.host import NOBODY, Owner
from ws4py.engine.inbox import OPENED, Item
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
from ws4py.keepalive import Keepalive
from ws4py.limits import Limits, OverflowPolicy
from ws4py.messaging import CloseControlMessage, Message
from ws4py.streaming import Stream

__all__ = ["Connection"]


class Connection:
    """One connection of an engine.

    :param engine: whose cycles read and write it.
    :param owner: whom it belongs to.
    :param stream: the protocol's state.
    :param limits: of this connection.
    :ivar transport: of its socket, non-blocking.
    :ivar fd: of its socket; -1 until the engine has it.
    """

    __slots__ = (
        "active_at",
        "closing",
        "deadline",
        "dirty",
        "engine",
        "eof_sent",
        "fd",
        "heard_at",
        "inbox",
        "inbox_size",
        "interest",
        "keepalive",
        "limits",
        "lock",
        "message_deadline",
        "messages_begun",
        "needs_update",
        "on_rest",
        "opened_at",
        "outbox",
        "owner",
        "rate",
        "read_ended",
        "reading_paused",
        "released",
        "scheduled",
        "send_ended",
        "sender",
        "stream",
        "timer_slot",
        "traffic",
        "transport",
        "watched",
    )

    transport: Transport

    def __init__(self, engine: Core, owner: Owner, stream: Stream, limits: Limits) -> None:
        self.engine = engine
        self.owner = owner
        self.fd = -1
        self.stream = stream
        self.limits = limits
        self.closing = stream.closing_handshake
        self.lock = engine.make_lock()
        # Shared, under the lock.
        self.inbox: list[Item] | None = [OPENED]
        self.inbox_size = 0  # bytes of payload in it
        self.scheduled = False  # on the run queue, or with a worker
        self.on_rest: Callable[[], object] | None = None  # called once when no callback runs any more
        self.outbox: Outbox | None = None
        self.send_ended = False  # nothing more is put into the outbox
        self.dirty = False  # the engine was told to look
        self.needs_update = False  # the engine is to see to more than the outbox when something was written
        self.traffic: Traffic | None = None
        codec = stream.codec
        self.sender = Sender(self, engine.make_lock()) if codec is not None and codec.ordered else None
        # For the thread that polls.
        self.watched = False  # the engine has begun to read
        self.released = False  # the engine has nothing to do with it any more
        self.interest = 0  # what the poller watches for
        self.timer_slot = -1
        self.reading_paused = False  # the inbox is full
        self.read_ended = False  # nothing more is read: END is in the inbox, or was
        self.eof_sent = False  # all is written, and the peer was told that nothing more comes
        self.deadline = 0.0  # until when the closing handshake may take
        self.keepalive: Keepalive | None = None
        self.rate: tuple[int, int] | None = None  # a second of the clock, and how many frames have come in it
        self.opened_at = self.heard_at = self.active_at = engine.clock()  # the last two: when bytes, a message came
        self.message_deadline: MessageDeadline | None = None  # of the message that has begun
        self.messages_begun = 0  # of the stream, when that was set

    # --- sending: any thread ------------------------------------------------------------------------------------------

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
        lock.acquire()  # by hand where every message comes by: "with" takes more than twice the time
        try:
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
                if self.dirty:
                    return
                self.dirty = usual = True
            else:
                usual = False
        finally:
            lock.release()
        if usual:
            self.engine.mark_dirty(self)
        else:
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

    def terminate(self) -> None:
        """Have the socket dropped; messages that wait are passed over, and ``closed()`` is called in its turn."""
        self.owner.failed = True
        self.engine.drop(self)

    def close_by_application(self) -> None:
        """The application has closed the socket itself: it is dropped, and given back in its turn. Inside ``closed()``
        that is about to be done anyway, and the peer is to have the answer to its Close.
        """
        if not self.owner.finishing:
            self.engine.drop(self)

    @property
    def in_turn(self) -> bool:
        """Whether callbacks are running, or about to."""
        return self.scheduled

    @property
    def finishing(self) -> bool:
        """Whether ``closed()`` is due or running."""
        return self.owner.finishing

    @property
    def buffered(self) -> int:
        """How many bytes wait to be written."""
        outbox, sender = self.outbox, self.sender
        size = 0 if outbox is None else outbox.size
        return size if sender is None else size + sender.deferred_size

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
            if self.buffered < self.limits.max_outbox_size:
                accepted = True
                if self.sender is None:
                    dirty = self.append(frame, opcode, True, size)
                else:
                    dirty = self.sender.append(frame, opcode, True, size)
            else:
                self.engine.count_limit(f"overflow_{policy}")
                accepted = OVERFLOW[policy](self, (frame, opcode, size), key)
                dirty = self.send_ended
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
        accepted = sender.offer_in_order(opcode, payload)
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

    def reply_to_close(self) -> bool:
        """Send the Close that the end of reading calls for, if one is still to be sent; nothing is sent after it. Tell
        whether there is something to write.
        """
        with self.lock:
            reply = self.closing.reply()
            if not self.send_ended:
                sender = self.sender
                if sender is not None and sender.close is not None:
                    reply, sender.close = sender.close, None
                if reply is not None:
                    self.append_close(reply)
                self.send_ended = True
                if sender is not None:
                    sender.end()
            self.needs_update = True
            return self.outbox is not None and self.outbox.waiting

    # --- callbacks: a worker, one at a time ---------------------------------------------------------------------------

    def take(self) -> list[Item] | None:
        """Return what callbacks are to be run for, in order; None if nothing waits, or the peer has to read first.
        :meth:`rest` must follow, also after None.
        """
        lock = self.lock
        lock.acquire()
        try:
            items = self.inbox
            if items is None:
                return None
            outbox = self.outbox  # see _schedule()
            if outbox is not None and (outbox.size or self.sender is not None) and self.stalled:
                return None
            self.inbox = None
            self.inbox_size = 0
        finally:
            lock.release()
        if self.reading_paused:
            self.engine.mark_dirty(self)
        return items

    def put_back(self, items: list[Item]) -> None:
        """Put items that were taken back to the head of the inbox."""
        with self.lock:
            self.inbox = items + (self.inbox or [])
            self.inbox_size = sum(len(item.data) for item in self.inbox if isinstance(item, Message))

    def rest(self) -> bool:
        """Say that the callbacks for what was taken have returned; tell whether there is more to take."""
        if self.inbox is None:
            # Without the lock, in the usual case: whoever delivers fills the inbox before looking whether this is
            # scheduled; so after saying that it is not, look at the inbox once more.
            self.scheduled = False
            if self.inbox is None:
                if self.on_rest is not None:
                    self.on_rest()
                return False
        else:
            with self.lock:
                self.scheduled = False
        with self.lock:
            more = self._schedule()
        if not more and self.on_rest is not None and not self.scheduled:
            self.on_rest()
        return more

    @property
    def stalled(self) -> bool:
        """Whether callbacks have to wait until the peer has read something."""
        outbox = self.outbox
        if outbox is None or (outbox.size < self.limits.max_outbox_size and self.sender is None):
            return False
        return not self.send_ended and self.buffered >= self.limits.max_outbox_size

    # --- reading and writing: the thread that polls -------------------------------------------------------------------

    def deliver(self, items: list[Item], size: int) -> bool:
        """Put items into the inbox; tell whether the connection is now to be put on the run queue.

        :param size: bytes of payload in them.
        """
        limits = self.limits
        lock = self.lock
        lock.acquire()
        try:
            if self.inbox is None:
                self.inbox = items
            else:
                self.inbox += items
            self.inbox_size += size
            if len(self.inbox) >= limits.max_inbox_messages or self.inbox_size >= limits.max_inbox_size:
                self.reading_paused = self.needs_update = True
            return not self.scheduled and self._schedule()
        finally:
            lock.release()

    def _schedule(self) -> bool:
        if self.scheduled or self.inbox is None:
            return False
        outbox = self.outbox
        # Nearly always nothing waits: so it is not asked how much.
        if outbox is not None and (outbox.size or self.sender is not None) and self.stalled:
            self.needs_update = True
            return False
        self.scheduled = True
        return True

    def schedule(self) -> bool:
        """Tell whether there is something to take and the connection is now to be put on the run queue."""
        with self.lock:
            return self._schedule()

    def refresh_reading_paused(self) -> bool:
        """Look again whether the inbox is too full to read on."""
        with self.lock:
            if self.inbox is None:
                self.reading_paused = False
            return self.reading_paused

    @property
    def inbox_room(self) -> tuple[int, int]:
        """How many messages, and how many bytes of them, may be decoded before the inbox is looked at again. At least
        one of each: the inbox was not full.
        """
        limits, waiting = self.limits, self.inbox_length
        return max(1, limits.max_inbox_messages - waiting), max(1, limits.max_inbox_size - self.waiting_size)

    @property
    def waiting_size(self) -> int:
        """How many bytes the messages have that wait for a worker, and what has come of one that has not ended."""
        return self.inbox_size + self.stream.unfinished_size

    def count_unfinished(self) -> None:
        """Let the inbox be full if it is with what has come of a message that has not ended: but not of that alone."""
        with self.lock:
            if self.inbox is not None and self.waiting_size >= self.limits.max_inbox_size:
                self.reading_paused = self.needs_update = True

    @property
    def inbox_length(self) -> int:
        """How many items wait for a worker."""
        inbox = self.inbox
        return 0 if inbox is None else len(inbox)

    @property
    def idle(self) -> bool:
        """Whether no message waits for, or is with, a worker."""
        return not self.scheduled and self.inbox is None

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

    def abandon(self, abandoned: Callable[[], object]) -> None:
        """Send nothing more, and call no callback that no worker has been asked for.

        :param abandoned: is called when no callback runs; possibly twice.
        """
        self.discard_output()
        self.on_rest = abandoned  # which is looked at after saying that no callback runs
        with self.lock:
            if self.scheduled:
                return
            self.inbox = None
        abandoned()

    def part(self) -> None:
        """The engine has nothing to do with it any more: refer to nobody who refers to it, or each would keep the other
        until the garbage collector comes.
        """
        self.owner = NOBODY
        with self.lock:
            self.sender = None

    def counted(self) -> Traffic:
        """Return what it has counted. Any thread may call."""
        traffic, stream = self.traffic or Traffic(), self.stream
        if stream.codec is not None:
            traffic.decoded_from, traffic.decoded_to = stream.decoded_from, stream.decoded_to
        return traffic
