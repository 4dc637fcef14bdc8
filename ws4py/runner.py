"""Who runs a websocket by itself, without a manager: on the calling thread or greenlet."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from ws4py.around import Surroundings
from ws4py.blocking import BlockingConnection
from ws4py.closing import APPLICATION_FAILED
from ws4py.exc import ConnectionClosed
from ws4py.framing import OPCODE_BINARY, OPCODE_PING, OPCODE_PONG
from ws4py.messaging import CloseCode, CloseControlMessage, Message
from ws4py.streaming import Stream

__all__ = ["Heartbeat", "Runnable", "Runner", "report"]

logger = logging.getLogger("ws4py")


class Pingable(Protocol):
    """What can be asked for a sign of life."""

    def ping(self, message: str | bytes | bytearray) -> None:
        """Send a Ping."""


class Runnable(Pingable, Protocol):
    """A websocket, as who runs it sees it. :class:`ws4py.websocket.WebSocket` has the words."""

    buf: bytes
    heartbeat_freq: float | None
    reading_buffer_size: int
    sock: Any
    stream: Stream
    close_code: int | None
    _surroundings: Surroundings | None

    @property
    def terminated(self) -> bool: ...

    def opened(self) -> None: ...
    def received_message(self, message: Message) -> None: ...
    def ponged(self, pong: Message) -> None: ...
    def unhandled_error(self, error: BaseException) -> None: ...
    def once(self, timeout: float | None = None) -> bool: ...
    def process(self, data: bytes) -> bool: ...
    def terminate(self) -> None: ...


class Runner:
    """Runs a websocket: reads, answers and calls back. What lasts longer than a call is the connection's.

    :param websocket: to run.
    :param connection: of it.
    """

    __slots__ = ("connection", "websocket")

    def __init__(self, websocket: Runnable, connection: BlockingConnection) -> None:
        self.websocket = websocket
        self.connection = connection

    # --- from the beginning to the end --------------------------------------------------------------------------------

    def run(self) -> None:
        """See :meth:`ws4py.websocket.WebSocket.run`."""
        websocket, connection, stream = self.websocket, self.connection, self.websocket.stream
        if connection.running:
            raise ConnectionClosed("This websocket is run already")
        connection.begin()
        stop: Callable[[], None] | None = None
        try:
            stop = self.start_heartbeat()
            going_on = self.open()
            while going_on and websocket.stream is stream and not websocket.terminated:
                going_on = websocket.once()
        except BaseException as error:
            failed = isinstance(error, Exception)
            connection.close(APPLICATION_FAILED if failed else CloseControlMessage(CloseCode.GOING_AWAY))
            raise
        finally:
            if stop is not None:
                stop()
            self.finish(stream)

    def pull(self, pausing: Callable[[], bool], timeout: float | None) -> bool:
        """Begin to read, or read on, for whoever asks for a message; :meth:`finish` at the end.

        :param pausing: see :class:`ws4py.blocking.BlockingConnection`.
        :param timeout: how long to wait at most, in seconds; None waits for something to happen.
        :returns: whether to go on.
        """
        websocket, connection, stream = self.websocket, self.connection, self.websocket.stream
        try:
            if connection.running:
                going_on = websocket.once(timeout) and not websocket.terminated
            else:
                connection.pausing = pausing
                connection.begin()
                going_on = self.open()
            if not going_on:
                self.finish(stream)
        except BaseException:
            connection.end()
            raise
        return going_on

    def start_heartbeat(self) -> Callable[[], None] | None:
        """Send the Pings of ``heartbeat_freq``, if there is one; return how to stop that."""
        frequency = self.websocket.heartbeat_freq
        return self.connection.repeat(frequency, lambda: _beat(self.websocket)) if frequency else None

    def open(self) -> bool:
        """Call opened(), unless that was done, and process what came with the handshake; tell whether to go on."""
        self.call_opened()
        websocket = self.websocket
        early, websocket.buf = websocket.buf, b""
        return not early or websocket.process(early)

    def call_opened(self) -> None:
        """Call opened(), unless that was done."""
        if not self.connection.opened:
            self.connection.opened = True
            self._call(self.websocket.opened)

    def finish(self, stream: Stream) -> None:
        """Call closed(), when the last was read.

        :param stream: that it was read with. The websocket has another if a callback has run ``__init__`` again, to
            connect anew.
        """
        websocket, connection = self.websocket, self.connection
        connection.end()
        if websocket.stream is not stream:
            connection.close_socket()
            return
        try:
            try:
                self._surround(websocket.terminate)
            finally:
                if websocket._surroundings is not None and websocket.close_code is None:
                    websocket.terminate()  # what is around it has raised before closed() was called
        except Exception as error:
            logger.error("closed() of %r raised", websocket, exc_info=error)
            report(self.websocket, error)

    # --- reading ------------------------------------------------------------------------------------------------------

    def once(self, timeout: float | None) -> bool:
        """See :meth:`ws4py.websocket.WebSocket.once`."""
        websocket, connection = self.websocket, self.connection
        if websocket.stream is not None and websocket.stream.more:
            return self.process(b"")
        try:
            data = connection.receive(websocket.reading_buffer_size, timeout)
        except (OSError, ValueError, AttributeError, ConnectionClosed) as error:
            # A socket that another thread has closed meanwhile is gone, or None.
            if websocket.sock is not None and not connection.dropped:
                logger.debug("Could not read from %r: %s", websocket, error)
                report(self.websocket, error)
            return False
        return data is None or websocket.process(data)

    def process(self, data: bytes) -> bool:
        """Take in bytes, and what was left of others; tell whether to go on. A few messages at a time are decoded, and
        then called back with.
        """
        stream, pausing = self.websocket.stream, self.connection.pausing
        while self._process_some(stream, data):
            if not stream.more or (pausing is not None and pausing()):
                return True
            data = b""
        return False

    def _process_some(self, stream: Stream, data: bytes) -> bool:
        websocket, connection = self.websocket, self.connection
        for message in connection.take_in(stream, data):
            opcode = message.opcode
            if opcode <= OPCODE_BINARY:
                self._call(websocket.received_message, message)
            elif opcode == OPCODE_PING:
                if not self._answer(stream, message):
                    return False
            elif opcode == OPCODE_PONG:
                if not connection.ponged(message.data):
                    self._call(websocket.ponged, message)
            else:
                break
            if websocket.stream is not stream:
                return False
        if stream.ended:
            connection.reply()
            return False
        return not connection.too_fast(stream)

    def _answer(self, stream: Stream, message: Message) -> bool:
        """Answer a Ping; tell whether to go on."""
        reply = stream.reply(message)
        try:
            if reply is not None:
                self.connection.send_soon(*reply)
        except ConnectionClosed:
            return not self.websocket.terminated
        return True

    # --- callbacks ----------------------------------------------------------------------------------------------------

    def _call(self, callback: Any, *arguments: Any) -> None:
        """Run a callback.

        An exception in it closes the connection with 1011: the peer's answer is still read, messages are passed over.
        """
        connection = self.connection
        if connection.failed:
            return
        try:
            self._surround(callback, *arguments)
        except Exception as error:
            if isinstance(error, ConnectionClosed) and not connection.may_send:
                # What a handler does with the news that its peer is gone is its own affair.
                logger.debug("A handler of %r met a closed connection", self.websocket)
                return
            logger.error("A handler of %r raised", self.websocket, exc_info=error)
            connection.failed = True
            connection.close(APPLICATION_FAILED)
            report(self.websocket, error)

    def _surround(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Run a callback within what its endpoint has around it."""
        surroundings = self.websocket._surroundings
        if surroundings is None:
            callback(*arguments)
        else:
            surroundings.call(self.websocket, callback, *arguments)


def report(websocket: Runnable, error: BaseException) -> None:
    """Give an error to the application. Does not raise."""
    try:
        websocket.unhandled_error(error)
    except Exception:
        logger.exception("unhandled_error of %r raised", websocket)


def _beat(websocket: Pingable) -> bool:
    """Send the Ping of a heartbeat; tell whether to go on."""
    try:
        websocket.ping(b"beep")
    except (ConnectionClosed, OSError):
        return False
    return True


class Heartbeat(threading.Thread):
    """Sends Pings to a websocket that runs by itself; a context manager.

    :param websocket: to ping.
    :param frequency: in seconds; 0 or None sends none.
    """

    def __init__(self, websocket: Pingable, frequency: float | None = 2.0) -> None:
        super().__init__(name="WebSocketHeartbeat", daemon=True)
        self.websocket = websocket
        self.frequency = frequency
        self._stopped = threading.Event()

    def __enter__(self) -> Heartbeat:
        """Start, if there is a frequency."""
        if self.frequency:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; it does not wait."""
        self.stop()

    def stop(self) -> None:
        """Send no more."""
        self._stopped.set()

    def run(self) -> None:
        """Ping until stopped, or until the websocket ends."""
        while self.frequency and not self._stopped.wait(self.frequency) and _beat(self.websocket):
            pass
