"""A client that runs on the loop of tornado, version 6 or later."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream, StreamBufferFullError, StreamClosedError

from ws4py.blocking import BlockingConnection
from ws4py.client import WebSocketBaseClient
from ws4py.messaging import Message

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
        """See :meth:`ws4py.ports.Port.writable`: the stream keeps what the kernel does not take."""
        return True

    def make_lock(self) -> Any:
        """See :meth:`ws4py.ports.Port.make_lock`."""
        return threading.RLock()

    def current(self) -> object:
        """Return something else each time: the loop reads, and nobody is the loop."""
        return object()

    def begin(self) -> None:
        """See :meth:`ws4py.ports.Port.begin`."""

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
        """See :meth:`ws4py.ports.Port.repeat`."""
        handle = None

        def run() -> None:
            nonlocal handle
            if function():
                handle = self._loop.call_later(seconds, run)

        handle = self._loop.call_later(seconds, run)
        return lambda: self._loop.remove_timeout(handle)

    def call_later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        """See :meth:`ws4py.ports.Port.call_later`."""
        loop = self._loop
        if threading.get_ident() == self._thread:
            handle = loop.call_later(seconds, function)
            return lambda: loop.remove_timeout(handle)
        loop.add_callback(loop.call_later, seconds, function)
        return lambda: None

    def shut(self) -> None:
        """See :meth:`ws4py.ports.Port.shut`."""
        if threading.get_ident() == self._thread:
            self._io.close()
        else:
            self._loop.add_callback(self._io.close)

    close = shut


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
        self._call_opened()

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
                self._report(raised)
            return
        going_on = True
        while going_on:
            try:
                await self._serve(loop, opened)
            except Exception as error:
                logger.error("%r could not be served", self, exc_info=error)
                self._report(error)
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
        connection = BlockingConnection(self.sock, stream, port=TornadoPort(io, loop), **self._blocking_limits())
        self._connection = connection
        connection.begin()
        stop = connection.repeat(self.heartbeat_freq, self._beat) if self.heartbeat_freq else None
        watch: Any = None

        def look() -> None:
            nonlocal watch
            connection.act()
            left = connection.patience()
            watch = None if left is None else loop.call_later(left, look)

        try:
            look()
            self.handshake_ok()
            if not opened.done():
                opened.set_result(None)
            going_on = self._open()
            while going_on and self.stream is stream and not self.terminated:
                data = await io.read_bytes(self.reading_buffer_size, partial=True)
                connection.heard()
                going_on = self.process(data)
        except (StreamClosedError, OSError) as error:
            if not connection.dropped:
                logger.debug("Could not read from %r: %s", self, error)
        finally:
            if watch is not None:
                loop.remove_timeout(watch)
            if stop is not None:
                stop()
            self._finish(connection, stream)

    def received_message(self, message: Message) -> None:
        """Called for each message."""

    def receive(self, block: bool = True, timeout: float | None = None) -> Message | None:
        """Refuse: it would block the loop.

        :raises TypeError: always.
        """
        raise TypeError("On tornado's loop messages come to received_message()")

    def run(self) -> None:
        """Refuse, likewise."""
        raise TypeError("connect() has tornado's loop run the websocket")

    def _wait_for_end(self) -> None:
        """The loop sees to it."""


# --- names of 0.6 -----------------------------------------------------------------------------------------------------

from ws4py.exc import HandshakeError  # noqa: E402, F401
