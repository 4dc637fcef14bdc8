"""The application, and the servers that are started by a program: ``python -m tests.doors.app KIND PLACE``.

PLACE is a port, or the path of a unix socket.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ws4py.manager import WebSocketManager
from ws4py.server.middleware import WebSocketMiddleware
from ws4py.websocket import EchoWebSocket

own: WebSocketManager | None = None
if os.environ.get("OWN_MANAGER"):
    own = WebSocketManager()
    own.daemon = os.environ["OWN_MANAGER"] == "daemon"
    own.start()


def pages(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with what this process has."""
    state = {
        "pid": os.getpid(),
        "threads": len(os.listdir("/proc/self/task")),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }
    body = json.dumps(state).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


application = WebSocketMiddleware(pages, {"/ws": EchoWebSocket}, own, ask=False)


def serve_werkzeug(place: str, tls: Any, **options: Any) -> None:
    """Serve by werkzeug's development server."""
    from werkzeug.serving import run_simple

    host, port = (f"unix://{place}", 0) if "/" in place else ("127.0.0.1", int(place))
    run_simple(host, port, application, ssl_context=tls, **options)


def serve_flask(place: str, tls: Any) -> None:
    """Serve by Flask's app.run()."""
    from flask import Flask

    app = Flask(__name__)
    app.wsgi_app = application  # type: ignore[method-assign]
    app.run(port=int(place), ssl_context=tls)


def serve_wsgiref(place: str) -> None:
    """Serve by the server of the standard library."""
    from wsgiref.simple_server import make_server

    make_server("127.0.0.1", int(place), application).serve_forever()


def serve_django(place: str) -> None:
    """Serve by Django's development server."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.configure(DEBUG=True, ROOT_URLCONF="tests.doors.app", WSGI_APPLICATION="tests.doors.app.application")
    django.setup()
    call_command("runserver", f"127.0.0.1:{place}", use_reloader=False, skip_checks=True)


urlpatterns: list[Any] = []


def serve_waitress(place: str, **options: Any) -> None:
    """Serve by waitress."""
    import waitress

    where = {"unix_socket": place} if "/" in place else {"host": "127.0.0.1", "port": int(place)}
    waitress.serve(application, threads=4, **where, **options)


def main() -> None:
    """Serve until Ctrl-C."""
    kind, place, *rest = sys.argv[1:]
    name, _, variant = kind.partition("-")
    tls: Any = tuple(rest) if rest and name in ("werkzeug", "flask") else None
    try:
        if name == "werkzeug":
            files = rest if variant == "reloader" else []
            reloading = {"use_reloader": True, "reloader_type": "stat", "reloader_interval": 0.2, "extra_files": files}
            options = reloading if variant == "reloader" else {"threaded": variant != "single"}
            serve_werkzeug(place, None if variant == "reloader" else tls, **options)
        elif name == "flask":
            serve_flask(place, tls)
        elif name == "wsgiref":
            serve_wsgiref(place)
        elif name == "django":
            serve_django(place)
        elif name == "waitress":
            serve_waitress(place, **({"channel_request_lookahead": 1} if variant == "lookahead" else {}))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
