"""Applications of Flask and Django with websockets: ``python -m tests.framework_app FRAMEWORK SERVER PORT``.

The database is the file that the environment variable ``DATABASE`` names. A page, ``/connections``, tells how many
connections to it there are, and how many there have been at once.
"""

from __future__ import annotations

import contextvars
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cheroot.wsgi import Server

from ws4py.exc import ConnectionClosed
from ws4py.messaging import Message
from ws4py.server.cherootserver import attach
from ws4py.websocket import WebSocket

WORKERS = 8


class Count:
    """How many of something there are, and how many there have been at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = 0

    def add(self, number: int) -> None:
        with self._lock:
            self.now += number
            self.most = max(self.most, self.now)


connections = Count()
seen: contextvars.ContextVar[int] = contextvars.ContextVar("seen", default=0)


class Room(WebSocket):
    """Says where it is, and counts in a variable of its context; "fail" is a mistake."""

    view_args: dict[str, Any]
    session: Any

    def opened(self) -> None:
        self.send(f"{self.session['user']} is in {self.view_args['room']}")

    def received_message(self, message: Message) -> None:
        if message.text == "fail":
            raise RuntimeError("on purpose")
        seen.set(seen.get() + 1)
        self.send(f"{message.text} {seen.get()} {query()}")

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        print("closed", code, query(), flush=True)


def query() -> int:
    """Ask the database something: the number of this is replaced by the framework's own way."""
    raise NotImplementedError


@contextmanager
def said(websocket: WebSocket) -> Iterator[None]:
    """Say what goes on around a callback."""
    print("enter", flush=True)
    try:
        yield
    except (RuntimeError, ConnectionClosed) as error:
        print("raised", error, flush=True)
        raise
    finally:
        print("leave", flush=True)


def flask_application() -> Any:
    global query  # noqa: PLW0603
    from flask import Flask, abort, g, redirect, session

    from ws4py.frameworks.flask import WebSockets

    app = Flask(__name__)
    app.secret_key = "of the tests"
    websockets = WebSockets(heartbeat_freq=0)

    def database() -> Any:
        if "database" not in g:
            g.database = sqlite3.connect(os.environ["DATABASE"])
            connections.add(1)
        return g.database

    def ask() -> int:
        return int(database().execute("SELECT 42").fetchone()[0])

    query = ask

    @app.teardown_appcontext
    def close(error: BaseException | None) -> None:
        if "database" in g:
            g.pop("database").close()
            connections.add(-1)

    @app.route("/login/<user>")
    def login(user: str) -> Any:
        session["user"] = user
        return redirect("/connections")

    @app.route("/connections")
    def page() -> str:
        return f"{connections.now} {connections.most}"

    def members_only(view: Any) -> Any:
        def check(**arguments: Any) -> Any:
            return view(**arguments) if "user" in session else abort(401)

        return check

    websockets.route("/rooms/<room>", decorators=[members_only], around=said)(Room)
    websockets.init_app(app)

    @websockets.route("/echo", protocols=["chat"])
    def echo(websocket: WebSocket, message: Message) -> None:
        """Echo."""
        websocket.send(message)

    return app


def django_application() -> Any:
    global query  # noqa: PLW0603
    from django.conf import settings

    settings.configure(
        SECRET_KEY="of the tests",
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        WSGI_APPLICATION="tests.framework_app.application",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}},
    )
    from django.core.wsgi import get_wsgi_application
    from django.db import connection
    from django.db.backends.signals import connection_created
    from django.db.backends.sqlite3.base import DatabaseWrapper
    from django.http import HttpResponse, HttpResponseRedirect
    from django.urls import path

    from ws4py.frameworks.django import WebSockets, websocket_path

    close = DatabaseWrapper._close

    def counted_close(self: Any) -> Any:
        if self.connection is not None:
            connections.add(-1)
        return close(self)

    DatabaseWrapper._close = counted_close
    connection_created.connect(lambda **_: connections.add(1), weak=False)

    def ask() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 42")
            return int(cursor.fetchone()[0])

    query = ask

    def login(request: Any, user: str) -> Any:
        request.session["user"] = user
        return HttpResponseRedirect("/connections")

    def page(request: Any) -> Any:
        return HttpResponse(f"{connections.now} {connections.most}")

    def members_only(view: Any) -> Any:
        def check(request: Any, **arguments: Any) -> Any:
            return view(request, **arguments) if "user" in request.session else HttpResponse(status=401)

        return check

    def echo(websocket: WebSocket, message: Message) -> None:
        """Echo."""
        websocket.send(message)

    global urlpatterns  # noqa: PLW0603
    urlpatterns = [
        path("login/<user>", login),
        path("connections", page),
        websocket_path("rooms/<room>", Room, decorators=[members_only], around=said, heartbeat_freq=0),
        websocket_path("echo", echo, name="echo", protocols=["chat"]),
    ]
    return WebSockets(get_wsgi_application())


urlpatterns: list[Any] = []

if __name__ == "__main__":
    sys.modules["tests.framework_app"] = sys.modules[__name__]
    framework, kind, port = sys.argv[1:]
    application = flask_application() if framework == "flask" else django_application()
    if kind == "cheroot":
        server = Server(("127.0.0.1", int(port)), application, numthreads=3)
        attach(server, workers=WORKERS)
        server.start()
    elif framework == "flask":
        application.run(port=int(port))
    else:
        from django.core.management import call_command

        call_command("runserver", f"127.0.0.1:{port}", "--noreload", "--skip-checks")
