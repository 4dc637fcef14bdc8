"""WebSockets in CherryPy: a tool that upgrades requests, and a plugin that runs the manager.

.. code-block:: python

    import cherrypy
    from ws4py.server.cherrypyserver import WebSocketPlugin, WebSocketTool
    from ws4py.websocket import EchoWebSocket

    WebSocketPlugin(cherrypy.engine).subscribe()
    cherrypy.tools.websocket = WebSocketTool()

    class Root:
        @cherrypy.expose
        def ws(self):
            handler = cherrypy.request.ws_handler

    cherrypy.quickstart(Root(), '/', config={'/ws': {'tools.websocket.on': True,
                                                     'tools.websocket.handler_cls': EchoWebSocket}})

The page handler runs before the websocket exists for its peer: it may set attributes on
``cherrypy.request.ws_handler``, or refuse with ``cherrypy.HTTPError``, and then there is no websocket. HTTP's worker
threads are free again once the handshake is done.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import cherrypy
from cherrypy import Tool
from cherrypy.process import plugins, servers

from ws4py.around import Around
from ws4py.exc import HandshakeError, ManagerError
from ws4py.extensions import Extension
from ws4py.handshake import WS_VERSION
from ws4py.manager import WebSocketManager
from ws4py.manager.process import shut_down
from ws4py.messaging import Message
from ws4py.server import takeover
from ws4py.server.cpstats import WebSocketStatistics
from ws4py.server.endpoint import Endpoint, Request
from ws4py.server.listenqueue import raise_cherrypys
from ws4py.websocket import WebSocket

__all__ = ["WebSocketPlugin", "WebSocketTool", "environ_of"]

RESTARTS = 3
MINUTE = 60.0
"""How often a manager that fails is started again, and in how many seconds."""


class Refusal(cherrypy.HTTPError, HandshakeError):  # type: ignore[misc]
    """A handshake that was refused, as CherryPy answers it."""

    def __init__(self, error: HandshakeError) -> None:
        HandshakeError.__init__(self, error.msg, error.status, error.headers)
        cherrypy.HTTPError.__init__(self, error.status, error.msg)
        self.headers = error.headers

    def set_response(self) -> None:
        """Make the response this one. Called by CherryPy."""
        super().set_response()
        for name, value in self.headers:
            cherrypy.serving.response.headers[name] = value


class _Server:
    """CherryPy, as a handshake sees it."""

    def __init__(self) -> None:
        self._connection = takeover.current_connection()
        self.socket = getattr(self._connection, "socket", None)

    def admit(self, address: str | None) -> None:
        """Ask the plugin whether one more websocket is welcome.

        :raises HandshakeError: if it is not; with 500 if there is no plugin to run it, and with 501 if the HTTP server
            is not cheroot.
        """
        if not cherrypy.engine.listeners.get("handle-websocket"):
            raise HandshakeError(
                "No WebSocketPlugin is running: WebSocketPlugin(cherrypy.engine).subscribe() before the engine starts",
                500,
            )
        for refusal in cherrypy.engine.publish("websocket-admission", address):
            if isinstance(refusal, HandshakeError):
                raise refusal
        if self._connection is None:
            raise HandshakeError("This server can't hand its sockets over: serve CherryPy with cheroot", 501)

    def refused(self, status: int) -> None:
        """Have a handshake counted that was refused."""
        cherrypy.engine.publish("websocket-refused", status)


class WebSocketTool(Tool):  # type: ignore[misc]
    """The tool. Its arguments, as ``tools.websocket.NAME`` in the configuration, are those of :meth:`upgrade`."""

    def __init__(self) -> None:
        Tool.__init__(self, "before_request_body", self.upgrade)

    def _setup(self) -> None:
        """Attach the hooks to the request. Called by CherryPy."""
        arguments = self._merged_args()
        hooks = cherrypy.serving.request.hooks
        priority = arguments.pop("priority", getattr(self.callable, "priority", self._priority))
        hooks.attach(self._point, self.callable, priority=priority, **arguments)
        hooks.attach("before_finalize", self.complete, priority=priority)
        hooks.attach("after_error_response", self.complete)
        hooks.attach("on_end_request", self.start_handler, priority=100, failsafe=True)

    def upgrade(
        self,
        protocols: Sequence[str] | None = None,
        extensions: Sequence[str] | None = None,
        version: Sequence[int] = WS_VERSION,
        handler_cls: Callable[..., WebSocket] = WebSocket,
        heartbeat_freq: float | None = None,
        origins: str | Iterable[str] | None = None,
        compression: bool | Extension | None = None,
        hosts: str | Iterable[str] | None = None,
        keep_environ: bool | str | Collection[str] = True,
        around: Around | None = None,
        **limits: Any,
    ) -> None:
        """Check the handshake, and make ``cherrypy.request.ws_handler``.

        :param protocols: the subprotocols that are spoken here. The client's first wish among them is granted.
        :param extensions: the extensions that are spoken here.
        :param version: the versions of the protocol that are.
        :param handler_cls: the class of the websocket; it is called with (sock, protocols, extensions, environ,
            heartbeat_freq=...).
        :param heartbeat_freq: after how many seconds a Ping is sent; None for the manager's default, 0 for none.
        :param origins: the origins whose pages may connect, ``'*'`` for all; None for the pages of this host.
        :param compression: True, or a :class:`~ws4py.extensions.permessage_deflate.PerMessageDeflate` of one's own:
            compress messages for clients that offer it.
        :param hosts: the names by which this server may be asked, as in the Host header, with or without a port; None
            for any.
        :param keep_environ: what a websocket keeps of the request's environ: True for all of it, up to 16 KiB of text;
            False for nothing; or the names to keep.
        :param around: what surrounds each callback: see :class:`~ws4py.server.endpoint.Endpoint`.
        :param limits: of this endpoint's connections, by their names in :class:`ws4py.manager.Limits`.
        :raises cherrypy.HTTPError: that is a :class:`~ws4py.exc.HandshakeError` too, if the handshake is refused: 400,
            403, 405, 426, 429, 503; 501 if the HTTP server is not cheroot.
        :raises TypeError: if ``handler_cls`` makes no WebSocket, or a limit is unknown or the manager's own.
        :raises ValueError: if a limit is out of range.
        """
        request = cherrypy.serving.request
        endpoint = Endpoint(
            protocols,
            extensions,
            functools.partial(handler_cls, heartbeat_freq=heartbeat_freq),
            versions=version,
            origins=origins,
            hosts=hosts,
            compression=compression,
            keep_environ=keep_environ,
            around=around,
            **limits,
        )
        asked = Request(
            request.method,
            request.headers,
            tuple(request.protocol)[:2],
            request.base.partition("://")[0],  # which tools.proxy corrects, unlike request.scheme
            request.remote.ip,
            environ_of(request),
        )
        try:
            acceptance, handler = endpoint.open(asked, _Server())
        except HandshakeError as error:
            raise Refusal(error) from error
        request.process_request_body = False
        request.ws_handler = handler
        request.ws_acceptance = acceptance
        request.ws_refused = False
        cherrypy.serving.response.status = "101 Switching Protocols"

    def complete(self) -> None:
        """Make the response a 101, if it is still to be one: the page handler, or a later hook, may have refused."""
        request, response = cherrypy.serving.request, cherrypy.serving.response
        acceptance = getattr(request, "ws_acceptance", None)
        if acceptance is None:
            return
        if not str(response.status).startswith("101"):
            for name, value in acceptance.headers:
                if response.headers.get(name) == value:
                    del response.headers[name]
            if not request.ws_refused:
                request.ws_refused = True
                cherrypy.engine.publish("websocket-refused", int(str(response.status)[:3]))
            return
        response.stream = False  # else CherryPy would send what the page handler has returned
        response.headers.pop("Content-Type", None)
        for name, value in acceptance.headers:
            response.headers[name] = value

    def start_handler(self) -> None:
        """Have the socket taken over, now that the head of the response is written."""
        request = cherrypy.serving.request
        handler = getattr(request, "ws_handler", None)
        if handler is None:
            return
        del request.ws_handler
        connection = takeover.current_connection()
        if connection is None or not getattr(cherrypy.serving.response, "output_status", b"").startswith(b"101"):
            handler.sock = None  # refused by the page handler, or by an error
            return
        engine, address = cherrypy.engine, (request.remote.ip, request.remote.port)

        def receive(sock: Any, early: bytes) -> None:
            handler.sock = sock
            handler.buf = early
            engine.publish("handle-websocket", handler, address)

        takeover.arm(connection, receive)


class WebSocketPlugin(plugins.SimplePlugin):  # type: ignore[misc]
    """Runs a :class:`~ws4py.manager.WebSocketManager` while the engine runs.

    It listens to the bus channels ``handle-websocket`` (websocket, address), ``websocket-broadcast`` (message, binary)
    and ``websocket-publish`` (topic, message, binary, key). What the manager counts is in ``logging.statistics``: see
    :mod:`ws4py.server.cpstats`. Where ``server.socket_queue_size`` is CherryPy's default, it becomes what the system
    allows, so that many clients may come at once.

    :param bus: ``cherrypy.engine``.
    :param manager: a manager of one's own, not started.
    :param options: of the manager, if there is none: see :class:`~ws4py.manager.WebSocketManager`.
    """

    def __init__(self, bus: Any, manager: WebSocketManager | None = None, **options: Any) -> None:
        plugins.SimplePlugin.__init__(self, bus)
        if manager is not None and options:
            raise TypeError("Options are for the plugin's own manager: give them to yours")
        self.manager = manager if manager is not None else WebSocketManager(**options)
        self._statistics = WebSocketStatistics(self.manager)
        self._serving = False
        self._restarting = threading.Lock()
        self._restarts: deque[float] = deque(maxlen=RESTARTS)

    @property
    def _channels(self) -> dict[str, Callable[..., Any]]:
        return {
            "handle-websocket": self.handle,
            "websocket-broadcast": self.broadcast,
            "websocket-publish": self.publish,
            "websocket-admission": self.admit,
            "websocket-refused": self.count_refusal,
        }

    def start(self) -> None:
        """Start the manager. Called by the bus."""
        self.bus.log("Starting WebSocket processing")
        self._raise_listen_queues()
        if self.manager.on_failure is None:
            self.manager.on_failure = self._restart
        if not self.manager.running:
            if not self.manager.is_alive():
                self.manager.daemon = True  # the engine keeps the process alive, and stops this when it ends
            self.manager.start()
        self._serving = True
        for channel, listener in self._channels.items():
            self.bus.subscribe(channel, listener)
        self._statistics.publish()

    # After the Daemonizer (65) has forked, since threads don't survive that, and before HTTP is served (75).
    start.priority = 72  # type: ignore[attr-defined]

    def _raise_listen_queues(self) -> None:
        for listener in list(self.bus.listeners["start"]):
            adapter = getattr(listener, "__self__", None)
            if isinstance(adapter, servers.ServerAdapter):
                allowed = raise_cherrypys(adapter)
                if allowed is not None:
                    self.bus.log(f"{allowed} connections may wait for the HTTP server (server.socket_queue_size)")

    def stop(self) -> None:
        """Stop the manager, and wait for it. Called by the bus, when HTTP is not served any more."""
        self.bus.log("Terminating WebSocket processing")
        self._serving = False
        if self.manager.on_failure == self._restart:
            self.manager.on_failure = None
        for channel, listener in self._channels.items():
            self.bus.unsubscribe(channel, listener)
        self._statistics.withdraw()
        self.cleanup()

    stop.priority = 50  # type: ignore[attr-defined]

    def unsubscribe(self) -> None:
        """Leave the bus, to another plugin perhaps. What runs, runs on until :meth:`stop`."""
        super().unsubscribe()
        for channel, listener in self._channels.items():
            self.bus.unsubscribe(channel, listener)

    def cleanup(self) -> None:
        """Close all websockets with 1001, and wait for the end of the manager."""
        shut_down(self.manager)

    def _restart(self) -> None:
        """Start the manager again after a failure; not more often than three times a minute, so the next handshake
        after that tries it, too."""
        with self._restarting:
            now = time.monotonic()
            often = len(self._restarts) == RESTARTS and now - self._restarts[0] < MINUTE
            if not self._serving or not self.manager.failed or often:
                return
            self._restarts.append(now)
            try:
                self.manager.start()
            except Exception:  # noqa: BLE001 - the next handshake tries again
                self.bus.log("WebSocket processing failed, and could not be started again", logging.CRITICAL, True)
            else:
                self.bus.log("WebSocket processing failed, and was started again", logging.CRITICAL)

    def handle(self, ws_handler: WebSocket, peer_addr: tuple[str, int]) -> None:
        """Give a websocket to the manager.

        :param ws_handler: whose handshake is done.
        :param peer_addr: of the client, as CherryPy has it.
        """
        self.manager.add(ws_handler, address=peer_addr[0] if peer_addr else None)

    def admit(self, address: str | None) -> HandshakeError | None:
        """Return why a handshake from ``address`` is to be refused, None if it is not."""
        if self.manager.failed:
            self._restart()
        try:
            self.manager.admit(address)
        except HandshakeError as error:
            return error
        except ManagerError as error:
            return HandshakeError(str(error), 503)
        return None

    def count_refusal(self, status: int) -> None:
        """Count a handshake that was refused."""
        self.manager.count_refusal(status)

    def broadcast(self, message: str | bytes | bytearray | Message, binary: bool = False) -> None:
        """Send a message to every websocket; see :meth:`ws4py.manager.WebSocketManager.broadcast`."""
        self.manager.broadcast(message, binary)

    def publish(
        self, topic: str, message: str | bytes | bytearray | Message, binary: bool = False, key: str | None = None
    ) -> None:
        """Send a message to every websocket on a topic; see :meth:`ws4py.manager.WebSocketManager.publish`."""
        self.manager.publish(topic, message, binary, key)


def environ_of(request: Any) -> dict[str, Any]:
    """Return the WSGI environ of a request, or one like it: CherryPy's native server has none."""
    environ: dict[str, Any] | None = getattr(request, "wsgi_environ", None)
    if environ is not None:
        return environ
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": request.script_name,
        "PATH_INFO": request.path_info,
        "QUERY_STRING": request.query_string,
        "SERVER_PROTOCOL": "HTTP/{}.{}".format(*request.protocol),
        "SERVER_NAME": request.local.name or request.local.ip,
        "SERVER_PORT": str(request.local.port),
        "REMOTE_ADDR": request.remote.ip,
        "REMOTE_PORT": str(request.remote.port),
        "wsgi.url_scheme": request.scheme,
    }
    for name, value in request.headers.items():
        environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ


# --- names of 0.6 -----------------------------------------------------------------------------------------------------

from ws4py.handshake import WS_KEY  # noqa: E402, F401
