"""gevent, with this ws4py and with 0.6."""

from gevent import monkey

monkey.patch_all()

import time  # noqa: E402 - nothing may be imported before the patching

from common import BLOCKING, CERTIFICATE, DEFLATE, KEY, NEWS, PAGE, PING, PORT  # noqa: E402

import ws4py  # noqa: E402
from ws4py.server.geventserver import WSGIServer  # noqa: E402
from ws4py.server.wsgiutils import WebSocketWSGIApplication  # noqa: E402
from ws4py.websocket import EchoWebSocket, WebSocket  # noqa: E402

OLD = ws4py.__version__.startswith("0.")


class Fan(WebSocket):
    """Sends news to all for each message."""

    members = set()  # noqa: RUF012 - of all of them

    def opened(self):
        self.members.add(self)

    def closed(self, code, reason=None):
        self.members.discard(self)

    def received_message(self, message):
        if OLD:
            for websocket in list(self.members):
                websocket.send(NEWS)
        else:
            server.pool.broadcast(NEWS)


class Slow(WebSocket):
    """Echoes after code that blocks, but for what gevent has patched."""

    def received_message(self, message):
        time.sleep(BLOCKING)
        self.send(message.data, message.is_binary)


def websocket_application(handler):
    """Return what serves a path."""
    options = {"compression": True} if DEFLATE else {}
    return WebSocketWSGIApplication(handler_cls=handler, **options)


websockets = {
    path: websocket_application(handler) for path, handler in {"/ws": EchoWebSocket, "/slow": Slow, "/fan": Fan}.items()
}


def application(environ, start_response):
    """Serve a page or a websocket."""
    websocket = websockets.get(environ["PATH_INFO"])
    if websocket is not None:
        return websocket(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(PAGE)))])
    return [PAGE]


options = {"log": None, "backlog": 4096}
if CERTIFICATE:
    options |= {"certfile": CERTIFICATE, "keyfile": KEY}
if not OLD and PING is not None:
    from ws4py.limits import Limits

    options["limits"] = Limits(ping_interval=PING or None)
server = WSGIServer(("127.0.0.1", PORT), application, **options)

if __name__ == "__main__":
    server.serve_forever()
