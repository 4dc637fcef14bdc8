"""An echo server on gevent for the Autobahn test suite: ``gevent_echo.py PORT``, at every path."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402 - patching goes before every other import

from ws4py.manager import Limits  # noqa: E402
from ws4py.server.geventserver import WebSocketServer  # noqa: E402
from ws4py.websocket import EchoWebSocket  # noqa: E402


def main() -> None:
    limits = Limits(max_message_size=32 * 1024 * 1024, max_fragments=100_000)
    address = ("127.0.0.1", int(sys.argv[1]))
    WebSocketServer(address, websocket_class=EchoWebSocket, limits=limits).serve_forever()


if __name__ == "__main__":
    main()
