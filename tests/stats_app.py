"""Servers with the statistics mounted, for the tests: ``python -m tests.stats_app HOST PORT [OPTIONS]``.

Under ``/stats`` they are open, under ``/protected`` they ask for a password, ``/private`` tells nothing of single
connections, ``/few`` feeds two dashboards at most, ``/local`` is served by the names of this machine only; ``/ws``
echoes, and so does CherryPy's ``/proxied``, as behind a proxy. The options, as JSON, are those of the manager.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from ws4py.manager import WebSocketManager
from ws4py.server.stats import StatsApplication, basic_auth, mount
from ws4py.websocket import EchoWebSocket

StartResponse = Callable[..., Any]
INTERVAL = 0.2


def applications(manager: WebSocketManager | None) -> dict[str, StatsApplication]:
    return {
        "/stats": StatsApplication(manager, interval=INTERVAL),
        "/protected": StatsApplication(manager, authorize=basic_auth("admin", "s:cret")),
        "/forbidden": StatsApplication(manager, authorize=lambda environ: False),
        "/private": StatsApplication(manager, connections=False),
        "/few": StatsApplication(manager, interval=INTERVAL, max_viewers=2),
        "/local": StatsApplication(manager, hosts=["127.0.0.1", "localhost"]),
    }


def hello(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"hi"]


def mounted(application: Any, manager: WebSocketManager | None = None) -> Any:
    for path, stats in applications(manager).items():
        application = mount(application, stats, path)
    return application


def serve_cherrypy(host: str, port: int, options: dict[str, Any]) -> None:
    import cherrypy
    from cherrypy._cpnative_server import CPHTTPServer
    from cherrypy.lib import cpstats

    from ws4py.server.cherrypyserver import WebSocketPlugin, WebSocketTool
    from ws4py.server.cherrypystats import StatsHandler

    class Root:
        @cherrypy.expose
        def index(self) -> str:
            return "hi"

        @cherrypy.expose
        def ws(self, status: str = "") -> None:
            if status:
                raise cherrypy.HTTPError(int(status))

        @cherrypy.expose
        def proxied(self, *_: str) -> None:
            pass

    plugin = WebSocketPlugin(cherrypy.engine, **options)
    plugin.subscribe()
    cherrypy.tools.websocket = WebSocketTool()
    cherrypy.config.update(
        {
            "server.socket_host": "127.0.0.1",
            "server.socket_port": port,
            "server.socket_queue_size": 512,
            "engine.autoreload.on": False,
            "checker.on": False,
        }
    )
    cherrypy.log.access_log.handlers.clear()
    root: Any = Root()
    root.cpstats = cpstats.StatsPage()
    if host == "graft":
        for path, stats in applications(plugin.manager).items():
            cherrypy.tree.graft(stats, path)
    else:
        root.stats = StatsHandler(plugin.manager, interval=INTERVAL)
        root.protected = StatsHandler(plugin.manager, authorize=basic_auth("admin", "s:cret"))
        root.forbidden = StatsHandler(plugin.manager, authorize=lambda environ: False)
        root.private = StatsHandler(plugin.manager, connections=False)
        root.few = StatsHandler(plugin.manager, interval=INTERVAL, max_viewers=2)
        root.local = StatsHandler(plugin.manager, hosts=["127.0.0.1", "localhost"])
    if host == "native":
        cherrypy.server.httpserver = CPHTTPServer(cherrypy.server)
    websocket = {"tools.websocket.on": True, "tools.websocket.handler_cls": EchoWebSocket}
    cherrypy.tree.mount(root, "/", {"/ws": websocket, "/proxied": {**websocket, "tools.proxy.on": True}})
    cherrypy.engine.signals.subscribe()
    cherrypy.engine.start()
    cherrypy.engine.block()


def serve_cheroot(port: int, options: dict[str, Any]) -> None:
    from cheroot.wsgi import Server

    from ws4py.server.cherootserver import WebSocketMiddleware, attach

    server = Server(
        ("127.0.0.1", port), WebSocketMiddleware(mounted(hello), {"/ws": EchoWebSocket}), request_queue_size=512
    )
    attach(server, **options)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.stop).start())
    server.prepare()
    print("Bus STARTED", flush=True)
    server.serve()


def serve_gevent(port: int, options: dict[str, Any]) -> None:
    import gevent

    from ws4py.manager import Limits
    from ws4py.server.geventserver import WebSocketWSGIApplication, WSGIServer

    echo = WebSocketWSGIApplication(handler_cls=EchoWebSocket)
    statistics = mounted(hello)

    def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        return (echo if environ["PATH_INFO"] == "/ws" else statistics)(environ, start_response)

    server = WSGIServer(("127.0.0.1", port), application, limits=Limits().but(**options), log=None)
    gevent.signal_handler(signal.SIGTERM, lambda: gevent.spawn(server.stop))
    server.start()
    print("Bus STARTED", flush=True)
    server.serve_forever()


def main() -> None:
    host, port, options = sys.argv[1], int(sys.argv[2]), json.loads((*sys.argv[3:], "{}")[0])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests' own Ctrl-C is not ours
    if host == "cheroot":
        serve_cheroot(port, options)
    elif host.startswith("gevent"):
        if host == "gevent-patched":
            from gevent import monkey

            monkey.patch_all()
        serve_gevent(port, options)
    else:
        serve_cherrypy(host, port, options)


if __name__ == "__main__":
    main()
