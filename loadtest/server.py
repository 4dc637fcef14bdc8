"""The server that the scenarios aim at: ``python -m loadtest.server --help``.

``/echo`` echoes, ``/blocking`` sleeps for 10 ms before it does, what is said on ``/crowd`` is sent to everybody, and
``/page`` is a page of HTTP.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and {"gevent", "--server=gevent"} & set(sys.argv):
    # Nothing may be imported before the patching.
    from gevent import monkey

    monkey.patch_all()

import argparse
import json
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from ws4py.messaging import Message
from ws4py.websocket import EchoWebSocket, WebSocket

BLOCKING = 0.010
BACKLOG = 4096
PAGE = b"<!doctype html><title>ws4py</title>" + b"<p>This page comes from the process of the websockets.</p>" * 20


class Blocking(WebSocket):
    """Echoes, after something that blocks."""

    def received_message(self, message: Message) -> None:
        """Sleep, then answer."""
        time.sleep(BLOCKING)
        self.send(message.data, message.is_binary)


class Crowd(WebSocket):
    """Sends what is said to everybody, and tells who has said it how many that is."""

    broadcast: Callable[[str], int]
    """Sends to every websocket; set when the server is made."""

    def received_message(self, message: Message) -> None:
        """Pass a message on."""
        reached = type(self).broadcast(str(message))
        self.send(json.dumps({"reached": reached}))


PATHS: dict[str, type[WebSocket]] = {"/echo": EchoWebSocket, "/blocking": Blocking, "/crowd": Crowd}


def _page(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(PAGE)))])
    return [PAGE]


def _limits(options: argparse.Namespace) -> dict[str, Any]:
    return {"ping_interval": options.ping_interval or None, "drain_timeout": 2.0}


def serve_cherrypy(options: argparse.Namespace) -> None:
    """Serve by CherryPy until SIGTERM."""
    import cherrypy

    from ws4py.server.cherrypyserver import WebSocketPlugin, WebSocketTool

    class Root:
        @cherrypy.expose
        def page(self) -> bytes:
            return PAGE

        @cherrypy.expose
        def echo(self) -> None:
            pass

        blocking = crowd = echo

    plugin = WebSocketPlugin(cherrypy.engine, workers=options.workers, **_limits(options))
    plugin.subscribe()
    Crowd.broadcast = plugin.manager.broadcast
    cherrypy.tools.websocket = WebSocketTool()
    settings: dict[str, Any] = {
        "environment": "production",
        "log.screen": False,
        "server.socket_host": options.address,
        "server.socket_port": options.port,
        "server.socket_queue_size": BACKLOG,
    }
    if options.certificate:
        settings |= {"server.ssl_certificate": options.certificate, "server.ssl_private_key": options.key}
    cherrypy.config.update(settings)
    tool = {"tools.websocket.on": True, "tools.websocket.compression": options.compression}
    config = {path: {**tool, "tools.websocket.handler_cls": handler} for path, handler in PATHS.items()}
    cherrypy.engine.signals.subscribe()
    cherrypy.tree.mount(Root(), "/", config)
    cherrypy.engine.start()
    print(f"serving on {options.address}:{options.port}", flush=True)
    cherrypy.engine.block()


def serve_cheroot(options: argparse.Namespace) -> None:
    """Serve by plain cheroot until SIGTERM."""
    from cheroot.ssl.builtin import BuiltinSSLAdapter
    from cheroot.wsgi import Server

    from ws4py.server.cherootserver import WebSocketMiddleware, attach

    application = WebSocketMiddleware(_page, PATHS, ask=False, compression=options.compression)
    server = Server((options.address, options.port), application, request_queue_size=BACKLOG)
    if options.certificate:
        server.ssl_adapter = BuiltinSSLAdapter(options.certificate, options.key)
    Crowd.broadcast = attach(server, workers=options.workers, **_limits(options)).broadcast
    server.prepare()
    print(f"serving on {options.address}:{options.port}", flush=True)
    try:
        server.serve()
    finally:
        server.stop()


def serve_gevent(options: argparse.Namespace) -> None:
    """Serve by gevent until SIGTERM."""
    import gevent
    from gevent.event import Event

    from ws4py.limits import Limits
    from ws4py.server.geventserver import WSGIServer
    from ws4py.server.wsgiutils import WebSocketWSGIApplication

    websockets = {
        path: WebSocketWSGIApplication(handler_cls=handler, answer=True, compression=options.compression)
        for path, handler in PATHS.items()
    }

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return websockets.get(environ["PATH_INFO"], _page)(environ, start_response)

    tls = {"certfile": options.certificate, "keyfile": options.key} if options.certificate else {}
    server = WSGIServer(
        (options.address, options.port),
        application,
        log=None,
        backlog=BACKLOG,
        limits=Limits().but(**_limits(options)),
        **tls,
    )
    Crowd.broadcast = server.pool.broadcast
    stopping = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, stopping.set)
    server.start()
    print(f"serving on {options.address}:{options.port}", flush=True)
    stopping.wait()
    server.stop()


SERVERS = {"cherrypy": serve_cherrypy, "cheroot": serve_cheroot, "gevent": serve_gevent}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says how to serve."""
    parser.add_argument("--server", choices=list(SERVERS), default="cherrypy", help="what serves; cherrypy")
    parser.add_argument("--workers", type=int, default=32, help="threads for handlers; 0: the manager's own; 32")
    parser.add_argument("--compression", action="store_true", help="compress for clients that offer it")
    parser.add_argument("--ping-interval", type=float, default=30.0, help="seconds between Pings; 0 for none; 30")


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.server", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--address", default="127.0.0.1", help="to listen on; 127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="likewise; 9000")
    parser.add_argument("--certificate", help="for TLS, a file")
    parser.add_argument("--key", help="of the certificate, a file")
    options = parser.parse_args()
    if options.server == "cheroot":  # the others have handlers of their own
        signal.signal(signal.SIGTERM, _terminate)
    try:
        SERVERS[options.server](options)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
