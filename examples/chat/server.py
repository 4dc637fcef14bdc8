"""A chat room: CherryPy serves the page, ws4py carries the talk.

``run()`` starts it. The page is made of the three files beside this one; what follows is all that it and the server
say to each other, for whoever wants to write another client.

The protocol
============

Connect to ``/ws``. A message is one JSON object in a text message, of at most 8192 bytes towards the server. A time is
in seconds since the Unix epoch. Names and texts are plain text: whoever shows them must not take them for HTML.

The page says:

``{"type": "join", "name": "...", "key": "..."}``
    Take a seat. ``name`` has 1 to 24 printable characters; white space is collapsed. ``key`` is a secret that the page
    makes up (at most 64 characters, may be empty): whoever knows the key of a name takes its seat over, so a page
    whose connection broke gets back in before the server has noticed that the old connection is dead.

``{"type": "say", "id": "...", "text": "..."}``
    Say something: 1 to 500 characters once the white space around is gone. ``id`` is made up by the page, 1 to 64
    characters, never used twice. The same message sent again (because the connection broke before the answer came)
    is not said again as long as it is in the history.

The server says:

``{"type": "welcome", "name": ..., "people": [name, ...], "history": [said, ...], "limits": {"name": 24, "text": 500}}``
    The answer to ``join``, to that page only: your name as the others see it, who is here (you too), and the last 50
    messages, oldest first, each a ``said``. Whatever arrived before ``welcome`` is contained in it: ignore it.

``{"type": "joined", "name": "...", "time": 0.0}`` and ``{"type": "left", "name": "...", "time": 0.0}``
    Somebody (you too) came or went.

``{"type": "said", "id": "...", "name": "...", "text": "...", "time": 0.0}``
    Somebody (you too) said something. With your own ``id`` it tells you that the message has arrived.

``{"type": "error", "code": "...", "text": "...", "id": "..."}``
    What you sent was refused, with a sentence for the user; the connection stays. ``id`` is there when it was a
    ``say``. The codes: ``bad-message`` (not what is described here), ``too-long``, ``empty``, ``bad-name``,
    ``name-taken``, ``not-joined``, ``already-joined``.

The server closes with 1001 when it stops: come back later. It closes with 4001 when another connection took your seat
over: don't come back by yourself, or the two will throw each other out for ever.
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
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import cherrypy

from ws4py.messaging import Message
from ws4py.server.cherrypyserver import WebSocketPlugin, WebSocketTool
from ws4py.websocket import WebSocket

MAX_MESSAGE_BYTES = 8192
MAX_NAME = 24
MAX_TEXT = 500
MAX_TOKEN = 64  # of a join's key and a say's id
HISTORY = 50
SEAT_TAKEN_OVER = 4001  # close code, from the range that RFC 6455 section 7.4.2 leaves to applications

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

log = logging.getLogger("ws4py.demo")

Event = dict[str, Any]


class Refused(Exception):
    """A request that the room turns down: ``code`` is one of the protocol's, ``text`` a sentence for the user."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


@dataclass(eq=False, frozen=True)
class Member:
    """A seat in the room: who sits there, the secret that takes it over, and the connection to talk to."""

    name: str
    key: str
    websocket: WebSocket


class Room:
    """Who is here, and what was said last. Any thread may call any method.

    The callbacks of different websockets run at the same time on several worker threads, so the state has a lock; no
    lock is held over a send. To let everybody nevertheless see the events in one order, an event is queued while the
    lock is held, and whoever finds nobody delivering delivers, in the order of the queue, until it is empty.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: dict[str, Member] = {}  # by fold(name)
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._deliveries: deque[Callable[[], object]] = deque()
        self._delivering = False

    def join(self, websocket: WebSocket, name: str, key: str) -> Member:
        """Give ``websocket`` the seat of ``name``, welcome it and tell the others.

        Raises `Refused` for a name that can't be or that somebody else has.
        """
        name = clean_name(name)
        with self._lock:
            previous = self._members.get(fold(name))
            if previous is None:
                member = Member(name, key, websocket)
            elif key and key == previous.key:
                member = Member(previous.name, key, websocket)
            else:
                raise Refused("name-taken", f"Somebody is called {previous.name} already. Please choose another name.")
            self._members[fold(name)] = member
            welcome: Event = {
                "type": "welcome",
                "name": member.name,
                "people": [each.name for each in self._members.values()],
                "history": list(self._history),
                "limits": {"name": MAX_NAME, "text": MAX_TEXT},
            }
            self._deliveries.append(partial(websocket.send, json.dumps(welcome)))
            if previous is None:
                self._announce({"type": "joined", "name": member.name, "time": now()})
            else:
                self._deliveries.append(partial(previous.websocket.close, SEAT_TAKEN_OVER, "joined again elsewhere"))
        self._deliver()
        return member

    def say(self, member: Member, text: str, token: str) -> None:
        """Tell everybody what ``member`` says, once for each ``token``. Raises `Refused` for a text that can't be."""
        text = clean_text(text)
        with self._lock:
            if self._members.get(fold(member.name)) is not member:
                raise Refused("not-joined", "You are no longer in the room.")
            if any(said["id"] == token for said in self._history):
                return  # it was sent again because the page couldn't know that it had arrived
            said = {"type": "said", "id": token, "name": member.name, "text": text, "time": now()}
            self._history.append(said)
            self._announce(said)
        self._deliver()

    def leave(self, member: Member) -> None:
        """Free the seat of ``member`` and tell the others; nothing happens if somebody took it over."""
        with self._lock:
            if self._members.get(fold(member.name)) is not member:
                return
            del self._members[fold(member.name)]
            self._announce({"type": "left", "name": member.name, "time": now()})
        self._deliver()

    def clear(self) -> None:
        """Free all seats without a word: a server that stops is not everybody leaving."""
        with self._lock:
            self._members.clear()

    def _announce(self, event: Event) -> None:
        """Queue ``event`` for everybody connected. The caller holds the lock, and calls `_deliver` afterwards."""
        self._deliveries.append(partial(cherrypy.engine.publish, "websocket-broadcast", json.dumps(event)))

    def _deliver(self) -> None:
        """Deliver what is queued, unless another thread is at it: then that one does."""
        with self._lock:
            if self._delivering:
                return
            self._delivering = True
        while True:
            with self._lock:
                if not self._deliveries:
                    self._delivering = False
                    return
                delivery = self._deliveries.popleft()
            try:
                delivery()
            except (RuntimeError, OSError):
                log.debug("a peer is gone", exc_info=True)  # its closed() sees to the rest
            except Exception:
                log.exception("an event could not be delivered")  # the next ones still can


class ChatWebSocket(WebSocket):
    """The connection of one page. Its callbacks never overlap, so ``member`` needs no lock."""

    room: Room  # set by the page handler, before the first callback
    member: Member | None = None

    def received_message(self, message: Message) -> None:
        """Do what the page asks, or tell it why not."""
        request: Event = {}
        try:
            request = parse(message)
            if request["type"] == "join":
                if self.member is not None:
                    raise Refused("already-joined", f"You are here already, as {self.member.name}.")
                self.member = self.room.join(self, field(request, "name"), field(request, "key", MAX_TOKEN))
            elif request["type"] == "say":
                token = field(request, "id", MAX_TOKEN)
                if not token:
                    raise Refused("bad-message", "A message needs an id.")
                if self.member is None:
                    raise Refused("not-joined", "Join first.")
                self.room.say(self.member, field(request, "text"), token)
            else:
                raise Refused("bad-message", "No such type of message.")
        except Refused as refused:
            error = {"type": "error", "code": refused.code, "text": refused.text}
            if isinstance(request.get("id"), str):
                error["id"] = request["id"]
            with suppress(RuntimeError):  # gone before it could hear why
                self.send(json.dumps(error))

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        """Leave the room, whichever way the connection ended."""
        if self.member is not None:
            self.room.leave(self.member)


class Site:
    """What the server answers to HTTP: the page's files, and the path where a page becomes a websocket."""

    index = cherrypy.tools.staticfile.handler(str(HERE / "index.html"), content_types=CONTENT_TYPES)
    style_css = cherrypy.tools.staticfile.handler(str(HERE / "style.css"), content_types=CONTENT_TYPES)
    chat_js = cherrypy.tools.staticfile.handler(str(HERE / "chat.js"), content_types=CONTENT_TYPES)

    def __init__(self, room: Room) -> None:
        self._room = room

    @cherrypy.expose
    def ws(self) -> None:
        """Run before the connection is taken over: here the websocket gets what it needs of the application."""
        cherrypy.request.ws_handler.room = self._room


def now() -> float:
    """Return the time in seconds since the Unix epoch, as exact as a chat needs it."""
    return round(time.time(), 3)


def fold(name: str) -> str:
    """Return what two names have in common when people would take one for the other."""
    return unicodedata.normalize("NFKC", name).casefold()


def clean_name(name: str) -> str:
    """Return ``name`` with its white space collapsed; raises `Refused` if nobody can be called that."""
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    if not name:
        raise Refused("bad-name", "Please enter a name.")
    if len(name) > MAX_NAME:
        raise Refused("too-long", f"A name can have {MAX_NAME} characters; this one has {len(name)}.")
    if not name.isprintable():  # control characters, and those that change the direction of what follows
        raise Refused("bad-name", "This name has a character that can't be shown.")
    return name


def clean_text(text: str) -> str:
    """Return ``text`` without the white space around it; raises `Refused` if nothing is left or too much."""
    text = text.strip()
    if not text:
        raise Refused("empty", "There is nothing in this message.")
    if len(text) > MAX_TEXT:
        raise Refused("too-long", f"A message can have {MAX_TEXT} characters; this one has {len(text)}.")
    return text


def parse(message: Message) -> Event:
    """Return the JSON object in ``message``, its ``type`` a string; raises `Refused` if it is anything else."""
    if len(message.data) > MAX_MESSAGE_BYTES:
        raise Refused("too-long", f"A message can have {MAX_MESSAGE_BYTES} bytes.")
    try:
        request = json.loads(message.data)
    except (ValueError, RecursionError):
        raise Refused("bad-message", "This is not JSON.") from None
    if not message.is_text or not isinstance(request, dict) or not isinstance(request.get("type"), str):
        raise Refused("bad-message", "A message is a JSON object with a type, in a text message.")
    return request


def field(request: Event, name: str, longest: int = MAX_MESSAGE_BYTES) -> str:
    """Return a string that ``request`` must have, of at most ``longest`` characters; raises `Refused`."""
    value = request.get(name)
    if not isinstance(value, str) or len(value) > longest:
        raise Refused("bad-message", f"{name} must be a string of at most {longest} characters.")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half a character, UTF-8 can't
        raise Refused("bad-message", f"{name} is not valid Unicode.") from None
    return value


def build(host: str, port: int) -> Any:
    """Set CherryPy up to serve the chat on ``host`` and ``port`` and return the mounted `cherrypy.Application`.

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
    WebSocketPlugin(cherrypy.engine).subscribe()
    cherrypy.tools.websocket = WebSocketTool()
    room = Room()
    cherrypy.engine.subscribe("stop", room.clear, priority=10)  # before the plugin closes the connections
    return cherrypy.tree.mount(
        Site(room),
        "/",
        {
            "/": {"tools.response_headers.on": True, "tools.response_headers.headers": HEADERS},
            "/ws": {"tools.websocket.on": True, "tools.websocket.handler_cls": ChatWebSocket},
        },
    )


def run(host: str = "127.0.0.1", port: int = 9000) -> None:
    """Serve the chat until SIGTERM or Ctrl-C; print the URL to open once it can be opened.

    With port 0 the system chooses one. Call it from the main thread. Exits with status 1 and one line on stderr when it
    can't listen there.
    """
    try:
        check_address(host, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        sys.exit(f"The chat can't listen on {host} port {port}: {reason}")
    application = build(host, port)
    # Warnings and errors go to stderr, the requests nowhere. (CherryPy's loggers have levels of their own.)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for logs in cherrypy.log, application.log:
        logs.error_log.setLevel(logging.WARNING)
        logs.access_log.setLevel(logging.WARNING)
    cherrypy.engine.signals.subscribe()
    cherrypy.engine.start()
    print(f"The chat is at {url(*cherrypy.server.bound_addr[:2])} (Ctrl-C stops it)", flush=True)
    cherrypy.engine.block()


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
