"""Flask-Sock on gunicorn with threads: each connection occupies one of gunicorn's and one of simple-websocket's."""

import time

from common import BLOCKING, CERTIFICATE, KEY, NEWS, PAGE, PING, PORT
from flask import Flask
from flask_sock import Sock
from gunicorn.app.base import BaseApplication
from simple_websocket import ConnectionClosed

MAX_CONNECTIONS = 20000

app = Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": PING or None}
sock = Sock(app)
members = set()


@app.route("/")
def page():
    """Serve the page."""
    return PAGE


@sock.route("/ws")
def echo(ws):
    """Echo."""
    while True:
        ws.send(ws.receive())


@sock.route("/slow")
def slow(ws):
    """Echo after code that blocks."""
    while True:
        message = ws.receive()
        time.sleep(BLOCKING)
        ws.send(message)


@sock.route("/fan")
def fan(ws):
    """Send news to all for each message."""
    members.add(ws)
    try:
        while True:
            ws.receive()
            for member in list(members):
                try:
                    member.send(NEWS)
                except ConnectionClosed:
                    members.discard(member)
    finally:
        members.discard(ws)


class Server(BaseApplication):
    """gunicorn, configured here."""

    def load_config(self):
        settings = {
            "bind": f"127.0.0.1:{PORT}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": MAX_CONNECTIONS,
            "worker_connections": MAX_CONNECTIONS,
            "backlog": 4096,
            "loglevel": "critical",
            "graceful_timeout": 1,
        }
        if CERTIFICATE:
            settings |= {"certfile": CERTIFICATE, "keyfile": KEY}
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self):
        return app


if __name__ == "__main__":
    Server().run()
