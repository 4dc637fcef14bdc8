"""The connection of a websocket that runs by itself: one socket, used from several threads or greenlets.

One thread, the runner, reads; any thread sends, closes and drops.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Final

from ws4py.backends.ports import InheritedPort, Port, make_port
from ws4py.closing import KEEPALIVE_TIMEOUT, MESSAGE_TIMEOUT
from ws4py.deadline import MessageDeadline, watch_message
from ws4py.engine.reading import TURN_FRAMES, TURN_SIZE
from ws4py.exc import ConnectionClosed
from ws4py.framing import OPCODE_PING
from ws4py.keepalive import Keepalive, Verdict
from ws4py.limits import Limits
from ws4py.messaging import CloseCode, CloseControlMessage, Message
from ws4py.rate import make_rate
from ws4py.streaming import Stream
from ws4py.writer import Writer

__all__ = ["BlockingConnection", "choose_port"]

logger = logging.getLogger("ws4py")

DEFAULTS: Final = Limits()

TURN_MESSAGES: Final = 64
"""How many messages are decoded at once."""

_connections: weakref.WeakSet[BlockingConnection] = weakref.WeakSet()


class BlockingConnection:
    """Reads and writes for one websocket that runs by itself. Times are in seconds.

    :param sock: connected, its handshakes done.
    :param stream: the protocol's state.
    :param limits: what :class:`ws4py.limits.Limits` names and is to be another than there. Of inboxes, outboxes and
        workers there are none here.
    :param clock: a monotonic clock.
    :param port: for the socket; what suits its type by default.
    :ivar keepalive: its state; None until somebody reads.
    :ivar opened: whether opened() has been called.
    :ivar failed: whether a handler has raised, so that messages are passed over until the end.
    :ivar finishing: whether reading has ended, so that closed() is due.
    :ivar pausing: tells whether the next messages are to be left for later, not decoded. None: the connection is not
        read by whoever asks for a message, and only then.
    """

    __slots__ = (
        "__weakref__",
        "_cancel",
        "_clock",
        "_close_deadline",
        "_close_timeout",
        "_heard_at",
        "_message_deadline",
        "_message_timeout",
        "_ping_interval",
        "_ping_timeout",
        "_port",
        "_rate",
        "_returned_at",
        "_runner",
        "_sock",
        "_stream",
        "_writer",
        "failed",
        "finishing",
        "keepalive",
        "opened",
        "pausing",
    )

    def __init__(
        self,
        sock: Any,
        stream: Stream,
        limits: Mapping[str, Any],
        *,
        clock: Callable[[], float] = time.monotonic,
        port: Port | None = None,
    ) -> None:
        own: Any = SimpleNamespace(**{**vars(DEFAULTS), **limits})
        self._close_timeout: float = own.close_timeout
        self._ping_interval: float | None = own.ping_interval
        self._ping_timeout: float | None = own.ping_timeout
        self._message_timeout: float | None = own.message_timeout
        self._rate = make_rate(own)
        self._sock = sock
        self._stream = stream
        self._clock = clock
        self._port = choose_port(sock) if port is None else port
        self._writer = Writer(self._port, stream, own.send_timeout, self._close_timeout, clock)
        self._close_deadline: float | None = None
        self._cancel: Callable[[], None] | None = None  # of the timer that drops the connection
        self._heard_at = clock()
        self._message_deadline: MessageDeadline | None = None  # of the message that has begun
        self._returned_at: float | None = None  # when the runner began to do something else than to read
        self._runner: object = None
        self.keepalive: Keepalive | None = None
        self.opened = False
        self.failed = False
        self.finishing = False
        self.pausing: Callable[[], bool] | None = None
        _connections.add(self)

    @property
    def alone(self) -> BlockingConnection:
        """Who reads and writes if no manager does: this."""
        return self

    # --- the runner ---------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether somebody reads this connection."""
        return self._runner is not None

    @property
    def mine(self) -> bool:
        """Whether the caller is the runner, or nobody is."""
        return self._runner is None or self._runner == self._port.current()

    def begin(self) -> None:
        """Make the caller the runner."""
        self._runner = self._port.current()
        self._heard_at = self._clock()
        self.keepalive = Keepalive(self._heard_at)
        self._port.begin()

    def end(self) -> None:
        """Read no more. Called by the runner, who calls closed() next."""
        self._writer.end()
        self.finishing = True
        self._cancel_drop()

    def _cancel_drop(self) -> None:
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()

    def repeat(self, seconds: float, function: Callable[[], bool]) -> Callable[[], None]:
        """Call a function at intervals, until it returns False, in a thread or greenlet; return how to stop that."""
        return self._port.repeat(seconds, function)

    def receive(self, size: int, timeout: float | None = None) -> bytes | None:
        """Wait for bytes of the peer, and return at most ``size``; b"" at the end. For the runner only.

        :param timeout: how long to wait at most; None waits until something is due.
        :returns: None if nothing has come, but something was due and has been done: call again.
        :raises OSError: if the connection is broken.
        """
        now = self._clock()
        if self._returned_at is not None:
            if self._message_deadline is not None:
                self._message_deadline.postpone(now - self._returned_at)
            self._returned_at = None
        if self._message_is_late(now):
            return self._give_up(MESSAGE_TIMEOUT)
        patience = self._patience(now)
        if timeout is not None:
            patience = timeout if patience is None else min(patience, timeout)
        data = self._port.receive(size, patience)
        if data is None:
            return self.act()
        if data:
            self._returned_at = self.heard()
        return data

    def heard(self) -> float:
        """The peer has sent something; return when. A Ping may be due all the same."""
        now = self._heard_at = self._clock()
        if self._close_deadline is None:
            self._keep_alive(now)
        return now

    def patience(self) -> float | None:
        """Return how many seconds from now :meth:`act` has nothing to do, if nothing is heard; None for ever."""
        now = self._clock()
        self._watch_message(now)
        return self._patience(now)

    def _patience(self, now: float) -> float | None:
        due = self._close_deadline
        if due is None:
            if self.keepalive is not None:
                due = self.keepalive.due(self._ping_interval, self._ping_timeout)
            message = self._message_deadline
            if message is not None:
                due = message.due if due is None else min(due, message.due)
        return None if due is None else max(0.0, due - now)

    def act(self) -> bytes | None:
        """Do what is due after a silence; return b"" if that was to give the connection up."""
        now = self._clock()
        if self._close_deadline is not None:
            if now < self._close_deadline:
                return None
            logger.debug("The peer has not answered the Close")
            self.drop()
            return b""
        if self._message_is_late(now):
            return self._give_up(MESSAGE_TIMEOUT)
        return self._keep_alive(now)

    def _keep_alive(self, now: float) -> bytes | None:
        """Send the Ping that is due, or give up a peer of whom nothing has come since; return b"" after that."""
        keepalive = self.keepalive
        if keepalive is None:
            return None
        verdict = keepalive.act(now, self._ping_interval, self._ping_timeout, self._heard_at)
        if verdict is Verdict.DEAD:
            return self._give_up(KEEPALIVE_TIMEOUT)
        if verdict is Verdict.PING and keepalive.payload is not None and self._writer.may_send:
            try:
                self._writer.send_soon(OPCODE_PING, keepalive.payload)
            except ConnectionClosed as error:
                logger.debug("A Ping could not be sent: %s", error)
        return None

    def _watch_message(self, now: float) -> MessageDeadline | None:
        """Return the deadline of the message that has begun, None if there is none."""
        before = self._message_deadline
        self._message_deadline = watch_message(self._stream, before, now, self._message_timeout)
        return self._message_deadline

    def _message_is_late(self, now: float) -> bool:
        message = self._watch_message(now)
        return message is not None and now >= message.due and message.is_late(now, self._stream.unfinished_size)

    def _give_up(self, close: CloseControlMessage) -> bytes:
        """Fail the connection, and wait for nothing more."""
        self._stream.error = close
        self._writer.reply(0.0)
        self.drop()
        return b""

    def take_in(self, stream: Stream, data: bytes) -> list[Message]:
        """Return a few of the messages that bytes of the peer complete, as far as the limits of a second allow.

        :param data: that have come; or nothing, to go on with what was left.
        """
        rate = self._rate
        if rate is not None:
            return rate.receive(stream, self._clock(), data, TURN_FRAMES, TURN_MESSAGES, TURN_SIZE)
        whole = stream.take_message(data)
        return stream.receive_some(data, TURN_FRAMES, TURN_MESSAGES, TURN_SIZE) if whole is None else [whole]

    def too_fast(self, stream: Stream) -> bool:
        """Tell whether more has come than the limits of a second allow: the connection is then given up."""
        excess = None if self._rate is None else self._rate.excess(stream)
        if excess is not None:
            self._writer.give_up(CloseControlMessage(CloseCode.POLICY_VIOLATION, excess.reason))
        return excess is not None

    def ponged(self, payload: bytes) -> bool:
        """Take in a Pong; return whether it answers a Ping of the connection's own, not of the application."""
        return self.keepalive is not None and self.keepalive.ponged(self._clock(), payload)

    # --- sending: any thread ------------------------------------------------------------------------------------------

    @property
    def may_send(self) -> bool:
        """Whether a message may be begun."""
        return self._writer.may_send

    @property
    def buffered(self) -> int:
        """How many bytes wait to be written, for the kernel has no room for them yet."""
        return self._writer.buffered

    @property
    def send_timeout(self) -> float:
        """How long a send waits at most."""
        return self._writer.send_timeout

    def send_message(self, opcode: int, payload: bytes, timeout: float | None = None) -> None:
        """See :meth:`ws4py.writer.Writer.send_message`."""
        self._writer.send_message(opcode, payload, timeout)

    def send_fragments(self, opcode: int, parts: Iterator[bytes], timeout: float | None = None) -> None:
        """See :meth:`ws4py.writer.Writer.send_fragments`."""
        try:
            self._writer.send_fragments(opcode, parts, timeout)
        finally:
            if self._stream.closing_handshake.sent is not None:  # the parts were not all to be had
                self._await_close()

    def send_control(self, frame: bytes, timeout: float | None = None) -> None:
        """See :meth:`ws4py.writer.Writer.send_control`."""
        self._writer.send_control(frame, timeout)

    def send_soon(self, opcode: int, payload: bytes) -> None:
        """See :meth:`ws4py.writer.Writer.send_soon`. For the runner."""
        self._writer.send_soon(opcode, payload)

    def close(self, message: CloseControlMessage) -> None:
        """Send a Close, if none was sent; the connection is dropped if the peer's does not come in ``close_timeout``
        seconds. See :meth:`ws4py.writer.Writer.close`.
        """
        if self._writer.close(message):
            self._await_close()

    def _await_close(self) -> None:
        """Give the peer its time for its Close."""
        if self._close_deadline is None and not self.finishing:
            self._close_deadline = self._clock() + self._close_timeout
            if self._runner is None or not self.mine:  # the runner may wait for a later time, or there may be none
                self._cancel = self._port.call_later(self._close_timeout, self.drop)
                if self.finishing:
                    self._cancel()

    def reply(self) -> None:
        """Answer the peer's Close, or what it did wrong; see :meth:`ws4py.writer.Writer.reply`. For the runner."""
        self._writer.reply()

    # --- the end: any thread ------------------------------------------------------------------------------------------

    @property
    def dropped(self) -> bool:
        """Whether the connection was given up by this side."""
        return self._writer.dropped

    def drop(self) -> None:
        """Send and read no more: the runner comes to the end, and closes the socket."""
        self._writer.drop()

    def terminate(self) -> None:
        """Drop the connection if somebody runs it, who will call closed(); else let the caller do so."""
        if self._runner is None:
            self.finishing = True
        elif not self.finishing:
            self.drop()

    def close_socket(self) -> None:
        """Close the socket, or have the runner do it: the descriptor must not become another's while it is waited
        for."""
        if self.finishing or self.mine:
            self._writer.end()
            self._cancel_drop()
            self._port.close()
        else:
            self.drop()

    # --- in a forked process ------------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Have free locks, and leave TLS alone: its keys and its count of records are the parent's."""
        if hasattr(self._sock, "pending"):
            self._port = InheritedPort(self._sock)
        self._writer.use(self._port)
        self._cancel = None


def choose_port(sock: Any) -> Port:
    """Return what suits a socket: of gevent, or another kind."""
    gevent_socket = sys.modules.get("gevent.socket")
    if gevent_socket is not None and isinstance(sock, gevent_socket.socket):
        from ws4py.backends.greenlets.port import GreenletPort

        return GreenletPort(sock)
    return make_port(sock)


def _after_fork_in_child() -> None:
    for connection in list(_connections):
        connection.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
