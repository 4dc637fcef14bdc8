"""A Flask application with a websocket, on plain cheroot: ``pip install ws4py cheroot flask``.

Open http://127.0.0.1:9000/login/ada, then http://127.0.0.1:9000/.
"""

import os
import sys

from cheroot.wsgi import Server
from flask import Flask, abort, redirect, session

from ws4py.server.cherootserver import WebSocketMiddleware, attach
from ws4py.websocket import WebSocket

PAGE = """<!doctype html><title>ws4py and Flask</title><pre></pre><script>
    const socket = new WebSocket(`ws://${location.host}/ws`);
    socket.onopen = () => socket.send("Is anybody there?");
    socket.onmessage = (event) => { document.querySelector("pre").append(event.data + "\\n"); };
    socket.onclose = (event) => { document.querySelector("pre").append(`closed ${event.code}\\n`); };
</script>"""

app = Flask(__name__)
app.secret_key = os.urandom(32)


class Greeter(WebSocket):
    """Knows who is there by Flask's session."""

    def opened(self):
        with app.request_context(self.environ):
            self.user = session["user"]
        self.send(f"Hello {self.user}")

    def received_message(self, message):
        self.send(f"{self.user} says: {message}")


@app.route("/")
def index():
    return PAGE


@app.route("/login/<user>")
def login(user):
    session["user"] = user
    return redirect("/")


@app.route("/ws", websocket=True)  # without websocket=True Flask would answer 400
def websocket():
    """Let in who has logged in: a 2xx is the consent, anything else is the client's answer."""
    if "user" not in session:
        abort(401)
    return ""


app.wsgi_app = WebSocketMiddleware(app.wsgi_app, {"/ws": Greeter})


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), app)
    attach(server)
    try:
        server.start()
    except KeyboardInterrupt:
        server.stop()
