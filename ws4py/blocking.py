"""Writing for a websocket that runs by itself: on a blocking socket, from any thread or greenlet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ws4py.exc import ConnectionClosed
from ws4py.framing import FIN, OPCODE_CONTINUATION
from ws4py.messaging import CloseControlMessage
from ws4py.streaming import Stream

__all__ = ["BlockingConnection"]


class BlockingConnection:
    """Sends on a blocking socket, a message at a time.

    :param sock: blocking, or with a timeout.
    :param stream: that encodes.
    :param make_lock: makes a lock that suits who sends: of the threading module, or of gevent.
    """

    __slots__ = ("_close_sent", "_message_lock", "_sock", "_stream", "_write_lock", "finishing")

    def __init__(self, sock: Any, stream: Stream, make_lock: Callable[[], Any]) -> None:
        self._sock = sock
        self._stream = stream
        self._message_lock = make_lock()  # held for a whole message
        self._write_lock = make_lock()  # held for a frame
        self._close_sent = False
        self.finishing = False

    def send_message(self, opcode: int, payload: bytes) -> None:
        """Send a whole message.

        :raises ConnectionClosed: after a Close.
        :raises OSError: if the socket is broken.
        """
        with self._message_lock:
            self.send_control(self._stream.encode(FIN | opcode, payload))

    def send_fragments(self, opcode: int, parts: Iterator[bytes]) -> None:
        """Send a message in fragments; control frames may go between them. See :meth:`send_message`."""
        with self._message_lock:
            first, last = opcode, next(parts, b"")
            for part in parts:
                self.send_control(self._stream.encode(first, last))
                first, last = OPCODE_CONTINUATION, part
            self.send_control(self._stream.encode(FIN | first, last))

    def send_control(self, frame: bytes) -> None:
        """Send a frame. See :meth:`send_message`."""
        with self._write_lock:
            if self._close_sent:
                raise ConnectionClosed("Cannot send on a terminated websocket")
            self._sock.sendall(frame)

    def close(self, message: CloseControlMessage) -> None:
        """Send a Close, if none was sent. A message that is being sent in fragments is not waited for."""
        with self._write_lock:
            if self._close_sent:
                return
            self._close_sent = True
            self._sock.sendall(self._stream.encode(FIN | message.opcode, message.data))

    def terminate(self) -> None:
        """The websocket's own end may follow at once."""
        self.finishing = True
