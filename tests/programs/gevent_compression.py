"""An echo server on gevent that compresses: ``gevent_compression.py PORT``. It says ``ready``."""

import signal
import sys

import gevent

from ws4py.extensions.permessage_deflate import PerMessageDeflate
from ws4py.server.geventserver import WebSocketServer
from ws4py.websocket import EchoWebSocket

server = WebSocketServer(
    ("127.0.0.1", int(sys.argv[1])),
    websocket_class=EchoWebSocket,
    compression=PerMessageDeflate(server_no_context_takeover=False, client_no_context_takeover=False, threshold=0),
    log=None,
)
gevent.signal_handler(signal.SIGTERM, lambda: gevent.spawn(server.stop))
server.start()
print("ready", flush=True)
server.serve_forever()
