"""WebSockets under gevent, on its WSGI server: a greenlet for each.

.. code-block:: python

    from gevent import monkey; monkey.patch_all()
    from ws4py.server.geventserver import WebSocketServer
    from ws4py.websocket import EchoWebSocket

    server = WebSocketServer(('127.0.0.1', 9000), websocket_class=EchoWebSocket)
    server.serve_forever()

:class:`WebSocketServer` makes every path a websocket. :class:`WSGIServer` serves a WSGI application, of which
:class:`~ws4py.server.wsgiutils.WebSocketWSGIApplication` may be a part. Patching is not needed by these modules; it is
by application code that blocks.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler
from gevent.pywsgi import WSGIServer as _WSGIServer
from gevent.queue import Queue

from ws4py.around import Around
from ws4py.backends.greenlets import close_socket, take_socket
from ws4py.exc import ConnectionClosed, HandshakeError
from ws4py.extensions import Extension
from ws4py.limits import Limits, OverflowPolicy
from ws4py.manager.process import shut_down
from ws4py.messaging import Message, Payload
from ws4py.server.geventmanager import GreenletManager
from ws4py.server.rawsocket import take_buffered
from ws4py.server.running import hand_over
from ws4py.server.serveradapter import StartResponse
from ws4py.server.wsgiutils import WebSocketWSGIApplication, refuse
from ws4py.websocket import WebSocket

__all__ = [
    "GEventWebSocketPool",
    "WSGIServer",
    "WebSocketServer",
    "WebSocketWSGIApplication",
    "WebSocketWSGIHandler",
]

logger = logging.getLogger("ws4py")


class WebSocketWSGIHandler(WSGIHandler):  # type: ignore[misc]
    """Answers the requests of one connection, until one of them makes it a websocket.

    It works with any server of gevent's, as its ``handler_class``; the websockets of one that has no
    :class:`GEventWebSocketPool` as its ``pool`` get one of their own.
    """

    socket: Any
    response_headers: list[tuple[bytes, bytes]]

    def get_environ(self) -> dict[str, Any]:
        """Return the environ of a request. Called by gevent."""
        environ: dict[str, Any] = super().get_environ()
        environ["ws4py.socket"] = self.socket
        environ["ws4py.manager"] = _pool_of(self.server).manager
        return environ

    def run_application(self) -> None:
        """Answer a request, and hand the connection over if the answer was a 101. Called by gevent."""
        try:
            super().run_application()
        except HandshakeError as error:
            if self.headers_sent:
                raise
            for part in refuse(error, self.start_response):
                self.write(part)
        environ = self.environ
        environ.pop("ws4py.socket", None)
        environ.pop("ws4py.manager", None)
        websocket = environ.pop("ws4py.websocket", None)
        if websocket is None:
            return
        if self.code == 101 and self.headers_sent:
            self._hand_over(websocket)
        else:
            websocket.sock = None  # refused after all

    def finalize_headers(self) -> None:
        """Complete the headers of a response. Called by gevent."""
        super().finalize_headers()
        if self.code == 101:  # frameworks like to measure the body that it does not have (RFC 9110, section 8.6)
            self.response_headers = [item for item in self.response_headers if item[0].lower() != b"content-length"]

    def _hand_over(self, websocket: WebSocket) -> None:
        sock, self.socket = self.socket, None
        websocket.buf = take_buffered(sock, self.rfile)
        websocket.sock = take_socket(sock)
        self.close_connection = True
        if not hand_over(_pool_of(self.server).track, websocket, address=self.environ.get("REMOTE_ADDR")):
            close_socket(websocket.sock)
            websocket.sock = None


class GEventWebSocketPool(Pool):  # type: ignore[misc]
    """The websockets of a server, and the greenlets that run them.

    It is a pool of gevent's: :meth:`spawn` with the ``run`` of a websocket works, too.

    :param size: how many greenlets there may be at most; whoever starts one more waits.
    :param limits: of the websockets; see :class:`~ws4py.manager.Limits`.
    :param options: others of the manager: ``history``, say.
    """

    def __init__(
        self, size: int | None = None, greenlet_class: Any = None, limits: Limits | None = None, **options: Any
    ) -> None:
        super().__init__(size, greenlet_class)
        self._manager = GreenletManager(self.spawn, limits=limits, **options)
        self._running: dict[Any, WebSocket] = {}  # by the greenlets that were given a websocket's run()

    @property
    def manager(self) -> GreenletManager:
        """Who runs the websockets; it is started when it is asked for first."""
        if self._manager._state == "new":
            self._manager.start()
        return self._manager

    def track(self, websocket: WebSocket, address: str | None = None) -> None:
        """Run a websocket whose handshake is done, in a greenlet of its own.

        :param websocket: with an open socket of gevent.
        :param address: of the peer, if it is not the socket's.
        :raises ManagerError: if the server has stopped.
        """
        self.manager.add(websocket, address=address)

    def add(self, greenlet: Any) -> None:
        """Add a greenlet. Called by gevent."""
        websocket = getattr(getattr(greenlet, "_run", None), "__self__", None)
        if isinstance(websocket, WebSocket):
            self._running[greenlet] = websocket
        super().add(greenlet)

    def _discard(self, greenlet: Any) -> None:
        self._running.pop(greenlet, None)
        super()._discard(greenlet)

    def broadcast(
        self, message: str | bytes | bytearray | Message, binary: bool = False, overflow: OverflowPolicy | None = None
    ) -> int:
        """Send a message to every websocket; see :meth:`ws4py.manager.WebSocketManager.broadcast`. Never waits."""
        return self.manager.broadcast(message, binary, overflow)

    def clear(self) -> None:
        """Send a Close with 1001 to every websocket. It does not wait for their answers."""
        self._manager.close_all()
        for websocket in list(self._running.values()):
            try:
                websocket.close(1001, "Server is shutting down")
            except OSError as error:
                logger.debug("Could not close %r: %s", websocket, error)


def _pool_of(server: Any) -> GEventWebSocketPool:
    """Return the pool of a server, which is made if it has none of ours."""
    pool = getattr(server, "pool", None)
    if not isinstance(pool, GEventWebSocketPool):
        pool = server.__dict__.get("websocket_pool")
        if pool is None:
            pool = server.websocket_pool = GEventWebSocketPool()
    return pool


class WSGIServer(_WSGIServer):  # type: ignore[misc]
    """gevent's WSGI server, whose application may make websockets.

    Its ``pool`` is a :class:`GEventWebSocketPool`; the one that ``spawn=`` may name limits the HTTP requests alone.

    :param listener: an address (host, port), or a socket that listens.
    :param application: a WSGI application.
    :param limits: of the websockets; see :class:`~ws4py.manager.Limits`.
    :param history: of topics; see :class:`~ws4py.manager.WebSocketManager`.
    :param options: see :class:`gevent.pywsgi.WSGIServer`.
    """

    handler_class = WebSocketWSGIHandler
    pool: Any

    def __init__(
        self,
        listener: Any,
        application: Any = None,
        *args: Any,
        limits: Limits | None = None,
        history: Mapping[str, tuple[int, float]] | None = None,
        **options: Any,
    ):
        super().__init__(listener, application, *args, **options)
        self._request_pool = self.pool
        if self._request_pool is not None:
            self.full = self._has_full_request_pool
        self.pool = GEventWebSocketPool(limits=limits, history=history)

    def _has_full_request_pool(self) -> bool:
        # gevent goes on to accept when its pool has room again, and that is not `pool` here.
        if not self._request_pool.full():
            return False
        self._request_pool._semaphore.rawlink(self._start_accepting_if_started)
        return True

    def close(self) -> None:
        """Accept no more connections."""
        if self._request_pool is not None:
            self._request_pool._semaphore.unlink(self._start_accepting_if_started)
        super().close()

    def start(self) -> None:
        """Begin to accept connections."""
        if not self.pool.manager.running:
            self.pool.manager.start()
        super().start()

    def stop(self, timeout: float | None = None) -> None:
        """Accept no more connections, close every websocket with 1001, and wait until all have ended.

        :param timeout: for how many seconds at most, before those that are left are dropped; None for the limit
            ``drain_timeout``.
        """
        self.close()
        manager = self.pool._manager
        if timeout is not None:
            manager.limits = manager.limits.but(drain_timeout=timeout)
        self.pool.clear()
        shut_down(manager)
        self.pool.join(timeout=self.stop_timeout)
        self.pool.kill(block=True, timeout=1)
        if self._request_pool is not None:
            self._request_pool.join(timeout=self.stop_timeout if timeout is None else timeout)
            self._request_pool.kill(block=True, timeout=1)


# --- a server of websockets only --------------------------------------------------------------------------------------


class WebSocketServer(WSGIServer):
    """A server every path of which is a websocket.

    :param address: an address (host, port), or a socket that listens.
    :param application: a function of (websocket, environ), called in a greenlet of its own for each websocket, which
        then receives by ``websocket.receive()``; the websocket is closed when it returns.
    :param websocket_class: whose callbacks are called.
    :param websocket_protocols: the subprotocols that are spoken here.
    :param websocket_extensions: the extensions that are spoken here.
    :param fallback_app: a WSGI application for requests that don't ask for a websocket; without one they get a 4xx.
    :param origins: the origins whose pages may connect, ``'*'`` for all; None for the pages of this host.
    :param hosts: the names by which this server may be asked, as in the Host header; None for any.
    :param compression: True, or a :class:`~ws4py.extensions.permessage_deflate.PerMessageDeflate` of one's own:
        compress messages for clients that offer it.
    :param keep_environ: what a websocket keeps of the request's environ: see
        :class:`~ws4py.server.endpoint.Endpoint`.
    :param around: what surrounds each callback: see there.
    :param options: see :class:`WSGIServer`.
    """

    def __init__(
        self,
        address: Any,
        application: Callable[[Any, dict[str, Any]], Any] | None = None,
        websocket_class: Callable[..., WebSocket] = WebSocket,
        websocket_protocols: Sequence[str] = (),
        websocket_extensions: Sequence[str | Extension] = (),
        fallback_app: Callable[[dict[str, Any], StartResponse], Iterable[bytes]] | None = None,
        *,
        origins: str | Iterable[str] | None = None,
        hosts: str | Iterable[str] | None = None,
        compression: bool | Extension | None = None,
        keep_environ: bool | str | Collection[str] = True,
        around: Around | None = None,
        **options: Any,
    ) -> None:
        if application is not None:
            websocket_class = _handled(application, websocket_class)
        self.fallback_app = fallback_app
        self._websockets = WebSocketWSGIApplication(
            websocket_protocols,
            websocket_extensions,
            websocket_class,
            answer=True,
            origins=origins,
            hosts=hosts,
            compression=compression,
            keep_environ=keep_environ,
            around=around,
        )
        super().__init__(address, self._serve, **options)

    def _serve(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if self.fallback_app is not None and "websocket" not in environ.get("HTTP_UPGRADE", "").lower():
            return self.fallback_app(environ, start_response)
        return self._websockets(environ, start_response)


def _handled(function: Callable[[Any, dict[str, Any]], Any], base: Callable[..., WebSocket]) -> type[WebSocket]:
    """Return a class of websockets that ``function`` handles, in a greenlet each."""
    if not inspect.isclass(base) or not issubclass(base, WebSocket):
        raise TypeError("websocket_class must be a WebSocket if there is a function to handle them")

    class HandledWebSocket(base):  # type: ignore[misc, valid-type]
        """A websocket that a function of (websocket, environ) handles."""

        _received: Queue
        _done: Event

        def opened(self) -> None:
            super().opened()
            # As many messages wait as the connection's inbox takes; then the callback waits, and so the peer.
            self._received = Queue(self._connection.limits.max_inbox_messages)
            self._done = Event()
            gevent.spawn(self._handle, self.environ)

        def _handle(self, environ: dict[str, Any]) -> None:
            try:
                function(self, environ)
            except ConnectionClosed:
                logger.debug("The handler of %r met a closed connection", self)
            except Exception as error:
                logger.error("The handler of %r raised", self, exc_info=error)
                self.close(1011)
                self.unhandled_error(error)
            else:
                self.close()
            finally:
                self._done.set()
                while not self._received.empty():  # whoever waits to put a message can go on
                    self._received.get_nowait()

        def received_message(self, message: Message) -> None:
            if not self._done.is_set():
                self._received.put(message)

        def closed(self, code: int, reason: str | bytes | None = None) -> None:
            if hasattr(self, "_received"):
                gevent.spawn(self._received.put, None)  # which may be full
            super().closed(code, reason)

        def receive(self, message_obj: bool = False, timeout: float | None = None) -> Payload | None:
            """Return the next message, None when the websocket has ended; a greenlet waits for it.

            :param message_obj: return the message itself, not a str or bytes.
            :param timeout: for how many seconds at most; None for ever.
            :raises TimeoutError: if none came in that time.
            """
            return _receive(self._received, message_obj, timeout)

    HandledWebSocket.__name__ = HandledWebSocket.__qualname__ = base.__name__
    return HandledWebSocket


def _receive(queue: Queue, message_obj: bool, timeout: float | None) -> Payload | None:
    from gevent.queue import Empty

    try:
        message = queue.get(timeout=timeout)
    except Empty:
        raise TimeoutError(f"No message came within {timeout} seconds") from None
    if message is None:
        queue.put(None)  # for the next call
        return None
    if message_obj:
        return message  # type: ignore[no-any-return]
    return str(message) if message.is_text else bytes(message.data)


# --- names of 0.6 -----------------------------------------------------------------------------------------------------

from ws4py.logs import format_addresses  # noqa: E402, F401
