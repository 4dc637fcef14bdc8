"""One websocket under a manager: its callbacks, and what the manager knows of it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ws4py.around import Surroundings
from ws4py.closing import APPLICATION_FAILED
from ws4py.engine import END, OPENED, Connection
from ws4py.engine.counters import WorkerCounters
from ws4py.exc import ConnectionClosed
from ws4py.framing import OPCODE_BINARY
from ws4py.logs import Named
from ws4py.manager.topics import Topic, Topics
from ws4py.websocket import WebSocket

__all__ = ["Bulkhead", "Member"]

logger = logging.getLogger("ws4py")


class Bulkhead:
    """Lets the callbacks of one class of websockets take a part of the workers only.

    :param limit: how many may run at once.
    """

    __slots__ = ("__weakref__", "_free", "_lock", "_waiting")

    def __init__(self, limit: int) -> None:
        # Over both: who gives a place back must see who waits, and the other way round.
        self._lock = threading.Lock()
        self._free = limit  # how many places nobody has; below 0 if some have come back
        self._waiting: deque[Member] = deque()

    def enter(self, member: Member) -> bool:
        """Take a place; return False if there is none, and :meth:`leave` will return the member later."""
        with self._lock:
            if self._free <= 0:
                self._waiting.append(member)
                return False
            self._free -= 1
            return True

    def leave(self) -> Member | None:
        """Give a place back; return a member that waits for one, which is to be put on the run queue."""
        with self._lock:
            self._free += 1
            return self._waiting.popleft() if self._waiting else None

    def come_back(self) -> None:
        """Have a place again that was given back for a while, whether there is one or not: a callback goes on."""
        with self._lock:
            self._free -= 1


class Member(Named):
    """A websocket under a manager.

    A worker runs its callbacks, one worker at a time: :meth:`run_turn`.

    :param websocket: whose callbacks are run.
    :param number: counted from 1 in each manager.
    :param address: of the peer, or what a proxy said it is; "" if that is unknown.
    :param path: of the request that it came from.
    :param topics: of the manager.
    :param around: what calls the callbacks; None if nothing is around them.
    """

    __slots__ = (
        "abandoned",
        "address",
        "around",
        "bulkhead",
        "connection",
        "counted_address",
        "failed",
        "finished",
        "finishing",
        "id",
        "path",
        "queued_at",
        "subscriptions",
        "topics",
        "websocket",
    )

    connection: Connection

    def __init__(
        self,
        websocket: WebSocket,
        number: int,
        address: str,
        path: str,
        topics: Topics,
        around: Surroundings | None = None,
    ) -> None:
        self.websocket = websocket
        self.id = number
        self.address = address
        self.path = path
        self.topics = topics
        self.subscriptions: list[Topic] | tuple[Topic, ...] | None = None
        self.around = around
        self.counted_address: str | None = None  # for max_connections_per_ip
        self.bulkhead: Bulkhead | None = None
        self.failed = False  # a handler raised, or the application gave the connection up: messages are passed over
        self.abandoned = False  # the application has it back, open; or this is a forked process
        self.finishing = False  # closed() is due or running
        self.finished = False  # closed() has returned
        self.queued_at = 0.0

    @property
    def connected(self) -> bool:
        """Whether the engine has it already."""
        return hasattr(self, "connection")

    # --- for the engine -----------------------------------------------------------------------------------------------

    @property
    def ping_interval(self) -> float | None:
        """After how many seconds a Ping is due; None for never."""
        frequency = self.websocket.heartbeat_freq
        return self.connection.limits.ping_interval if frequency is None else frequency or None

    @property
    def wants_pongs(self) -> bool:
        """Whether the application looks at Pongs."""
        return type(self.websocket).ponged is not WebSocket.ponged

    def take_early(self) -> bytes:
        """Return what was read with the handshake, once."""
        early, self.websocket.buf = self.websocket.buf, b""
        return bytes(early)

    # --- callbacks: a worker ------------------------------------------------------------------------------------------

    def run_turn(self, counters: WorkerCounters) -> bool:
        """Run the callbacks that are due, in order; tell whether there are more. May block. Does not raise."""
        connection = self.connection
        items = connection.take()
        if items is None:
            return connection.rest()
        websocket, limit = self.websocket, connection.limits.max_outbox_size
        around, first = self.around, items[0]
        for item in items:
            if item is not first:
                outbox = connection.outbox
                if outbox is not None and outbox.size >= limit and connection.stalled:
                    connection.put_back(items[items.index(item) :])
                    break
            if item.opcode <= OPCODE_BINARY:
                if not self.failed:
                    counters.messages += 1
                    try:
                        if around is None:
                            websocket.received_message(item)
                        else:
                            around.call(websocket, websocket.received_message, item)
                    except BaseException as error:  # noqa: BLE001 - a handler must not end a thread of ours
                        self._raised(error, counters)
            elif item is not END:
                self._handle_other(item, counters)
            elif not self.abandoned:
                self._finish(counters)
        return connection.rest()

    def _handle_other(self, item: Any, counters: WorkerCounters) -> None:
        """Run the callback for what is neither a message nor the end."""
        try:
            if item is OPENED:
                self._call(self.websocket.opened)
            elif not self.failed:
                self._call(self.websocket.ponged, item)
        except BaseException as error:  # noqa: BLE001 - a handler must not end a thread of ours
            self._raised(error, counters)

    def _call(self, callback: Callable[..., object], *arguments: Any) -> None:
        if self.around is None:
            callback(*arguments)
        else:
            self.around.call(self.websocket, callback, *arguments)

    def _finish(self, counters: WorkerCounters) -> None:
        """Answer the peer's Close if that is still to be done, and call closed()."""
        connection = self.connection
        try:
            connection.reply_to_close()  # closed() may take its time
            self.finishing = True
            try:
                self._call(self.websocket.terminate)
            finally:
                if self.around is not None and self.websocket.close_code is None:
                    self.websocket.terminate()  # what is around it has raised before closed() was called
        except BaseException as error:  # noqa: BLE001 - a handler must not end a thread of ours
            self._raised(error, counters)
        finally:
            self.finished = True
            connection.engine.mark_dirty(connection)

    def _raised(self, error: BaseException, counters: WorkerCounters) -> None:
        """A callback has raised: that ends the connection, unless it was only told that it is ended."""
        callers = self.connection.engine.callers
        if callers is not None and callers.is_kill(error):
            self.connection.terminate()
            return
        connection = self.connection
        if isinstance(error, ConnectionClosed) and (connection.read_ended or not connection.may_append):
            logger.debug("A handler of %s met a closed connection", self)
            return
        counters.errors += 1
        logger.error("A handler of %s raised", self, exc_info=error)
        if not self.finishing and not self.abandoned:
            self.failed = True
            self.connection.close(APPLICATION_FAILED)
        try:
            self._call(self.websocket.unhandled_error, error)
        except BaseException as another:
            logger.error("unhandled_error of %s raised", self, exc_info=another)
            self._pass_on(another)
        self._pass_on(error)

    def _pass_on(self, error: BaseException) -> None:
        """Let an exception of a callback go on to whom it is meant for."""
        callers = self.connection.engine.callers
        if callers is not None:
            callers.pass_on(self, error)

    def fail(self, error: BaseException) -> None:
        """A turn has raised, which is none of the callbacks' doing: have the connection dropped.

        Called by who ran the turn.
        """
        logger.error("%s is dropped: its turn raised", self, exc_info=error)
        self.failed = True
        self.connection.rest()
        self.connection.engine.fault(self.connection)
