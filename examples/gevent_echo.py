"""An echo server for gevent: ``pip install ws4py[gevent]``. Every path is a websocket."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402 - nothing may be imported before the patching

from ws4py.server.geventserver import WebSocketServer  # noqa: E402
from ws4py.websocket import EchoWebSocket  # noqa: E402

if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9001
    server = WebSocketServer(("127.0.0.1", port), websocket_class=EchoWebSocket)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("Stopped")
