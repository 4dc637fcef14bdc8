"""websockets, with a thread for each connection."""

import time

from common import BLOCKING, DEFLATE, NEWS, PING, PORT, tls_context
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

members = set()


def handler(websocket):
    """Serve a connection."""
    path = websocket.request.path
    if path == "/fan":
        members.add(websocket)
    try:
        for message in websocket:
            if path == "/fan":
                for member in list(members):
                    member.send(NEWS)
                continue
            if path == "/slow":
                time.sleep(BLOCKING)
            websocket.send(message)
    except ConnectionClosed:
        pass
    finally:
        members.discard(websocket)


if __name__ == "__main__":
    options = {} if PING is None else {"ping_interval": PING or None}
    with serve(
        handler, "127.0.0.1", PORT, compression="deflate" if DEFLATE else None, ssl=tls_context(), **options
    ) as server:
        server.socket.listen(4096)
        server.serve_forever()
