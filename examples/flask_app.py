"""A Flask application with a websocket, on plain cheroot: ``pip install ws4py cheroot flask``.

Open http://127.0.0.1:9000/login/ada, then http://127.0.0.1:9000/.
"""

import os
import sys

from cheroot.wsgi import Server
from flask import Flask, abort, redirect, session

from ws4py.frameworks.flask import WebSockets
from ws4py.server.cherootserver import attach
from ws4py.websocket import WebSocket

PAGE = """<!doctype html><title>ws4py and Flask</title><pre></pre><script>
    const socket = new WebSocket(`ws://${location.host}/ws`);
    socket.onopen = () => socket.send("Is anybody there?");
    socket.onmessage = (event) => { document.querySelector("pre").append(event.data + "\\n"); };
    socket.onclose = (event) => { document.querySelector("pre").append(`closed ${event.code}\\n`); };
</script>"""

app = Flask(__name__)
app.secret_key = os.urandom(32)
websockets = WebSockets(app)


@app.route("/")
def index():
    return PAGE


@app.route("/login/<user>")
def login(user):
    session["user"] = user
    return redirect("/")


def login_required(view):
    def check(**arguments):
        return view(**arguments) if "user" in session else abort(401)

    return check


@websockets.route("/ws", decorators=[login_required])
class Greeter(WebSocket):
    """Knows who is there by Flask's session."""

    def opened(self):
        self.send(f"Hello {self.session['user']}")

    def received_message(self, message):
        self.send(f"{self.session['user']} says: {message}")


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), app)
    attach(server)
    try:
        server.start()
    except KeyboardInterrupt:
        server.stop()
