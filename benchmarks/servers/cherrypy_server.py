"""CherryPy, with this ws4py and with 0.6."""

import contextlib
import threading
import time

import cherrypy
from common import BLOCKING, CERTIFICATE, DEFLATE, KEY, NEWS, OPTIONS, PAGE, PING, PORT

import ws4py
from ws4py.server.cherrypyserver import WebSocketPlugin, WebSocketTool
from ws4py.websocket import EchoWebSocket, WebSocket

OLD = ws4py.__version__.startswith("0.")


class Fan(WebSocket):
    """Sends news to all for each message; 0.6 may call it from one thread only, its manager's."""

    members = set()  # noqa: RUF012 - of all of them

    def opened(self):
        self.members.add(self)

    def closed(self, code, reason=None):
        self.members.discard(self)

    def received_message(self, message):
        if OLD:
            cherrypy.engine.publish("websocket-broadcast", NEWS)
        else:
            plugin.manager.broadcast(NEWS)


class Slow(WebSocket):
    """Echoes after code that blocks."""

    def received_message(self, message):
        time.sleep(BLOCKING)
        self.send(message.data, message.is_binary)


class Root:
    """The pages."""

    @cherrypy.expose
    def index(self):
        return PAGE

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def threads(self):
        """Tell the threads' names by their numbers in the system."""
        return {str(thread.native_id): thread.name for thread in threading.enumerate()}

    @cherrypy.expose
    def ws(self):
        pass

    slow = fan = ws


def plugin_options():
    """Return what this ws4py is asked for; 0.6 has no options, and sends no Pings by itself."""
    if OLD:
        return {}
    options = {}
    if PING is not None:
        options["ping_interval"] = PING or None
    if "workers" in OPTIONS:
        options["workers"] = int(OPTIONS["workers"])
    return options


def endpoint(handler):
    """Return the configuration of a path."""
    config = {"tools.websocket.on": True, "tools.websocket.handler_cls": handler}
    if DEFLATE:
        config["tools.websocket.compression"] = True
    if handler is Slow and "max_workers" in OPTIONS:
        config["tools.websocket.max_workers"] = int(OPTIONS["max_workers"])
    if OLD and PING:
        config["tools.websocket.heartbeat_freq"] = PING
    return config


plugin = WebSocketPlugin(cherrypy.engine, **plugin_options())

if __name__ == "__main__":
    settings = {
        "environment": "production",
        "log.screen": False,
        "server.socket_port": PORT,
        "server.socket_queue_size": 1024,
    }
    if CERTIFICATE:
        settings |= {"server.ssl_certificate": CERTIFICATE, "server.ssl_private_key": KEY}
    cherrypy.config.update(settings)
    plugin.subscribe()
    cherrypy.tools.websocket = WebSocketTool()
    paths = {"/ws": EchoWebSocket, "/slow": Slow, "/fan": Fan}
    with contextlib.suppress(KeyboardInterrupt):
        cherrypy.quickstart(Root(), "/", {path: endpoint(handler) for path, handler in paths.items()})
