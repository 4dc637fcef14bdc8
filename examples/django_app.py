"""A Django application with a websocket, on plain cheroot: ``pip install ws4py cheroot django``.

Open http://127.0.0.1:9000/login/ada, then http://127.0.0.1:9000/.
"""

import os
import sys

from cheroot.wsgi import Server
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import path

from ws4py.server.cherootserver import WebSocketMiddleware, attach
from ws4py.websocket import WebSocket

PAGE = """<!doctype html><title>ws4py and Django</title><pre></pre><script>
    const socket = new WebSocket(`ws://${location.host}/ws`);
    socket.onopen = () => socket.send("Is anybody there?");
    socket.onmessage = (event) => { document.querySelector("pre").append(event.data + "\\n"); };
    socket.onclose = (event) => { document.querySelector("pre").append(`closed ${event.code}\\n`); };
</script>"""

settings.configure(
    SECRET_KEY=os.urandom(32).hex(),
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)


class Greeter(WebSocket):
    """Knows who is there by Django's session, which the view has left here."""

    session = None

    def opened(self):
        self.send(f"Hello {self.session['user']}")

    def received_message(self, message):
        self.send(f"{self.session['user']} says: {message}")


def index(request):
    return HttpResponse(PAGE)


def login(request, user):
    request.session["user"] = user
    return HttpResponseRedirect("/")


def websocket(request):
    """Let in who has logged in: a 2xx is the consent, anything else is the client's answer."""
    if "user" not in request.session:
        return HttpResponse("Log in first", status=401)
    request.environ["ws4py.websocket"].session = request.session
    return HttpResponse()


urlpatterns = [path("", index), path("login/<user>", login), path("ws", websocket)]

application = WebSocketMiddleware(get_wsgi_application(), {"/ws": Greeter})


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), application)
    attach(server)
    try:
        server.start()
    except KeyboardInterrupt:
        server.stop()
