"""The servers that are not CherryPy, each in a process of its own, for the tests: ``python -m tests.hosting OPTIONS``.

The websockets write a line of the log for each callback. A SIGTERM stops the server as its documentation says.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

OPTIONS: dict[str, Any] = {
    "host": "",
    "port": 0,
    "patch": False,
    "certificate": None,
    "key": None,
    "limits": {},
    "spawn": "default",
    **json.loads(sys.argv[1] if len(sys.argv) > 1 and __name__ == "__main__" else "{}"),
}

if OPTIONS["patch"]:
    from gevent import monkey

    monkey.patch_all()

from tests import serving  # noqa: E402 - nothing may be imported before the patching
from ws4py.messaging import Message  # noqa: E402
from ws4py.websocket import WebSocket  # noqa: E402

StartResponse = Callable[..., Any]
everybody: list[Recorder] = []
released = threading.Event()


class Recorder(WebSocket):
    """Echoes, and obeys a few words."""

    def opened(self) -> None:
        assert self.environ is not None
        say("opened", self.environ["PATH_INFO"], self.environ.get("HTTP_COOKIE"), self.protocols)
        everybody.append(self)
        if self.environ["PATH_INFO"] == "/greet":
            self.send("hello")

    def received_message(self, message: Message) -> None:
        word, _, rest = str(message).partition(" ") if message.is_text else ("", "", "")
        if word == "raise":
            raise RuntimeError(rest)
        if word == "broadcast":
            say("reached", broadcast(rest))
        elif word == "flood":
            say("flooding")
            try:
                while True:
                    self.send(bytes(65536), binary=True)
            except Exception as error:
                say("flooded", type(error).__name__)
                raise
        elif word == "fan":
            for number in range(int(rest)):
                broadcast(f"{number:05}" + "x" * 65536)
            say("fanned")
        elif word == "sleep":
            pause(float(rest))
            self.send("slept")
        elif word == "parts":
            self.send(part for part in rest.split())
        elif word == "thread":
            thread = start_native_thread(self.send, "from a thread")
            del thread
        else:
            self.send(message.data, message.is_binary)

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        if self in everybody:
            everybody.remove(self)
        say("closed", code, self.close_reason, self.environ is not None and self.stream is not None)


def say(*words: Any) -> None:
    """Write a line of the log."""
    print(json.dumps(words), flush=True)


def fallback(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Answer what is no websocket's."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "8")])
    return [b"fallback"]


def broadcast(text: str) -> int:
    """Send to all."""
    return int(manager().broadcast(text))


def manager() -> Any:
    """Return who runs the websockets."""
    return server.pool.manager if OPTIONS["host"].startswith("gevent") else server.manager


def pause(seconds: float) -> None:
    """Block the callback."""
    if OPTIONS["host"].startswith("gevent"):
        import gevent

        gevent.sleep(seconds)
    else:
        released.wait(seconds)


def start_native_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a thread of the system, whatever is patched."""
    import gevent

    return gevent.get_hub().threadpool.spawn(function, *arguments)


server: Any = None


def serve_gevent() -> None:
    """Serve by WebSocketServer, or by a WSGIServer with an application."""
    global server  # noqa: PLW0603
    import gevent

    from ws4py.limits import Limits
    from ws4py.server import geventserver

    tls = {}
    if OPTIONS["certificate"]:
        from gevent import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(OPTIONS["certificate"], OPTIONS["key"])
        tls["ssl_context"] = context
    options = {"limits": Limits(**OPTIONS["limits"]), "log": None, "spawn": OPTIONS["spawn"], **tls}
    address = ("127.0.0.1", OPTIONS["port"])
    kind = OPTIONS["host"].partition("-")[2]
    if kind == "wsgi":
        application = geventserver.WebSocketWSGIApplication(protocols=["chat", "news"], handler_cls=Recorder)
        server = geventserver.WSGIServer(address, application, **options)
    elif kind == "function":
        server = geventserver.WebSocketServer(address, handle, **options)
    elif kind == "bare":
        server = geventserver.WebSocketServer(address, websocket_class=Recorder, **options)
    elif kind == "foreign":
        from gevent import pywsgi

        application = geventserver.WebSocketWSGIApplication(handler_cls=Recorder)
        server = pywsgi.WSGIServer(address, application, handler_class=geventserver.WebSocketWSGIHandler, log=None)
    else:
        server = geventserver.WebSocketServer(
            address, websocket_class=Recorder, websocket_protocols=["chat", "news"], fallback_app=fallback, **options
        )
    gevent.signal_handler(signal.SIGTERM, lambda: gevent.spawn(server.stop))
    server.start()
    say("ready")
    server.serve_forever()
    say("stopped", len(getattr(server.pool, "manager", [])) if server.pool is not None else 0)


def handle(websocket: Any, environ: dict[str, Any]) -> None:
    """Handle a websocket as programs of old did."""
    say("handler", environ["PATH_INFO"])
    while (data := websocket.receive()) is not None:
        if data == "raise":
            raise RuntimeError("as it was told")
        if data == "leave":
            return
        websocket.send(data, isinstance(data, bytes))
    say("handled")


def serve_cheroot() -> None:
    """Serve by plain cheroot."""
    global server  # noqa: PLW0603
    from cheroot.ssl.builtin import BuiltinSSLAdapter
    from cheroot.wsgi import Server

    from ws4py.server.cherootserver import WebSocketMiddleware, attach
    from ws4py.server.wsgiutils import WebSocketWSGIApplication

    with_protocols = WebSocketWSGIApplication(protocols=["chat", "news"], handler_cls=Recorder)
    application = WebSocketMiddleware(
        ask, {"/": Recorder, "/chat": with_protocols, "/rooms/*": Recorder, "/greet": Recorder}
    )
    http = Server(("127.0.0.1", OPTIONS["port"]), application, numthreads=3)
    if OPTIONS["certificate"]:
        http.ssl_adapter = BuiltinSSLAdapter(OPTIONS["certificate"], OPTIONS["key"])
    server = http
    server.manager = attach(http, **OPTIONS["limits"])
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=http.stop).start())
    http.prepare()
    say("ready")
    http.serve()
    server.manager.join(serving.PATIENCE)
    say("stopped", len(server.manager))


def ask(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Be the application that is asked about handshakes."""
    path = environ["PATH_INFO"]
    if path == "/rooms/secret":
        start_response("401 Unauthorized", [("WWW-Authenticate", "Basic"), ("Content-Length", "6")])
        return [b"secret"]
    if path == "/rooms/broken":
        raise RuntimeError("the application fails")
    if path == "/rooms/lazy":
        return lazy(start_response)
    start_response("200 OK", [("Set-Cookie", "seen=1"), ("Content-Length", "5")])
    return [b"hello"]


def lazy(start_response: StartResponse) -> Iterable[bytes]:
    """Answer as a generator."""
    start_response("403 Forbidden", [("Content-Length", "4")])
    yield b"no"
    yield b"no"


def serve_wsgiref() -> None:
    """Serve by the server of the standard library."""
    global server  # noqa: PLW0603
    from wsgiref.simple_server import make_server

    from ws4py.server.wsgirefserver import WebSocketWSGIRequestHandler, WSGIServer
    from ws4py.server.wsgiutils import WebSocketWSGIApplication

    http = make_server(
        "127.0.0.1",
        OPTIONS["port"],
        server_class=WSGIServer,
        handler_class=WebSocketWSGIRequestHandler,
        app=WebSocketWSGIApplication(protocols=["chat", "news"], handler_cls=Recorder),
    )
    http.initialize_websockets_manager()
    server = http
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=http.shutdown).start())
    say("ready")
    http.serve_forever()
    http.server_close()
    say("stopped", len(http.manager or ()))


def serve_threaded() -> None:
    """Serve by the server that needs no HTTP server."""
    global server  # noqa: PLW0603
    import ssl

    from ws4py.server.threadedserver import WebSocketServer

    context = None
    if OPTIONS["certificate"]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(OPTIONS["certificate"], OPTIONS["key"])
    address = ("127.0.0.1", OPTIONS["port"])
    server = WebSocketServer(address, Recorder, protocols=["chat", "news"], ssl_context=context, **OPTIONS["limits"])
    signal.signal(signal.SIGTERM, lambda *_: server.shutdown())
    with server:
        say("ready")
        server.serve_forever()
    say("stopped", len(server.manager))


def make_application() -> Any:
    """Return the application for servers that import one: gunicorn."""
    from ws4py.server.wsgiutils import WebSocketWSGIApplication

    return WebSocketWSGIApplication(protocols=["chat", "news"], handler_cls=Recorder, answer=True)


def serve_werkzeug() -> None:
    """Serve by werkzeug's development server."""
    from werkzeug.serving import make_server

    tls: Any = (OPTIONS["certificate"], OPTIONS["key"]) if OPTIONS["certificate"] else None
    http = make_server("127.0.0.1", OPTIONS["port"], make_application(), threaded=True, ssl_context=tls)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=http.shutdown).start())
    say("ready")
    http.serve_forever()
    say("stopping")
    from ws4py.server import rawsocket

    rawsocket.stop()
    http.server_close()
    say("stopped", 0)


class Hosted(serving.Server):
    """One of these servers."""

    def __init__(self, host: str, program: list[str] | None = None, **options: Any) -> None:
        port = serving.free_port()
        options = {"host": host, "port": port, **options}
        tls = None
        if options.pop("tls", False):
            certificate, key, tls = serving.certificates()
            options |= {"certificate": certificate, "key": key}
        quiet = options.pop("quiet", True)
        status = options.pop("status", 0)
        program = program or ["-W", "error", "-m", "tests.hosting", json.dumps(options)]
        super().__init__(
            program=[word.replace("PORT", str(port)) for word in program], port=port, quiet=quiet, status=status
        )
        self.tls = tls

    def wait_until_ready(self) -> None:
        """Wait until the server listens."""

        def listens() -> bool:
            assert self.process.poll() is None, f"the server has ended:\n{self.log()}"
            try:
                self.connect_plainly().close()
            except ConnectionError:
                return False
            return True

        serving.eventually(listens, "the server listens")

    def __enter__(self) -> Hosted:
        """Wait until the server listens."""
        super().__enter__()
        return self

    def wait_for(self, *words: Any, times: int = 1) -> None:
        """Wait until the server has said this."""
        self.wait_for_line(json.dumps(words)[:-1], times)


if __name__ == "__main__":
    kind = OPTIONS["host"].partition("-")[0]
    {
        "gevent": serve_gevent,
        "cheroot": serve_cheroot,
        "threaded": serve_threaded,
        "wsgiref": serve_wsgiref,
        "werkzeug": serve_werkzeug,
    }[kind]()
