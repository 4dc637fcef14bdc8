"""ws4py's server that needs no HTTP server."""

import contextlib
import time

from common import BLOCKING, DEFLATE, NEWS, OPTIONS, PING, PORT, tls_context

from ws4py import EchoWebSocket, WebSocket, WebSocketServer
from ws4py.server.threadedserver import Endpoint


class Fan(WebSocket):
    """Sends news to all for each message."""

    def received_message(self, message):
        server.manager.broadcast(NEWS)


class Slow(WebSocket):
    """Echoes after code that blocks."""

    def received_message(self, message):
        time.sleep(BLOCKING)
        self.send(message.data, message.is_binary)


options = {} if PING is None else {"ping_interval": PING or None}
if "workers" in OPTIONS:
    options["workers"] = int(OPTIONS["workers"])
limits = {"max_workers": int(OPTIONS["max_workers"])} if "max_workers" in OPTIONS else {}
paths = {
    "/ws": EchoWebSocket,
    "/fan": Fan,
    "/slow": Endpoint(handler_cls=Slow, compression=DEFLATE, **limits),
}
server = WebSocketServer(("127.0.0.1", PORT), paths, compression=DEFLATE, ssl_context=tls_context(), **options)

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt), server:
        server.serve_forever()
