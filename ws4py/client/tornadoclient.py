"""A client that runs on the loop of tornado, version 6 or later."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream, StreamBufferFullError, StreamClosedError

from ws4py.blocking import BlockingConnection
from ws4py.client.base import WebSocketBaseClient
from ws4py.messaging import Message
from ws4py.runner import Runner, report

__all__ = ["TornadoWebSocketClient"]

logger = logging.getLogger("ws4py")

MAX_OUTBOX = 64 << 20
"""How many bytes may wait to be written, past which the peer is given up as a slow consumer."""


class TornadoPort:
    """A stream of tornado as a connection uses it. Other threads have the loop do their writing."""

    def __init__(self, io: IOStream, loop: IOLoop) -> None:
        self._io = io
        self._loop = loop
        self._thread = threading.get_ident()
        self.kept = 0

    def writable(self) -> bool:
        """See :meth:`ws4py.backends.ports.Port.writable`: the stream keeps what the kernel does not take."""
        return True

    def make_lock(self) -> Any:
        """See :meth:`ws4py.backends.ports.Port.make_lock`."""
        return threading.RLock()

    make_guard = make_lock

    def current(self) -> object:
        """Return something else each time: the loop reads, and nobody is the loop."""
        return object()

    def begin(self) -> None:
        """See :meth:`ws4py.backends.ports.Port.begin`."""

    def receive(self, size: int, timeout: float | None) -> bytes | None:
        """Refuse: the loop reads."""
        raise OSError("This websocket is run by the loop")

    def send_now(self, data: bytes | memoryview) -> int:
        """Have ``data`` written; it does not wait."""
        if threading.get_ident() == self._thread:
            self._write(data)
        else:
            self._loop.add_callback(self._write, data)
        return len(data)

    def send(self, data: bytes | memoryview, timeout: float) -> None:
        """See :meth:`send_now`, which has left nothing."""

    def _write(self, data: bytes | memoryview) -> None:
        try:
            written = self._io.write(data)
        except StreamBufferFullError:
            self._io.close()
            raise TimeoutError("Too much waits to be written") from None
        except StreamClosedError as error:
            if threading.get_ident() == self._thread:
                raise BrokenPipeError(str(error)) from error
        else:
            self.kept += len(data)
            written.add_done_callback(lambda _: self._forget(len(data)))

    def _forget(self, size: int) -> None:
        self.kept -= size

    def repeat(self, seconds: float, function: Callable[[], bool]) -> Callable[[], None]:
        """See :meth:`ws4py.backends.ports.Port.repeat`."""
        handle = None

        def run() -> None:
            nonlocal handle
            if function():
                handle = self._loop.call_later(seconds, run)

        handle = self._loop.call_later(seconds, run)
        return lambda: self._loop.remove_timeout(handle)

    def call_later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        """See :meth:`ws4py.backends.ports.Port.call_later`."""
        loop = self._loop
        if threading.get_ident() == self._thread:
            handle = loop.call_later(seconds, function)
            return lambda: loop.remove_timeout(handle)
        loop.add_callback(loop.call_later, seconds, function)
        return lambda: None

    def shut(self) -> None:
        """See :meth:`ws4py.backends.ports.Port.shut`."""
        if threading.get_ident() == self._thread:
            self._io.close()
        else:
            self._loop.add_callback(self._io.close)

    close = shut


class Alarm:
    """Has a connection do what is due, in its time. For the loop's thread.

    :param connection: that the loop reads.
    """

    def __init__(self, connection: BlockingConnection, loop: IOLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._handle: object = None
        self._at = math.inf  # when it goes off, by the loop's clock

    def set(self) -> None:
        """Go off when something is due, if that is earlier than it was."""
        left = self._connection.patience()
        at = math.inf if left is None else self._loop.time() + left
        if at < self._at:
            self.cancel()
            self._at = at
            self._handle = self._loop.call_at(at, self._go_off)

    def cancel(self) -> None:
        """Go off no more."""
        if self._handle is not None:
            self._loop.remove_timeout(self._handle)
        self._handle, self._at = None, math.inf

    def _go_off(self) -> None:
        self._handle, self._at = None, math.inf
        if self._connection.act() is None:
            self.set()


class TornadoWebSocketClient(WebSocketBaseClient):
    """A :class:`~ws4py.client.WebSocketBaseClient` whose callbacks are called on tornado's loop.

    Everything but ``send``, ``ping`` and ``close`` is for the loop's thread. Sending does not wait; only the opening
    handshake is done in a thread of the loop's executor.

    :param io_loop: the current one by default. It takes the place of ``heartbeat_freq`` among the positional arguments.
    """

    def __init__(
        self,
        url: str,
        protocols: Any = None,
        extensions: Any = None,
        io_loop: IOLoop | None = None,
        ssl_options: Any = None,
        headers: Any = None,
        exclude_headers: Any = None,
        **options: Any,
    ) -> None:
        heartbeat_freq = options.pop("heartbeat_freq", None)
        super().__init__(url, protocols, extensions, heartbeat_freq, ssl_options, headers, exclude_headers, **options)
        self.io_loop = io_loop
        self.io: IOStream | None = None

    def connect(self) -> asyncio.Future[None]:  # type: ignore[override]
        """Begin to connect. May be called before the loop is started.

        :returns: a future that is done when the websocket is open, or has the exception if it could not be opened.
            ``closed`` is called with 1006 in the latter case, so that the future may be left alone.
        """
        loop = self.io_loop = self.io_loop or IOLoop.current()
        opened: asyncio.Future[None] = loop.asyncio_loop.create_future()  # type: ignore[attr-defined]
        opened.add_done_callback(lambda future: future.cancelled() or future.exception())
        loop.add_callback(self._live, loop, opened)
        return opened

    def handshake_ok(self) -> None:
        """Called on the loop when the websocket is open; it calls :meth:`opened`. An override need not read it."""
        self._runner().call_opened()

    async def _live(self, loop: IOLoop, opened: asyncio.Future[None]) -> None:
        try:
            self._begin_connecting()
            await loop.run_in_executor(None, self._connect)
        except Exception as error:  # noqa: BLE001 - whoever waits for the future has it
            if not opened.cancelled():
                opened.set_exception(error)
            self.client_terminated = self.server_terminated = True
            try:
                self.closed(1006, str(error))
            except Exception as raised:
                logger.error("closed() of %r raised", self, exc_info=raised)
                report(self, raised)
            return
        going_on = True
        while going_on:
            try:
                await self._serve(loop, opened)
            except Exception as error:
                logger.error("%r could not be served", self, exc_info=error)
                report(self, error)
                if not opened.done():
                    opened.set_exception(error)
                    return
            going_on = await loop.run_in_executor(None, self._connect_again)

    async def _serve(self, loop: IOLoop, opened: asyncio.Future[None]) -> None:
        """Run the websocket from its opening handshake to its end."""
        stream = self.stream
        secure = hasattr(self.sock, "pending")
        io = self.io = (SSLIOStream if secure else IOStream)(self.sock, max_write_buffer_size=MAX_OUTBOX)
        io.set_nodelay(self.unix_socket_path is None)
        port = TornadoPort(io, loop)
        connection = self._connection = BlockingConnection(self.sock, stream, self._own_limits(), port=port)
        runner = Runner(self, connection)
        connection.begin()
        stop = runner.start_heartbeat()
        alarm = Alarm(connection, loop)
        try:
            alarm.set()
            self.handshake_ok()
            if not opened.done():
                opened.set_result(None)
            going_on = runner.open()
            while going_on and self.stream is stream and not self.terminated:
                alarm.set()
                data = await io.read_bytes(self.reading_buffer_size, partial=True)
                connection.heard()
                going_on = self.process(data)
        except (StreamClosedError, OSError) as error:
            if not connection.dropped:
                logger.debug("Could not read from %r: %s", self, error)
        finally:
            alarm.cancel()
            if stop is not None:
                stop()
            runner.finish(stream)

    def received_message(self, message: Message) -> None:
        """Called for each message."""

    def receive(self, block: bool = True, timeout: float | None = None) -> Message | None:
        """Refuse: it would block the loop.

        :raises TypeError: always.
        """
        raise TypeError("On tornado's loop messages come to received_message()")

    def run(self) -> None:
        """Refuse: the loop runs it.

        :raises TypeError: always.
        """
        raise TypeError("connect() has tornado's loop run the websocket")

    def _wait_for_end(self) -> None:
        """The loop sees to it."""


# --- names of 0.6 -----------------------------------------------------------------------------------------------------

from ws4py.exc import HandshakeError  # noqa: E402, F401
