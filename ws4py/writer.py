"""Writing for a websocket that runs by itself: one socket, and frames of several threads or greenlets.

Nobody holds a lock while the socket is waited for, but for the one that keeps frames apart, which a sender holds for
its frame; who reads never waits for it to answer a Ping, or to send one. What waits, waits with a deadline.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

from ws4py.backends.ports import BROKEN, Port
from ws4py.closing import APPLICATION_FAILED
from ws4py.exc import ConnectionClosed, SlowConsumer, WebSocketException
from ws4py.framing import FIN, OPCODE_CLOSE, fragments
from ws4py.messaging import CloseControlMessage
from ws4py.streaming import Stream

__all__ = ["Writer"]

logger = logging.getLogger("ws4py")

SOON: Final = 0.001
"""For how many seconds at a time to wait for a lock that is held for a few steps only, before one looks whether that is
still so."""

LOOKS: Final = 50
"""How often one looks at most: a socket of another kind does not say that it waits."""


class Writer:
    """Writes for one connection. Times are in seconds. Any thread may call.

    :param port: for the socket.
    :param stream: that encodes. Its closing handshake says what may be sent, and which Close.
    :param send_timeout: how long a send may take, before the peer is given up as a slow consumer.
    :param close_timeout: how long a Close may take to be written.
    :param clock: a monotonic clock.
    :ivar ended: whether nothing more is written: a Close was, or the connection is gone.
    :ivar dropped: whether the connection was given up by this side.
    """

    __slots__ = (
        "_clock",
        "_closing",
        "_fragmenting",
        "_guard",
        "_message_lock",
        "_own",
        "_port",
        "_stream",
        "_unwritten",
        "_write_lock",
        "close_timeout",
        "dropped",
        "ended",
        "send_timeout",
    )

    def __init__(
        self, port: Port, stream: Stream, send_timeout: float, close_timeout: float, clock: Callable[[], float]
    ) -> None:
        self._stream = stream
        self._closing = stream.closing_handshake
        self.send_timeout = send_timeout
        self.close_timeout = close_timeout
        self._clock = clock
        self.ended = False
        self.dropped = False
        self.use(port)

    def use(self, port: Port) -> None:
        """Write to a port, with locks that nobody has: at the beginning, and in a forked process."""
        self._port = port
        self._message_lock = port.make_lock()  # held for a whole message
        self._write_lock = port.make_lock()  # held for a frame
        self._guard = port.make_guard()  # over the closing handshake and what follows
        self._fragmenting = False  # a generator is being sent
        self._unwritten = 0  # bytes of a frame that the kernel has no room for
        self._own: dict[int, bytes] = {}  # frames of send_soon() that wait for whoever holds the write lock

    @property
    def may_send(self) -> bool:
        """Whether a message may be begun."""
        return self._closing.may_send and not self.ended

    @property
    def buffered(self) -> int:
        """How many bytes wait to be written, for the kernel has no room for them yet."""
        return self._unwritten + self._port.kept

    def _check(self, may_send: bool) -> None:
        if not may_send:
            raise ConnectionClosed("Cannot send on a terminated websocket")

    # --- messages -----------------------------------------------------------------------------------------------------

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
        self._begin_message(timeout, True)
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
                self.close(APPLICATION_FAILED)
            self._end_fragments(0.0 if now else self.close_timeout)
            raise
        else:
            self._end_fragments(self.close_timeout)
        finally:
            self._message_lock.release()

    def _begin_message(self, timeout: float | None, fragmenting: bool = False) -> None:
        """Take the message lock."""
        lock = self._message_lock
        if not lock.acquire(False):
            self._check(self.may_send)
            if timeout is not None and timeout <= 0.0:
                if not self._take_soon(lock):
                    raise SlowConsumer("Another message is being sent")
            elif not lock.acquire(True, self.send_timeout if timeout is None else timeout):
                self._check(not self.ended)
                raise WebSocketException("Another message is being sent, and does not end")
        try:
            with self._guard:
                self._check(self.may_send)
                self._fragmenting = fragmenting
        except BaseException:
            lock.release()
            raise

    def _end_fragments(self, patience: float) -> None:
        """Send the Close that has waited for the message's end, if one has."""
        with self._guard:
            self._fragmenting = False
        self._send_close(patience)

    def _take_soon(self, lock: Any) -> bool:
        """Take a lock, unless whoever has it waits for the peer, or for a generator."""
        for _ in range(LOOKS):
            if lock.acquire(True, SOON):
                return True
            if self._unwritten or (self._fragmenting and lock is self._message_lock):
                break
        return False

    # --- frames -------------------------------------------------------------------------------------------------------

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
            self._check(not self.ended)
            self._write(frame, deadline)
        finally:
            self._write_lock.release()
        self._send_own()

    def _send_now(self, encode: Callable[..., bytes], *arguments: Any) -> None:
        """Send a frame without waiting, if there is room for a part of it.

        :param encode: makes the frame from ``arguments``; it is called when the frame is certain to be sent.
        """
        if not self._take_soon(self._write_lock):
            raise SlowConsumer("The peer does not read")
        left = False
        try:
            self._check(not self.ended)
            if not self._port.writable():
                raise SlowConsumer("The peer does not read")
            left = self._begin_frame(encode(*arguments))
        finally:
            if not left:
                self._write_lock.release()
        if not left:
            self._send_own()

    def _begin_frame(self, frame: bytes) -> bool:
        """Write what the kernel takes of a frame, and have a thread write the rest; tell whether there is some: the
        write lock, which is held, is that thread's then.
        """
        left = self._write(frame, None)
        if not left:
            return False
        try:
            self._port.call_later(0.0, functools.partial(self._write_left, left))
        except BaseException:  # no thread can be had to write it
            self.drop()
            raise
        return True

    def _write_left(self, left: memoryview) -> None:
        """Write what :meth:`_send_now` has left, whose write lock is still held."""
        try:
            self._write(left, self._clock() + self.send_timeout)
        except ConnectionClosed as error:
            logger.debug("A message could not be sent: %s", error)
        finally:
            self._write_lock.release()
        self._send_own()

    def send_soon(self, opcode: int, payload: bytes) -> None:
        """Send a Ping or a Pong of the connection's own, or have whoever is writing send it next: of several Pongs that
        wait, the last (section 5.5.3).

        For the runner, who must go on to read: the peer may read nothing before its own writing goes on.

        :raises ConnectionClosed: if the connection is broken.
        """
        self._own[opcode] = self._stream.encode(FIN | opcode, payload)
        self._send_own()

    def _send_own(self) -> None:
        # Looked at again after the lock is released: what came meanwhile found it held, and was left to us.
        while self._own and self._write_lock.acquire(False):
            left = False
            try:
                if self._own:  # only who holds the lock takes something out
                    _, frame = self._own.popitem()
                    if not self.ended:
                        left = self._begin_frame(frame)
            finally:
                if not left:
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

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self, message: CloseControlMessage) -> bool:
        """Begin the closing handshake with a Close; return whether this one is sent.

        A message that is being sent in fragments is completed first. Nothing is raised for a connection that is broken.

        :raises ManagerError: over TLS, in a forked process.
        """
        with self._guard:
            if self.ended or not self._closing.send(message):
                return False
            fragmenting = self._fragmenting
        if not fragmenting:
            self._send_close(self.close_timeout)
        return True

    def reply(self, timeout: float | None = None) -> None:
        """Send the Close that the end of reading calls for, if none was sent.

        A message that is being sent in fragments is cut off: the peer reads no more.

        :param timeout: how long it may take to be written; ``close_timeout`` by default.
        """
        with self._guard:
            self._closing.reply()
        self._send_close(self.close_timeout if timeout is None else timeout)

    def give_up(self, message: CloseControlMessage) -> None:
        """Send a Close, if none was sent, whatever else is being sent."""
        with self._guard:
            self._closing.send(message)
        self._send_close(self.close_timeout)

    def _send_close(self, timeout: float) -> None:
        """Write the Close that is to be sent, unless that was done."""
        if self.ended or self._closing.sent is None:
            return
        deadline = self._clock() + timeout
        if not self._write_lock.acquire(True, timeout):
            self.drop()
            return
        try:
            if self.ended:
                return
            self.ended = True
            self._write(self._stream.encode(FIN | OPCODE_CLOSE, self._closing.sent.data), deadline)
        except ConnectionClosed as error:
            logger.debug("A Close could not be sent: %s", error)
        finally:
            self._write_lock.release()

    def end(self) -> None:
        """Nothing more is written: TCP is at its end."""
        self.ended = True
        self._closing.lose()

    def drop(self) -> None:
        """Send no more, and end TCP. Who reads comes to the end of what has come, a Close perhaps."""
        self.ended = self.dropped = True
        self._unwritten = 0
        self._port.shut()
