"""A Bottle application with a websocket, on plain cheroot: ``pip install ws4py cheroot bottle``.

Open http://127.0.0.1:9000/login/ada, then http://127.0.0.1:9000/.
"""

import os
import sys

import bottle
from cheroot.wsgi import Server

from ws4py.server.cherootserver import WebSocketMiddleware, attach
from ws4py.websocket import WebSocket

PAGE = """<!doctype html><title>ws4py and Bottle</title><pre></pre><script>
    const socket = new WebSocket(`ws://${location.host}/ws`);
    socket.onopen = () => socket.send("Is anybody there?");
    socket.onmessage = (event) => { document.querySelector("pre").append(event.data + "\\n"); };
    socket.onclose = (event) => { document.querySelector("pre").append(`closed ${event.code}\\n`); };
</script>"""

SECRET = os.urandom(32).hex()

app = bottle.Bottle()


class Greeter(WebSocket):
    """Knows who is there by Bottle's signed cookie."""

    def opened(self):
        self.user = bottle.BaseRequest(self.environ).get_cookie("user", secret=SECRET)
        self.send(f"Hello {self.user}")

    def received_message(self, message):
        self.send(f"{self.user} says: {message}")


@app.route("/")
def index():
    return PAGE


@app.route("/login/<user>")
def login(user):
    bottle.response.set_cookie("user", user, secret=SECRET, path="/", httponly=True)
    return "Welcome"


@app.route("/ws")
def websocket():
    """Let in who has logged in: a 2xx is the consent, anything else is the client's answer."""
    if not bottle.request.get_cookie("user", secret=SECRET):
        bottle.abort(401)
    return ""


application = WebSocketMiddleware(app, {"/ws": Greeter})


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), application)
    attach(server)
    try:
        server.start()
    except KeyboardInterrupt:
        server.stop()
