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

from ws4py.frameworks.django import WebSockets, websocket_path
from ws4py.server.cherootserver import attach
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
    """Knows who is there by Django's session."""

    def opened(self):
        self.send(f"Hello {self.session['user']}")

    def received_message(self, message):
        self.send(f"{self.session['user']} says: {message}")


def index(request):
    return HttpResponse(PAGE)


def login(request, user):
    request.session["user"] = user
    return HttpResponseRedirect("/")


def login_required(view):
    def check(request, **arguments):
        return view(request, **arguments) if "user" in request.session else HttpResponse("Log in first", status=401)

    return check


urlpatterns = [
    path("", index),
    path("login/<user>", login),
    websocket_path("ws", Greeter, decorators=[login_required]),
]

application = WebSockets(get_wsgi_application())


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9000), application)
    attach(server)
    try:
        server.start()
    except KeyboardInterrupt:
        server.stop()
