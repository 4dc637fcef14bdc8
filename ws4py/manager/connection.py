"""One connection under a manager: its inbox, its callbacks, and what the manager keeps about it.

Three kinds of threads meet here. Any thread sends and closes: that half is :class:`~ws4py.manager.outbox.Outbox`. A
worker runs the callbacks, one worker at a time. The manager's thread reads, writes and ends the connection.
"""

from __future__ import annotations

import logging
import math
import threading
from typing import TYPE_CHECKING, Any, Final

from ws4py.deadline import MessageDeadline
from ws4py.exc import ConnectionClosed
from ws4py.framing import OPCODE_BINARY
from ws4py.manager.limits import Limits
from ws4py.manager.outbox import SENDING, SENDING_ENDED, Outbox, Owner
from ws4py.manager.statistics import WorkerCounters
from ws4py.manager.transport import Transport
from ws4py.messaging import CloseCode, CloseControlMessage, Message

if TYPE_CHECKING:
    from ws4py.websocket import WebSocket

__all__ = ["ENDED", "OPENED", "Connection", "Phase"]

logger = logging.getLogger("ws4py")


class _Event:
    """Something other than a message that an inbox holds."""

    __slots__ = ("opcode",)

    def __init__(self) -> None:
        self.opcode = 0x10  # out of the range of the protocol's own


OPENED: Final = _Event()
ENDED: Final = _Event()


class Phase:
    """How far a connection has come, as the manager's thread sees it."""

    NEW: Final = 0  # added, and not yet watched
    OPEN: Final = 1
    CLOSING: Final = 2  # our Close is on its way; the peer's is awaited
    ENDED: Final = 3  # nothing more is read; what is left is to be written, and closed() to be called
    LINGERING: Final = 4  # all is written and the peer has been told; it is to close its side
    SHUT: Final = 5  # both directions are ended; the descriptor is kept until closed() has returned


class Connection(Outbox):
    """The manager's record of one websocket.

    :param websocket: whose callbacks are run.
    :param transport: of its socket, non-blocking.
    :param fd: of its socket.
    :param manager: that owns the transport.
    :param limits: of this connection.
    """

    __slots__ = (
        "_failed",
        "_inbox",
        "_inbox_size",
        "_scheduled",
        "_worker",
        "active_at",
        "address",
        "binaries_received",
        "binary_bytes_received",
        "bytes_received",
        "deadline",
        "finished",
        "finishing",
        "id",
        "interest",
        "message_deadline",
        "messages_begun",
        "opened_at",
        "path",
        "phase",
        "ping_bytes",
        "ping_payload",
        "ping_sent_at",
        "queued_at",
        "rate_count",
        "rate_window",
        "remote",
        "round_trip",
        "starved",
        "text_bytes_received",
        "texts_received",
        "timer_slot",
    )

    def __init__(self, websocket: WebSocket, transport: Transport, fd: int, manager: Owner, limits: Limits) -> None:
        super().__init__(websocket, transport, fd, manager, limits)
        # The inbox: what waits for a worker.
        self._inbox: list[Any] | None = [OPENED]
        self._inbox_size = 0
        self._scheduled = False  # on the run queue, or in a turn
        self._worker: WorkerCounters | None = None  # of the worker that runs the turn
        self.starved = False  # reading has stopped because the inbox is full
        self._failed = False  # a handler raised, or the application gave the connection up: messages are passed over
        self.finishing = False  # closed() is due or running
        self.finished = False  # closed() has returned
        self.queued_at = 0.0
        # What belongs to the manager's thread alone.
        self.phase = Phase.NEW
        self.interest = 0
        self.deadline = math.inf  # of what the phase waits for: the next Ping, a Pong, a Close
        self.message_deadline: MessageDeadline | None = None  # of the message that has begun
        self.messages_begun = 0  # of the stream, when that was set
        self.timer_slot = -1
        self.ping_payload: bytes | None = None
        self.ping_sent_at = 0.0
        self.ping_bytes = 0  # how many had come when its answer was last waited for
        self.round_trip: float | None = None
        self.rate_window = 0
        self.rate_count = 0
        self.address: str | None = None
        self.opened_at = 0.0
        self.texts_received = 0
        self.text_bytes_received = 0
        self.binaries_received = 0
        self.binary_bytes_received = 0
        self.bytes_received = 0
        self.active_at = 0.0  # when a message last came or went
        # Who it is, for statistics and logs.
        self.id = 0
        self.remote = ""
        self.path = ""

    # --- any thread ---------------------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """Let the manager drop the socket; closed() is called in its turn."""
        with self._lock:
            self._failed = True
        self._manager.drop(self)

    @property
    def in_turn(self) -> bool:
        """Whether callbacks are running, or about to."""
        return self._scheduled

    def wait_for_turn(self, timeout: float) -> None:
        """Wait until no callback runs, or is about to, for ``timeout`` seconds at most; but not in a callback of its
        own.
        """
        with self._lock:
            worker = self._worker
            if self._scheduled and not (worker is not None and worker.thread == threading.get_ident()):
                room = self._room = self._room or self._make_room()
                room.wait_for(lambda: not self._scheduled, timeout)

    # --- callbacks: a worker ------------------------------------------------------------------------------------------

    def run_turn(self, counters: WorkerCounters) -> bool:
        """Run the callbacks that the inbox asks for, in order; tell whether more came meanwhile. See
        :class:`workers.Job`.
        """
        limit = self.limits.max_outbox_size
        lock = self._lock
        lock.acquire()
        try:
            items = self._inbox
            if items is None or (self._outbox_size >= limit and self._stalled()):
                self._end_turn()
                self.unsettled = True
                return False
            self._worker = counters
            self._inbox = None
            self._inbox_size = 0
        finally:
            lock.release()
        if self.starved:
            self._manager.attend(self)
        websocket = self.websocket
        for item in items:
            if self._outbox_size >= limit and item is not items[0] and self._sending != SENDING_ENDED:
                with self._lock:
                    self._inbox = items[items.index(item) :] + (self._inbox or [])
                    self._inbox_size = sum(len(item.data) for item in self._inbox if isinstance(item, Message))
                break
            if item.opcode <= OPCODE_BINARY:
                if not self._failed:
                    counters.messages += 1
                    try:
                        websocket.received_message(item)
                    except BaseException as error:  # noqa: BLE001 - a handler must not end a thread of ours
                        self._raised(error, counters)
            else:
                self._handle_other(item, counters)
        lock = self._lock  # another one, if a callback has forked
        lock.acquire()
        try:
            self._worker = None
            if self._inbox is None:
                self._scheduled = False
                if self._room is not None:
                    self._room.notify_all()
            elif self._stalled():
                self._end_turn()
                self.unsettled = True
            else:
                return True
        finally:
            lock.release()
        return False

    def _end_turn(self) -> None:
        """Let those go on who wait for the end of the turn. The lock is held."""
        self._scheduled = False
        if self._room is not None:
            self._room.notify_all()

    def _handle_other(self, item: Any, counters: WorkerCounters) -> None:
        """Run the callback for what is not a message."""
        try:
            if item is OPENED:
                self.websocket.opened()
            elif item is ENDED:
                self._finish()
            elif not self._failed:
                self.websocket.ponged(item)
        except BaseException as error:  # noqa: BLE001 - see run_turn()
            self._raised(error, counters)

    def _raised(self, error: BaseException, counters: WorkerCounters) -> None:
        """A callback has raised: that ends the connection, unless it was only told that it is ended."""
        if isinstance(error, ConnectionClosed) and self._sending != SENDING:
            logger.debug("A handler of %s met a closed connection", self)
            return
        counters.errors += 1
        logger.error("A handler of %s raised", self, exc_info=error)
        if not self.finishing:
            self._failed = True
            self.close(CloseControlMessage(CloseCode.INTERNAL_ERROR))
        try:
            self.websocket.unhandled_error(error)
        except BaseException as another:
            logger.error("unhandled_error of %s raised", self, exc_info=another)
            self._pass_on(another)
        self._pass_on(error)

    def _pass_on(self, error: BaseException) -> None:
        """Let an exception of a callback go on to whom it is meant for. On a thread of ours there is nobody."""

    def fail(self, error: BaseException) -> None:
        """A turn has raised, which is none of the callbacks' doing: have the connection dropped.

        Called by who ran the turn.
        """
        logger.error("%s is dropped: its turn raised", self, exc_info=error)
        with self._lock:
            self._failed = True
            self._worker = None
            self._end_turn()
        self._manager.fault(self)

    def _finish(self) -> None:
        """Answer the peer's Close if that is still to be done, and call closed()."""
        if self.reply_to_close():
            self._manager.attend(self)  # closed() may take its time
        self.finishing = True
        try:
            self.websocket.terminate()
        finally:
            self.finished = True
            self._manager.attend(self)

    # --- reading: the manager's thread --------------------------------------------------------------------------------

    def deliver(self, items: list[Any], size: int) -> bool:
        """Put items into the inbox; tell whether the connection is now to be put on the run queue.

        :param size: bytes of payload in them.
        """
        limits = self.limits
        lock = self._lock
        lock.acquire()
        try:
            if self._inbox is None:
                self._inbox = items
            else:
                self._inbox += items
            self._inbox_size += size
            if len(self._inbox) >= limits.max_inbox_messages or self._inbox_size >= limits.max_inbox_size:
                self.starved = self.unsettled = True
            return not self._scheduled and self._schedule()
        finally:
            lock.release()

    @property
    def inbox_room(self) -> tuple[int, int]:
        """How many messages, and how many bytes of them, may be decoded before the inbox is looked at again. At least
        one of each: the inbox was not full.
        """
        limits = self.limits
        inbox = self._inbox
        waiting = 0 if inbox is None else len(inbox)
        return max(1, limits.max_inbox_messages - waiting), max(1, limits.max_inbox_size - self.inbox_size)

    def count_unfinished(self) -> None:
        """Let the inbox be full if it is with what has come of a message that has not ended: but not of that alone."""
        with self._lock:
            if self._inbox is not None and self.inbox_size >= self.limits.max_inbox_size:
                self.starved = self.unsettled = True

    def _schedule(self) -> bool:
        if self._scheduled or self._inbox is None:
            return False
        if self._stalled():
            self.unsettled = True
            return False
        self._scheduled = True
        return True

    def schedule(self) -> bool:
        """Tell whether the connection has something to do and is now to be put on the run queue."""
        with self._lock:
            return self._schedule()

    def refresh_starved(self) -> bool:
        """Look again whether the inbox is too full to read on."""
        with self._lock:
            if self._inbox is None:
                self.starved = False
            return self.starved

    @property
    def idle(self) -> bool:
        """Whether no message waits for, or is with, a worker."""
        return not self._scheduled and self._inbox is None

    @property
    def messages_received(self) -> int:
        """How many data messages have come."""
        return self.texts_received + self.binaries_received

    @property
    def inbox_size(self) -> int:
        """How many bytes the messages have that wait for a worker, and what has come of one that has not ended."""
        return self._inbox_size + self.stream.unfinished_size

    @property
    def inbox_length(self) -> int:
        """How many items wait for a worker."""
        inbox = self._inbox
        return 0 if inbox is None else len(inbox)

    def abandon(self) -> None:
        """Send nothing more, and call no callback that no worker has been asked for."""
        self.discard_output()
        with self._lock:
            if not self._scheduled:
                self._inbox = None
