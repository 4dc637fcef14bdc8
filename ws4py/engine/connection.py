"""One connection of an engine: what it receives, which waits for callbacks, and how it ends.

What it sends, which waits to be written, is the half in :mod:`ws4py.engine.outgoing`.

Three kinds of threads meet here. Any thread sends and closes. A worker takes what the inbox holds, one worker at a
time. The thread that polls reads, writes and ends the connection. What they share is guarded by the connection's lock,
which is held for a few assignments only: never over a callback, a system call or a wait.
"""

from __future__ import annotations

from collections.abc import Callable

from ws4py.closing import CLOSED
from ws4py.deadline import MessageDeadline
from ws4py.engine.core import Core
from ws4py.engine.host import NOBODY, Owner
from ws4py.engine.inbox import END, OPENED, Item
from ws4py.engine.outgoing import NO_SLOTS, Outgoing
from ws4py.engine.traffic import Traffic
from ws4py.keepalive import Keepalive
from ws4py.limits import Limits
from ws4py.messaging import Message
from ws4py.rate import make_rate
from ws4py.streaming import Stream

__all__ = ["Connection", "PureConnection"]


class Connection(Outgoing):
    """One connection of an engine: what it sends, and here what it receives and how it ends.

    :param engine: whose cycles read and write it.
    :param owner: whom it belongs to.
    :param stream: the protocol's state.
    :param limits: of this connection.
    :ivar fd: of its socket; -1 until the engine has it.
    """

    __slots__ = NO_SLOTS

    alone = None
    """What runs a websocket without a manager: never this."""

    def __init__(self, engine: Core, owner: Owner, stream: Stream, limits: Limits) -> None:
        super().__init__(engine, stream, limits)
        self.owner = owner
        self.fd = -1
        # Shared, under the lock.
        self.inbox: list[Item] | None = [OPENED]
        self.inbox_size = 0  # bytes of payload in it
        self.scheduled = False  # on the run queue, or with a worker
        self.on_rest: Callable[[], object] | None = None  # called once when no callback runs any more
        # For the thread that polls.
        self.watched = False  # the engine has begun to read
        self.released = False  # the engine has nothing to do with it any more
        self.interest = 0  # what the poller watches for
        self.timer_slot = -1
        self.reading_paused = False  # the inbox is full
        self.read_ended = False  # nothing more is read: END is in the inbox, or was
        self.eof_sent = False  # all is written, and the peer was told that nothing more comes
        self.tcp_ended = False  # both directions are, and only the descriptor is left
        self.deadline = 0.0  # until when the closing handshake may take
        self.keepalive: Keepalive | None = None
        self.rate = make_rate(limits)
        self.opened_at = self.heard_at = self.active_at = engine.clock()  # the last two: when bytes, a message came
        self.message_deadline: MessageDeadline | None = None  # of the message that has begun

    # --- any thread ---------------------------------------------------------------------------------------------------

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

    # --- reading: the thread that polls -------------------------------------------------------------------------------

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

    # --- the end ------------------------------------------------------------------------------------------------------
    # Its way: end_reading() puts END into the inbox, and answers the peer's Close if no handler is still to answer its
    # messages. For END, Member._finish calls WebSocket.terminate, and that closed(); then it has the engine call
    # update(), which ends TCP when all is written, and gives the descriptor back when closed() has returned.

    def end_reading(self, lost: bool = False) -> None:
        """Nothing more comes of the peer: let the last callbacks run, and the answer to a Close be sent. For the thread
        that polls.

        :param lost: nothing more goes to it either: the socket is dropped, and what waits to be written with it.
        """
        if self.read_ended and not (lost and self.closing.state is not CLOSED):
            return
        engine = self.engine
        engine.mark_dirty(self)  # for update()
        if lost:
            self.watched = True
            self.discard_output()
            self.closing.lose()
            if self.read_ended:
                return
        idle = self.idle
        self.read_ended = True
        self.message_deadline = None
        self.stream.stop_reading()
        self.deadline = engine.clock() + self.limits.close_timeout
        engine.read_ended(self.owner)
        try:
            if idle:  # else the answers to the messages before the Close go first
                self.reply_to_close()
        finally:  # whatever else fails, closed() is owed
            if self.deliver_end():
                engine.ready.append(self.owner)

    def deliver_end(self) -> bool:
        """Put END into the inbox; tell whether the connection is now to be put on the run queue."""
        with self.lock:
            self.inbox = [*(self.inbox or ()), END]
            return self._schedule()

    def reply_to_close(self) -> None:
        """Send the Close that the end of reading calls for, if one is still to be sent; nothing is sent after it. A
        second call does nothing. Any thread may call.
        """
        with self.lock:
            self.needs_update = True
            if self.send_ended:
                return
            reply = self.closing.reply()
            sender = self.sender
            if sender is not None and sender.close is not None:
                reply, sender.close = sender.close, None
            if reply is not None:
                self.append_close(reply)
            self.send_ended = True
            if sender is not None:
                sender.end()
        self.engine.mark_dirty(self)

    def update(self, given_up: bool = False) -> None:
        """See what is to be done after something was written or the state has changed. For the thread that polls.

        :param given_up: ``closed()`` is waited for no longer.
        """
        if self.released:
            return
        self.needs_update = False
        engine, closing, transport = self.engine, self.closing, self.transport
        lifecycle = engine.lifecycle
        if closing.sent is not None and not self.deadline:
            self.deadline = engine.clock() + self.limits.close_timeout
        if self.read_ended and not self.eof_sent and closing.state is not CLOSED:
            self.needs_update = True  # until the last is written; before that is asked: another thread may write
            if self.sent_all:
                self.needs_update = False
                self.eof_sent = True
                transport.send_eof()
                if closing.ends_tcp(self.stream.always_mask):
                    closing.lose()
        if closing.state is not CLOSED:
            if self.deadline:
                lifecycle.reset_timer(self)
            if self.reading_paused:
                self.needs_update = self.refresh_reading_paused() or self.needs_update
        elif not self.tcp_ended:
            self.tcp_ended = True
            lifecycle.wheel.cancel(self)
            try:
                transport.shutdown()
            except BaseException:
                engine.mark_dirty(self)  # for what follows here
                raise
        if self.schedule():
            engine.ready.append(self.owner)
        engine.watch(self)
        if closing.state is not CLOSED or not (self.owner.finished or given_up):
            return
        self.released = True
        try:
            if engine.forget(self):  # else the application has closed it, and its number is another one's
                transport.close()
        finally:
            engine.released(self.owner, self)
            self.part()

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


class PureConnection(Connection):
    """A connection that is all Python."""

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
        "tcp_ended",
        "timer_slot",
        "traffic",
        "transport",
        "watched",
    )
