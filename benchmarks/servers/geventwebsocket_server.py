"""gevent-websocket, with wsaccel, as its documentation advises. It has no compression and sends no Pings by itself."""

from gevent import monkey

monkey.patch_all()

import time  # noqa: E402 - nothing may be imported before the patching

from common import BLOCKING, CERTIFICATE, KEY, NEWS, PAGE, PORT  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402
from geventwebsocket.handler import WebSocketHandler  # noqa: E402

members = set()


def serve(websocket, path):
    """Serve a websocket until its end."""
    if path == "/fan":
        members.add(websocket)
    try:
        while (message := websocket.receive()) is not None:
            if path == "/fan":
                for member in list(members):
                    member.send(NEWS)
                continue
            if path == "/slow":
                time.sleep(BLOCKING)
            websocket.send(message, isinstance(message, (bytes, bytearray)))
    finally:
        members.discard(websocket)


def application(environ, start_response):
    """Serve a page or a websocket."""
    websocket = environ.get("wsgi.websocket")
    if websocket is not None:
        serve(websocket, environ["PATH_INFO"])
        return []
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(PAGE)))])
    return [PAGE]


if __name__ == "__main__":
    options = {"certfile": CERTIFICATE, "keyfile": KEY} if CERTIFICATE else {}
    WSGIServer(
        ("127.0.0.1", PORT), application, handler_class=WebSocketHandler, log=None, backlog=4096, **options
    ).serve_forever()
