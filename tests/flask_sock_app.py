"""An application that was written for Flask-Sock: ``python -m tests.flask_sock_app MODULE PORT``, on gunicorn as it is.

MODULE is where ``Sock`` comes from.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from flask import Blueprint, Flask, redirect, request, session


def application(module: str = "ws4py.frameworks.flask_sock") -> Flask:
    """Return it."""
    import importlib

    app = Flask(__name__)
    app.secret_key = "of the tests"
    sock = importlib.import_module(os.environ.get("SOCK", module)).Sock(app)
    rooms = Blueprint("rooms", __name__, url_prefix="/rooms")

    @app.route("/login/<user>")
    def login(user: str) -> Any:
        session["user"] = user
        return redirect("/")

    go = threading.Event()

    @app.route("/go")
    def let_go() -> str:
        go.set()
        return ""

    @sock.route("/echo")
    def echo(ws: Any) -> None:
        while True:
            ws.send(ws.receive())

    @sock.route("/<room>", bp=rooms)
    def room(ws: Any, room: str) -> None:
        assert ws.receive(timeout=0.001) is None
        ws.send(f"{session.get('user')} is in {room}, {request.args['mood']}")
        word = ws.receive()
        if word == "fail":
            raise RuntimeError("on purpose")
        if word == "close":
            ws.close(4001, "as asked")
        if word == "slow":
            go.wait()
            while True:
                ws.send(ws.receive())
        if word == "wait":
            try:
                ws.receive()
            finally:
                print("ended", ws.connected, flush=True)

    app.register_blueprint(rooms)
    return app
