"""Reading and writing for a websocket that runs by itself: one socket, used from several threads or greenlets.

One thread, the runner, reads; any thread sends, closes and drops. Nobody holds a lock while the socket is waited for,
but for the one that keeps frames apart, which a sender holds for its frame; the runner never waits for it to answer a
Ping. What waits, waits with a deadline.
"""

from __future__ import annotations

import functools
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

from ws4py.deadline import MessageDeadline
from ws4py.exc import ConnectionClosed, SlowConsumer, WebSocketException
from ws4py.framing import FIN, OPCODE_PING, fragments
from ws4py.messaging import CloseCode, CloseControlMessage, Message
from ws4py.ports import BROKEN, InheritedPort, Port, make_port
from ws4py.streaming import Stream

__all__ = ["BlockingConnection"]

logger = logging.getLogger("ws4py")

SOON: Final = 0.001
"""For how many seconds at a time to wait for a lock that is held for a few steps only, before one looks whether that is
still so."""

LOOKS: Final = 50
"""How often one looks at most: a socket of another kind does not say that it waits."""

_connections: weakref.WeakSet[BlockingConnection] = weakref.WeakSet()


class BlockingConnection:
    """Reads and writes for one websocket that runs by itself. Times are in seconds.

    :param sock: connected, its handshakes done.
    :param stream: that encodes.
    :param send_timeout: how long a send may take, before the peer is given up as a slow consumer.
    :param close_timeout: how long the peer's Close may take after ours, before the connection is dropped.
    :param ping_interval: after how long a silence a Ping is sent; None sends none.
    :param ping_timeout: how long the silence may last after that, before the peer counts as dead; None waits for ever.
    :param message_timeout: how long a message may take to come, unless it comes faster than 1 KiB a second; None waits
        for ever.
    :param max_messages_per_second: how many may come, control frames included; see :meth:`take_in`. None for no limit.
    :param clock: a monotonic clock.
    :param port: for the socket; what suits its type by default.
    """

    __slots__ = (
        "__weakref__",
        "_cancel",
        "_clock",
        "_close_deadline",
        "_close_sent",
        "_close_waiting",
        "_fragmenting",
        "_heard_at",
        "_message_deadline",
        "_message_lock",
        "_messages_begun",
        "_ping_payload",
        "_ping_sent_at",
        "_pong",
        "_port",
        "_rate_count",
        "_rate_window",
        "_returned_at",
        "_runner",
        "_sock",
        "_stream",
        "_unwritten",
        "_write_lock",
        "close_timeout",
        "dropped",
        "failed",
        "finishing",
        "max_messages_per_second",
        "message_timeout",
        "opened",
        "ping_interval",
        "ping_timeout",
        "pulled",
        "send_timeout",
    )

    def __init__(
        self,
        sock: Any,
        stream: Stream,
        *,
        send_timeout: float = 10.0,
        close_timeout: float = 5.0,
        ping_interval: float | None = 30.0,
        ping_timeout: float | None = 30.0,
        message_timeout: float | None = 120.0,
        max_messages_per_second: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        port: Port | None = None,
    ) -> None:
        self.send_timeout = send_timeout
        self.close_timeout = close_timeout
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.message_timeout = message_timeout
        self.max_messages_per_second = max_messages_per_second
        self._rate_window = 0
        self._rate_count = 0
        self._clock = clock
        self._port = make_port(sock) if port is None else port
        self._sock = sock
        self._stream = stream
        self._message_lock = self._port.make_lock()  # held for a whole message
        self._write_lock = self._port.make_lock()  # held for a frame
        self._fragmenting = False  # a generator is being sent
        self._unwritten = 0  # bytes of a frame that the kernel has no room for
        self._close_sent = False  # nothing more may be sent
        self._close_waiting: CloseControlMessage | None = None  # no message may be begun; it is sent, or will be
        self._close_deadline: float | None = None
        self._cancel: Callable[[], None] | None = None  # of the timer that drops the connection
        self._pong: bytes | None = None  # waits for whoever holds the write lock
        self._ping_payload: bytes | None = None  # of our own Ping that is on its way
        self._ping_sent_at = 0.0
        self._heard_at = clock()
        self._message_deadline: MessageDeadline | None = None  # of the message that has begun
        self._messages_begun = 0  # of the stream, when that was set
        self._returned_at: float | None = None  # when the runner began to do something else than to read
        self._runner: object = None
        self.opened = False
        """Whether opened() has been called."""
        self.pulled = False
        """Whether it is read by whoever asks for a message, and only then."""
        self.failed = False
        """Whether a handler has raised, so that messages are passed over until the end."""
        self.dropped = False
        """Whether the connection was given up by this side."""
        self.finishing = False
        """Whether reading has ended, so that closed() is due."""
        _connections.add(self)

    # --- the runner ---------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether somebody reads this connection."""
        return self._runner is not None

    @property
    def ended(self) -> bool:
        """Whether no message can be begun any more."""
        return self._close_sent or self._close_waiting is not None

    @property
    def buffered(self) -> int:
        """How many bytes wait to be written, for the kernel has no room for them yet."""
        return self._unwritten + self._port.kept

    @property
    def mine(self) -> bool:
        """Whether the caller is the runner, or nobody is."""
        return self._runner is None or self._runner == self._port.current()

    def begin(self) -> None:
        """Make the caller the runner."""
        self._runner = self._port.current()
        self._heard_at = self._clock()
        self._port.begin()

    def end(self) -> None:
        """Read no more. Called by the runner, who calls closed() next."""
        self._close_sent = True
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
        if self._returned_at is not None:
            if self._message_deadline is not None:
                self._message_deadline.postpone(self._clock() - self._returned_at)
            self._returned_at = None
        patience = self.patience()
        if self._message_is_late():
            return self._give_up_message()
        if timeout is not None:
            patience = timeout if patience is None else min(patience, timeout)
        data = self._port.receive(size, patience)
        if data is None:
            return self.act()
        self._heard_at = self._returned_at = self._clock()
        return data

    def heard(self) -> None:
        """The peer has sent something, which somebody else has read."""
        self._heard_at = self._clock()

    def patience(self) -> float | None:
        """Return how many seconds from now :meth:`act` has nothing to do, if nothing is heard; None for ever."""
        due = self._close_deadline
        if due is None:
            if self._ping_payload is not None and self._ping_sent_at > self._heard_at:
                due = None if self.ping_timeout is None else self._ping_sent_at + self.ping_timeout
            elif self.ping_interval is not None:
                due = self._heard_at + self.ping_interval
            message = self._message()
            if message is not None:
                due = message.due if due is None else min(due, message.due)
        return None if due is None else max(0.0, due - self._clock())

    def act(self) -> bytes | None:
        """Do what is due after a silence; return b"" if that was to give the connection up."""
        now = self._clock()
        if self._close_deadline is not None:
            if now < self._close_deadline:
                return None
            logger.debug("The peer has not answered the Close")
            self.drop()
            return b""
        if self._message_is_late():
            return self._give_up_message()
        if self._ping_payload is not None and self._ping_sent_at > self._heard_at:
            if self.ping_timeout is None or now < self._ping_sent_at + self.ping_timeout:
                return None
            close = self._stream.error = CloseControlMessage(CloseCode.INTERNAL_ERROR, "Keepalive ping timeout")
            self._send_close(close, 0.0)
            self.drop()
            return b""
        if self.ping_interval is not None and now >= self._heard_at + self.ping_interval and not self.ended:
            self._ping_payload = os.urandom(4)
            self._ping_sent_at = now
            self.send_control(self._stream.encode(FIN | OPCODE_PING, self._ping_payload))
        return None

    def _message(self) -> MessageDeadline | None:
        """Return the deadline of the message that has begun, None if there is none."""
        stream = self._stream
        if self.message_timeout is None or not stream.unfinished or stream.more:
            self._message_deadline = None
        elif self._message_deadline is None or self._messages_begun != stream.messages_begun:
            self._messages_begun = stream.messages_begun
            self._message_deadline = MessageDeadline(self._clock(), self.message_timeout)
        return self._message_deadline

    def _message_is_late(self) -> bool:
        message, now = self._message(), self._clock()
        return message is not None and now >= message.due and message.is_late(now, self._stream.unfinished_size)

    def _give_up_message(self) -> bytes:
        close = CloseControlMessage(CloseCode.POLICY_VIOLATION, "A message was not finished in time")
        self._stream.error = close
        self._send_close(close, 0.0)
        self.drop()
        return b""

    def take_in(self, stream: Stream, data: bytes, frames: int, messages: int, size: int) -> list[Message]:
        """Return messages that bytes of the peer complete, as far as ``max_messages_per_second`` allows.

        :param frames: see :meth:`ws4py.streaming.Stream.receive_some`, also for the others.
        """
        window = int(self._clock())
        if self._rate_window != window:
            self._rate_window = window
            self._rate_count = 0
        left = max(0, (self.max_messages_per_second or 0) - self._rate_count)
        begun = stream.frames_received
        found = stream.receive_some(data, min(frames, left), messages, size)
        self._rate_count += stream.frames_received - begun
        return found

    def too_fast(self, stream: Stream) -> bool:
        """Tell whether more has come than ``max_messages_per_second`` allows."""
        rate = self.max_messages_per_second
        return rate is not None and self._rate_count >= rate and stream.held_back

    def is_own(self, pong: bytes) -> bool:
        """Tell whether a Pong answers a Ping of the connection's own, not of the application."""
        return self._ping_payload is not None and pong == self._ping_payload

    # --- sending: any thread ------------------------------------------------------------------------------------------

    def send_message(self, opcode: int, payload: bytes, timeout: float | None = None) -> None:
        """Send a whole message.

        :param timeout: how long to wait, in seconds; ``send_timeout`` by default. With 0, what the kernel has no room
            for is written by a thread, or greenlet, of its own.
        :raises ConnectionClosed: after a Close, or if the connection is broken.
        :raises SlowConsumer: if the peer did not read in time; the connection is then dropped, but for a ``timeout`` of
            0.
        :raises WebSocketException: if a message that is being sent in fragments did not end in time.
        :raises ManagerError: over TLS, in a forked process.
        """
        self._begin_message(timeout)
        try:
            if timeout is not None and timeout <= 0.0:
                self._send_now(self._stream.encode_message, opcode, payload)
            else:
                self.send_control(self._stream.encode_message(opcode, payload), timeout)
        finally:
            self._message_lock.release()

    def send_fragments(self, opcode: int, parts: Iterator[bytes], timeout: float | None = None) -> None:
        """Send a message in fragments; control frames may go between them, but no Close. See :meth:`send_message`.

        :raises SlowConsumer: see :meth:`send_message`; with a ``timeout`` of 0, a part after the first for which there
            is no room ends the connection, since half a message is sent.
        :raises Exception: whatever ``parts`` raises; the connection is then closed with 1011.
        """
        now = timeout is not None and timeout <= 0.0
        self._begin_message(timeout)
        self._fragmenting = True
        begun = False
        try:
            encode = self._stream.begin_fragments()
            for first, part in fragments(opcode, parts):
                if now:
                    self._send_now(encode, first, part)
                else:
                    self.send_control(encode(first, part), timeout)
                begun = True
        except BaseException as error:
            if begun or not (now and isinstance(error, SlowConsumer)):
                self.close(CloseControlMessage(CloseCode.INTERNAL_ERROR))
            self._end_fragments(0.0 if now else self.close_timeout)
            raise
        else:
            self._end_fragments(self.close_timeout)
        finally:
            self._message_lock.release()

    def _end_fragments(self, patience: float) -> None:
        """Send the Close that has waited for the message's end, if one has."""
        self._fragmenting = False
        if self._close_waiting is not None:
            self._send_close(self._close_waiting, patience)

    def _begin_message(self, timeout: float | None) -> None:
        """Take the message lock."""
        lock = self._message_lock
        if not lock.acquire(False):
            if self.ended:
                raise ConnectionClosed("Cannot send on a terminated websocket")
            if timeout is not None and timeout <= 0.0:
                if not self._take_soon(lock):
                    raise SlowConsumer("Another message is being sent")
            elif not lock.acquire(True, self.send_timeout if timeout is None else timeout):
                if self._close_sent:
                    raise ConnectionClosed("Cannot send on a terminated websocket")
                raise WebSocketException("Another message is being sent, and does not end")
        if self._close_waiting is not None:
            lock.release()
            raise ConnectionClosed("Cannot send on a terminated websocket")

    def _take_soon(self, lock: Any) -> bool:
        """Take a lock, unless whoever has it waits for the peer, or for a generator."""
        for _ in range(LOOKS):
            if lock.acquire(True, SOON):
                return True
            if self._unwritten or (self._fragmenting and lock is self._message_lock):
                break
        return False

    def send_control(self, frame: bytes, timeout: float | None = None) -> None:
        """Send a frame. See :meth:`send_message`."""
        if timeout is None:
            timeout = self.send_timeout
        elif timeout <= 0.0:
            self._send_now(bytes, frame)
            return
        deadline = self._clock() + timeout
        if not self._write_lock.acquire(True, timeout):
            self.drop()
            raise SlowConsumer(f"The peer did not read for {timeout} seconds")
        try:
            if self._close_sent:
                raise ConnectionClosed("Cannot send on a terminated websocket")
            self._write(frame, deadline)
        finally:
            self._write_lock.release()
        self._flush_pong()

    def _send_now(self, encode: Callable[..., bytes], *arguments: Any) -> None:
        """Send a frame without waiting, if there is room for a part of it.

        :param encode: makes the frame from ``arguments``; it is called when the frame is certain to be sent.
        """
        if not self._take_soon(self._write_lock):
            raise SlowConsumer("The peer does not read")
        left: memoryview | None = None
        try:
            if self._close_sent:
                raise ConnectionClosed("Cannot send on a terminated websocket")
            if not self._port.writable():
                raise SlowConsumer("The peer does not read")
            left = self._write(encode(*arguments), None)
            if left:
                self._port.call_later(0.0, functools.partial(self._write_left, left))
        except BaseException:
            if left:  # no thread can be had to write it
                left = None
                self.drop()
            raise
        finally:
            if not left:
                self._write_lock.release()
        if not left:
            self._flush_pong()

    def _write_left(self, left: memoryview) -> None:
        """Write what :meth:`_send_now` has left, whose write lock is still held."""
        try:
            self._write(left, self._clock() + self.send_timeout)
        except ConnectionClosed as error:
            logger.debug("A message could not be sent: %s", error)
        finally:
            self._write_lock.release()
        self._flush_pong()

    def send_pong(self, frame: bytes) -> None:
        """Send the frame of a Pong, or have whoever is writing send it next: of several that wait, the last (section
        5.5.3).

        For the runner, who must go on to read: the peer may read nothing before its own writing goes on.
        """
        self._pong = frame
        self._flush_pong()

    def _flush_pong(self) -> None:
        # Looked at again after the lock is released: a Pong that came meanwhile found it held, and was left to us.
        while self._pong is not None and self._write_lock.acquire(False):
            try:
                frame, self._pong = self._pong, None
                if frame is not None and not self._close_sent:
                    self._write(frame, self._clock() + self.send_timeout)
            finally:
                self._write_lock.release()

    def _write(self, frame: bytes | memoryview, deadline: float | None) -> memoryview | None:
        """Write a frame, and return what is left of it. The write lock is held.

        After a failure half of it may be sent, so that nothing can follow.

        :param deadline: by the clock; None does not wait.
        """
        try:
            count = self._port.send_now(frame)
            if count < len(frame):
                left = memoryview(frame)[count:]
                self._unwritten = len(left)
                if deadline is None:
                    return left
                self._port.send(left, max(0.0, deadline - self._clock()))
            self._unwritten = 0
            return None
        except TimeoutError as error:
            self.drop()
            raise SlowConsumer("The peer did not read in time") from error
        except BROKEN as error:
            self.drop()
            raise ConnectionClosed(f"The connection is broken: {error}") from error
        except BaseException:
            self.drop()
            raise

    def close(self, message: CloseControlMessage) -> None:
        """Send a Close, if none was sent; the connection is dropped if the peer's does not come in ``close_timeout``
        seconds.

        A message that is being sent in fragments is completed first. Nothing is raised for a connection that is broken.

        :raises ManagerError: over TLS, in a forked process.
        """
        if self.ended:
            return
        # In this order: whoever ends a message does the same in the other order, so that one of the two sends it.
        self._close_waiting = message
        if not self._fragmenting:
            self._send_close(message, self.close_timeout)
        if self._close_deadline is None and not self.finishing:
            self._close_deadline = self._clock() + self.close_timeout
            if self._runner is None or not self.mine:  # the runner may wait for a later time, or there may be none
                self._cancel = self._port.call_later(self.close_timeout, self.drop)
                if self.finishing:
                    self._cancel()

    def reply(self, message: CloseControlMessage) -> None:
        """Answer the peer's Close, or what it did wrong: with the Close that waits, or with ``message``, if none was
        sent.

        A message that is being sent in fragments is cut off: the peer reads no more.
        """
        if not self._close_sent:
            self._send_close(self._close_waiting or message, self.close_timeout)

    def _send_close(self, message: CloseControlMessage, timeout: float) -> None:
        deadline = self._clock() + timeout
        if not self._write_lock.acquire(True, timeout):
            self.drop()
            return
        try:
            if self._close_sent:
                return
            self._close_sent = True
            self._write(self._stream.encode(FIN | message.opcode, message.data), deadline)
        except ConnectionClosed as error:
            logger.debug("A Close could not be sent: %s", error)
        finally:
            self._write_lock.release()

    # --- the end: any thread ------------------------------------------------------------------------------------------

    def drop(self) -> None:
        """Send and read no more: the runner comes to the end, and closes the socket."""
        self._close_sent = self.dropped = True
        self._unwritten = 0
        self._port.shut()

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
            self._close_sent = True
            self._cancel_drop()
            self._port.close()
        else:
            self.drop()

    # --- in a forked process ------------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Have free locks, and leave TLS alone: its keys and its count of records are the parent's."""
        if hasattr(self._sock, "pending"):
            self._port = InheritedPort(self._sock)
        self._message_lock = self._port.make_lock()
        self._write_lock = self._port.make_lock()
        self._fragmenting = False
        self._unwritten = 0
        self._pong = self._cancel = None


def _after_fork_in_child() -> None:
    for connection in list(_connections):
        connection.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
