"""A chat with rooms: CherryPy serves the page, ws4py carries the talk.

``run()`` starts it. The page is made of the three files beside this one, and of ``pubsub.js``, which comes with ws4py.
What the page and the server say to each other is the protocol of :mod:`ws4py.pubsub`, which has a page of the
documentation; what follows is what the chat adds to it, for whoever wants to write another client.

The protocol
============

Connect to ``/ws``. A time is in seconds since the Unix epoch. Names and texts are plain text: whoever shows them must
not take them for HTML.

The page says first, on each connection:

``{"type": "join", "name": "...", "key": "..."}``
    Be somebody. ``name`` has 1 to 24 printable characters; white space is collapsed. ``key`` is a secret that the page
    makes up (1 to 64 characters): whoever knows the key of a name is the same person, so a page whose connection broke
    gets back in before the server has noticed that the old connection is dead.

The server answers:

``{"type": "welcome", "name": "...", "limits": {"name": 24, "text": 500, "room": 24}}``
    Your name as the others see it.

A room is a topic: ``room/``, and its name of 1 to 24 printable characters. Who has joined may subscribe to it, publish
to it, and see who is there. What is published is said: the page sends ``{"id": "...", "text": "..."}`` in JSON, the id
made up by the page, 1 to 64 characters, and the text with 1 to 500 characters once the white space around is gone. What
everybody gets is ``{"id": "...", "name": "...", "text": "...", "time": 0.0}``. With its own ``id`` a page knows that
its message has arrived. Of each room the last 200 messages are kept, for a day after the newest.

Errors have, besides those of the protocol, the codes ``bad-message`` (not what is described here), ``too-long``,
``empty``, ``bad-name``, ``name-taken`` and ``already-joined``, and a sentence for the user.

The server closes with 1001 when it stops: come back later, subscribe with the position that you have, and nothing that
was kept is missed.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import cherrypy

from ws4py.exc import BrokerError
from ws4py.pubsub import CLIENT, PubSubWebSocket, Refused
from ws4py.server.cherrypyserver import WebSocketPlugin, WebSocketTool

MAX_MESSAGE_BYTES = 8192
MAX_NAME = 24
MAX_TEXT = 500
MAX_TOKEN = 64  # of a join's key and a message's id
PREFIX = "room/"
HISTORY = {"room/*": (200, 24 * 3600.0)}  # messages of a room, and for how many seconds after the newest
GRACE = 3.0  # seconds for which somebody whose connection broke is still there

HERE = Path(__file__).parent
CONTENT_TYPES = {
    # Said here, because the system's table of types may be wrong, and with nosniff a wrong type is no page at all.
    "html": "text/html;charset=utf-8",
    "css": "text/css;charset=utf-8",
    "js": "text/javascript;charset=utf-8",
}
HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    # The browser may keep the files but asks each time whether they changed (they carry Last-Modified).
    ("Cache-Control", "no-cache"),
]

Event = dict[str, Any]


@dataclass
class Holder:
    """Who has a name.

    :ivar name: as it was given first.
    :ivar key: the secret that says who it is.
    :ivar connections: how many there are.
    :ivar left: when the last one has ended, by a monotonic clock.
    """

    name: str
    key: str
    connections: int = 0
    left: float = 0.0


class Names:
    """Who is called what. Any thread may call.

    The callbacks of different websockets run at the same time on several worker threads, so this has a lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: dict[str, Holder] = {}  # by fold(name)

    def take(self, name: str, key: str) -> Holder:
        """Give a name to who has this key.

        :raises Refused: for a name that can't be or that somebody else has.
        """
        name = clean_name(name)
        with self._lock:
            holder = self._holders.get(fold(name))
            if holder is None or (not holder.connections and time.monotonic() - holder.left >= GRACE):
                holder = self._holders[fold(name)] = Holder(name, key)
            elif holder.key != key:
                raise Refused(f"Somebody is called {holder.name} already. Please choose another name.", "name-taken")
            holder.connections += 1
            self._forget(fold(name))
            return holder

    def _forget(self, but: str) -> None:
        """Forget who has left a while ago."""
        due = time.monotonic() - GRACE
        gone = [name for name, holder in self._holders.items() if not holder.connections and holder.left < due]
        for name in gone:
            if name != but:
                del self._holders[name]

    def release(self, holder: Holder, at_once: bool) -> None:
        """A connection of somebody has ended.

        :param at_once: it was closed, and did not break.
        """
        with self._lock:
            holder.connections -= 1
            holder.left = time.monotonic() - (GRACE if at_once else 0.0)


class ChatWebSocket(PubSubWebSocket):
    """The connection of one page. Its callbacks never overlap, so ``holder`` needs no lock."""

    max_request = MAX_MESSAGE_BYTES
    max_last = HISTORY["room/*"][0]
    grace = GRACE

    names: Names  # set by the page handler, before the first callback
    holder: Holder | None = None

    def received_request(self, request: Event) -> None:
        """Let somebody join."""
        if request["type"] != "join":
            super().received_request(request)
            return
        if self.holder is not None:
            raise Refused(f"You are here already, as {self.holder.name}.", "already-joined")
        self.holder = self.names.take(field(request, "name"), field(request, "key", MAX_TOKEN))
        limits = {"name": MAX_NAME, "text": MAX_TEXT, "room": MAX_NAME}
        self.send_json({"type": "welcome", "name": self.holder.name, "limits": limits})

    def may_subscribe(self, topic: str) -> bool:
        """Who has joined may enter every room; so for the others."""
        room = topic.removeprefix(PREFIX)
        return self.holder is not None and topic.startswith(PREFIX) and 0 < len(room) <= MAX_NAME

    may_publish = may_see = may_subscribe

    def identify(self, topic: str) -> tuple[str, Any] | None:
        """Be in the room by name."""
        return None if self.holder is None else (self.holder.name, None)

    def compose(self, topic: str, data: str) -> str:
        """Return what everybody gets: the text, and who says it when."""
        assert self.holder is not None, "may_publish has seen to that"
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise Refused("What is said is a JSON object.", "bad-message")
        event = {
            "id": field(said, "id", MAX_TOKEN),
            "name": self.holder.name,
            "text": clean_text(field(said, "text")),
            "time": round(time.time(), 3),
        }
        return json.dumps(event)

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        """Leave, whichever way the connection ended."""
        if self.holder is not None:
            self.names.release(self.holder, at_once=code == 1000)


class Site:
    """What the server answers to HTTP: the page's files, and the path where a page becomes a websocket."""

    index = cherrypy.tools.staticfile.handler(str(HERE / "index.html"), content_types=CONTENT_TYPES)
    style_css = cherrypy.tools.staticfile.handler(str(HERE / "style.css"), content_types=CONTENT_TYPES)
    chat_js = cherrypy.tools.staticfile.handler(str(HERE / "chat.js"), content_types=CONTENT_TYPES)
    pubsub_js = cherrypy.tools.staticfile.handler(str(CLIENT), content_types=CONTENT_TYPES)

    def __init__(self, names: Names) -> None:
        self._names = names

    @cherrypy.expose
    def ws(self) -> None:
        """Run before the connection is taken over: here the websocket gets what it needs of the application."""
        cherrypy.request.ws_handler.names = self._names


def fold(name: str) -> str:
    """Return what two names have in common when people would take one for the other."""
    return unicodedata.normalize("NFKC", name).casefold()


def clean_name(name: str) -> str:
    """Return ``name`` with its white space collapsed; raises `Refused` if nobody can be called that."""
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    if not name:
        raise Refused("Please enter a name.", "bad-name")
    if len(name) > MAX_NAME:
        raise Refused(f"A name can have {MAX_NAME} characters; this one has {len(name)}.", "too-long")
    if not name.isprintable():  # control characters, and those that change the direction of what follows
        raise Refused("This name has a character that can't be shown.", "bad-name")
    return name


def clean_text(text: str) -> str:
    """Return ``text`` without the white space around it; raises `Refused` if nothing is left or too much."""
    text = text.strip()
    if not text:
        raise Refused("There is nothing in this message.", "empty")
    if len(text) > MAX_TEXT:
        raise Refused(f"A message can have {MAX_TEXT} characters; this one has {len(text)}.", "too-long")
    return text


def field(request: Event, name: str, longest: int = MAX_MESSAGE_BYTES) -> str:
    """Return a string that ``request`` must have, of at most ``longest`` characters; raises `Refused`."""
    value = request.get(name)
    if not isinstance(value, str) or len(value) > longest or (longest == MAX_TOKEN and not value):
        least = "1 to" if longest == MAX_TOKEN else "at most"
        raise Refused(f"{name} must be a string of {least} {longest} characters.", "bad-message")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half a character, UTF-8 can't
        raise Refused(f"{name} is not valid Unicode.", "bad-message") from None
    return value


def build(host: str, port: int, broker: str | None = None) -> Any:
    """Set CherryPy up to serve the chat on ``host`` and ``port`` and return the mounted `cherrypy.Application`.

    ``broker`` is the URL of a broker, which keeps what is said over a restart, and has several servers share the rooms.
    Each of them looks after the names of its own people only.

    Once per process, as the configuration of CherryPy is the process's. Nothing listens before `cherrypy.engine.start`.
    """
    cherrypy.config.update(
        {
            "server.socket_host": host,
            "server.socket_port": port,
            "engine.autoreload.on": False,
            "log.screen": False,
            "request.show_tracebacks": False,
        }
    )
    WebSocketPlugin(cherrypy.engine, history=HISTORY, broker=broker).subscribe()
    cherrypy.tools.websocket = WebSocketTool()
    return cherrypy.tree.mount(
        Site(Names()),
        "/",
        {
            "/": {"tools.response_headers.on": True, "tools.response_headers.headers": HEADERS},
            "/ws": {"tools.websocket.on": True, "tools.websocket.handler_cls": ChatWebSocket},
        },
    )


def run(host: str = "127.0.0.1", port: int = 9000, broker: str | None = None) -> None:
    """Serve the chat until SIGTERM or Ctrl-C; print the URL to open once it can be opened.

    With port 0 the system chooses one; ``broker`` is that of `build`. Call it from the main thread. Exits with status 1
    and one line on stderr when it can't listen there, or the broker can't be.
    """
    try:
        check_address(host, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        sys.exit(f"The chat can't listen on {host} port {port}: {reason}")
    try:
        application = build(host, port, broker)
    except (BrokerError, ValueError) as error:
        sys.exit(f"The chat can't have the broker {broker}: {error}")
    start(application)
    print(f"The chat is at {url(*cherrypy.server.bound_addr[:2])} (Ctrl-C stops it)", flush=True)
    cherrypy.engine.block()


def start(application: Any) -> None:
    """Start to serve what `build` has returned."""
    # Warnings and errors go to stderr, the requests nowhere. (CherryPy's loggers have levels of their own.)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for logs in cherrypy.log, application.log:
        logs.error_log.setLevel(logging.WARNING)
        logs.access_log.setLevel(logging.WARNING)
    cherrypy.engine.signals.subscribe()
    cherrypy.engine.start()


def check_address(host: str, port: int) -> None:
    """Raise OSError if a server can't listen there now: CherryPy would say it with a page of traceback."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        if os.name == "posix":  # elsewhere this option lets two servers share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def url(host: str, port: int) -> str:
    """Return what to open in a browser on this machine."""
    with suppress(ValueError):  # a name
        if ip_address(host).is_unspecified:  # all addresses of this machine
            host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


if __name__ == "__main__":
    run()
