"""A CherryPy application for the tests, run as ``python -m tests.cherrypy_app OPTIONS``, the options being JSON.

It takes commands from its standard input, a word a line: what it shall do with its engine. When that is done, it writes
``done WORD``. At the end of the input it ends, so that it never outlives the tests.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter, defaultdict
from typing import Any
from urllib.parse import parse_qs

import cherrypy
from cherrypy._cpnative_server import CPHTTPServer
from cherrypy.lib import cpstats
from cherrypy.process.plugins import Autoreloader, Daemonizer, PIDFile

from tests.helpers import present
from ws4py.engine.pollers import default_poller
from ws4py.extensions.permessage_deflate import PerMessageDeflate
from ws4py.manager import WebSocketManager
from ws4py.messaging import Message
from ws4py.server.cherrypyserver import WebSocketPlugin, WebSocketTool
from ws4py.websocket import WebSocket

OPTIONS: dict[str, Any] = {
    "port": 0,
    "server": "wsgi",
    "tls": None,
    "certificate": None,
    "key": None,
    "statistics": False,
    "threads": 10,
    "queue": 128,
    "shutdown_timeout": 5,
    "plugin": {},
    "with_plugin": True,
    "fragile": False,
    "priority": None,
    "daemonize": None,
    "autoreload": None,
    "gc": True,
    **json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}"),
}

PATIENCE = 20.0
FORK = multiprocessing.get_context("fork")

events: defaultdict[str, list[list[Any]]] = defaultdict(list)
changed = threading.Condition()
released = threading.Event()
COUNTED = ("ws4py.", "cheroot.", "cherrypy._cprequest.", "socket.", "ssl.", "OpenSSL.", "__main__.Recorder")
"""The types, by the starts of their names, whose objects ``/state`` counts."""


def record(tag: str, *event: Any) -> None:
    """Keep an event of a websocket for ``/events``."""
    with changed:
        events[tag].append(list(event))
        changed.notify_all()


class Recorder(WebSocket):
    """Echoes, and records its callbacks under the ``tag`` of its URL's query."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.greeting: str | None = None
        assert self.environ is not None
        self.tag = parse_qs(self.environ["QUERY_STRING"]).get("tag", [""])[0]

    def opened(self) -> None:
        # None of the server's own objects, which would live as long as the websocket.
        assert isinstance(self.environ, dict)
        assert [value for value in self.environ.values() if hasattr(value, "close") and value is not sys.stderr] == []
        if self.tag:
            record(self.tag, "opened", self.protocols, self.extensions)
        if self.greeting is not None:
            self.send(self.greeting)

    def received_message(self, message: Message) -> None:
        self.send(message.data, message.is_binary)

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        assert self.sock is not None
        assert self.stream is not None
        if self.tag:
            record(self.tag, "closed", code, self.close_reason)


class Blocker(Recorder):
    """Blocks in its handler until ``/release`` is asked for."""

    def received_message(self, message: Message) -> None:
        record(self.tag, "blocked")
        released.wait()
        super().received_message(message)


class Flood(Recorder):
    """Answers a number with so many bytes."""

    def received_message(self, message: Message) -> None:
        record(self.tag, "flooding")
        left = int(message.data)
        while left > 0:
            self.send(b"x" * min(left, 65536), binary=True)
            left -= 65536


class Closer(Recorder):
    """Closes as it is told: ``CODE REASON``."""

    def received_message(self, message: Message) -> None:
        code, _, reason = message.data.decode().partition(" ")
        self.close(int(code), reason)


class Operator(Recorder):
    """Has the engine do what it is told: ``exit``, say."""

    def received_message(self, message: Message) -> None:
        getattr(cherrypy.engine, str(message))()
        cherrypy.log(f"the callback is behind {message}")


class Subscriber(Recorder):
    """Is on the topic of its tag."""

    def opened(self) -> None:
        self.subscribe(self.tag)
        super().opened()


class Raiser(Recorder):
    """Raises."""

    def received_message(self, message: Message) -> None:
        raise ArithmeticError("a handler's own fault")


class Request(WebSocket):
    """Tells what it has of its request: the sizes of texts, by their names."""

    def received_message(self, message: Message) -> None:
        assert self.environ is not None
        self.send(json.dumps({name: len(text) for name, text in self.environ.items() if isinstance(text, str)}))


class Forker(Recorder):
    """Starts a process that sends on the websocket that it inherits."""

    def received_message(self, message: Message) -> None:
        FORK.Process(target=self.send, args=(b"from the child, " + message.data,)).start()


class Broken(Recorder):
    """Can't be made."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        raise LookupError("the handler can't be made")


def not_a_websocket(*_args: Any, **_options: Any) -> object:
    """Make something, but no websocket."""
    return object()


class Guard(WebSocketTool):
    """Overrides ``upgrade`` as programs do: it may refuse, and brings the subprotocols."""

    def __init__(self) -> None:
        cherrypy.Tool.__init__(self, "before_handler", self.upgrade)

    def upgrade(self, **options: Any) -> None:  # type: ignore[override]
        """Refuse who is not authorized, and speak what the authorization says."""
        bearer = cherrypy.request.headers.get("X-Bearer")
        if bearer is None:
            raise cherrypy.HTTPError(403, "You may not")
        super().upgrade(protocols=[bearer], **options)


class Plugin(WebSocketPlugin):
    """Overrides ``start`` and ``stop`` as programs do."""

    def start(self) -> None:
        """Start."""
        super().start()
        cherrypy.log("the plugin has started")

    start.priority = 73  # type: ignore[attr-defined]

    def stop(self) -> None:
        """Stop."""
        super().stop()
        cherrypy.log("the plugin has stopped")


class Late:
    """A tool whose hook fails after the response has become a 101."""

    @staticmethod
    def fail(status: int = 0) -> None:
        """Raise, once for a request."""
        if not status:
            raise ArithmeticError("a hook's own fault")
        if cherrypy.response.status != status:
            raise cherrypy.HTTPError(status)


cherrypy.tools.websocket = WebSocketTool()
cherrypy.tools.another_name = WebSocketTool()
cherrypy.tools.guard = Guard()
cherrypy.tools.late = cherrypy.Tool("before_finalize", Late.fail, priority=90)


class Root:
    """The pages: those with a websocket have its options in CONFIG."""

    def __init__(self, plugin: WebSocketPlugin) -> None:
        self.plugin = plugin
        self.kept: list[WebSocket] = []

    @cherrypy.expose
    def index(self) -> str:
        return "hello"

    @cherrypy.expose
    def big(self) -> bytes:
        return b"x" * 300_000

    @cherrypy.expose
    def pid(self) -> str:
        return str(os.getpid())

    @cherrypy.expose
    def echo(self, **_: str) -> None:
        assert isinstance(cherrypy.request.ws_handler, WebSocket)

    blocker = flood = closer = operator = subscriber = raiser = forker = echo
    broken = not_websocket = bad_limit = unknown_limit = manager_limit = echo
    limited = rated = fragmented = protocols = extensions = version = heartbeat = origins = any_origin = echo
    another = guarded = basic = dressed = late_error = late_refusal = echo
    compressed = dense = narrow = echo
    hosts = proxied = request = no_environ = little_environ = echo

    @cherrypy.expose
    @cherrypy.tools.websocket(handler_cls=Recorder)
    def decorated(self, **_: str) -> None:
        """A page whose tool is a decorator."""

    @cherrypy.expose
    def refuse(self, status: str, **_: str) -> None:
        raise cherrypy.HTTPError(int(status), "refused by the page")

    @cherrypy.expose
    def redirect(self, **_: str) -> None:
        raise cherrypy.HTTPRedirect("/")

    @cherrypy.expose
    def internal(self, **_: str) -> None:
        raise cherrypy.InternalRedirect("/")

    @cherrypy.expose
    def to_index(self) -> None:
        raise cherrypy.InternalRedirect("/")

    @cherrypy.expose
    def to_echo(self, **_: str) -> None:
        raise cherrypy.InternalRedirect("/echo", "tag=internal")

    @cherrypy.expose
    def fail(self, **_: str) -> None:
        raise ArithmeticError("a page's own fault")

    @cherrypy.expose
    def ordinary(self, **_: str) -> str:
        """Become an ordinary page after all."""
        cherrypy.response.status = 200
        return "no websocket today"

    @cherrypy.expose
    def body(self, **_: str) -> str:
        return "a page's text, which must not become part of the websocket"

    @cherrypy.expose
    def attributes(self, text: str, **_: str) -> None:
        cherrypy.request.ws_handler.greeting = text

    @cherrypy.expose
    def cookie(self, **_: str) -> None:
        cherrypy.response.cookie["flavour"] = "vanilla"
        cherrypy.response.headers["X-Own"] = "kept"

    @cherrypy.expose
    def session(self, **_: str) -> None:
        visits = cherrypy.session["visits"] = cherrypy.session.get("visits", 0) + 1
        cherrypy.request.ws_handler.greeting = str(visits)

    @cherrypy.expose
    def fork(self, **_: str) -> None:
        """Give the websocket to a process, before it is the manager's."""
        handler = cherrypy.request.ws_handler
        mine, its = FORK.Pipe()
        handler.received_message = lambda message: mine.send(message.data)
        FORK.Process(target=forked, args=(handler, its)).start()
        its.close()

    # --- what the tests ask -------------------------------------------------------------------------------------------

    @cherrypy.expose
    def broadcast(self, text: str) -> str:
        cherrypy.engine.publish("websocket-broadcast", text)
        return "done"

    @cherrypy.expose
    def publish(self, topic: str, text: str) -> str:
        cherrypy.engine.publish("websocket-publish", topic, text)
        cherrypy.engine.publish("websocket-publish", topic, text.encode(), True)
        return "done"

    @cherrypy.expose
    def hand_over(self, tag: str) -> str:
        """Give the manager a websocket over the bus's channel, one of a pair; return what its peer reads."""
        mine, its = socket.socketpair()
        websocket = Recorder(its, environ={"QUERY_STRING": f"tag={tag}"})
        websocket.greeting = "by the bus"
        cherrypy.engine.publish("handle-websocket", websocket, ("192.0.2.1", 1))
        mine.settimeout(PATIENCE)
        with mine:
            return mine.recv(100)[2:].decode()

    @cherrypy.expose
    def release(self) -> str:
        released.set()
        return "done"

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def events(self, tag: str, count: str = "0") -> list[list[Any]]:
        """Return the events of a tag, once there are so many."""
        with changed:
            changed.wait_for(lambda: len(events[tag]) >= int(count), PATIENCE)
            return list(events[tag])

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def state(self, websockets: str = "") -> dict[str, Any]:
        """Return what there is in this process, once there are so many websockets.

        ``objects`` are counted without the help of the garbage collector, if that is disabled.
        """
        manager = self.plugin.manager
        deadline = time.monotonic() + PATIENCE
        while websockets and present(manager) != int(websockets) and time.monotonic() < deadline:
            time.sleep(0.01)  # for what no event announces
        objects = Counter(f"{type(item).__module__}.{type(item).__qualname__}" for item in gc.get_objects())
        return {
            "websockets": len(manager),
            "entries": present(manager),
            "fds": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "objects": {name: count for name, count in objects.items() if name.startswith(COUNTED)},
            "refused": {str(status): count for status, count in manager.stats().connections.refused.items()},
            "limits": {name: count for name, count in manager.stats().limits.items() if count},
        }

    @cherrypy.expose
    @cherrypy.tools.json_out()
    def plugin_again(self) -> list[bool]:
        """Take the plugin off the bus, and put another one there."""
        old = self.plugin
        old.unsubscribe()
        old.stop()
        self.plugin = WebSocketPlugin(cherrypy.engine)
        self.plugin.subscribe()
        self.plugin.start()
        return [old.manager.is_alive(), self.plugin.manager.is_alive()]

    @cherrypy.expose
    def second_plugin(self) -> str:
        """Put another plugin in the place of one that was not stopped."""
        self.plugin.unsubscribe()
        self.plugin = WebSocketPlugin(cherrypy.engine)
        self.plugin.subscribe()
        self.plugin.start()
        return "done"


def forked(handler: WebSocket, pipe: Any) -> None:
    """Send to the websocket what comes through the pipe: in a process of its own.

    What comes is from the peer, so the head of the response is written by then.
    """
    handler.send(b"the child got " + pipe.recv())


def tool(handler: Any = Recorder, name: str = "websocket", **options: Any) -> dict[str, Any]:
    """Return the configuration of a page that has a websocket."""
    settings = {"on": True, "handler_cls": handler, **options}
    return {f"tools.{name}.{key}": value for key, value in settings.items()}


CONFIG: dict[str, dict[str, Any]] = {
    "/cpstats": {"tools.sessions.on": False},
    "/session": {"tools.sessions.on": True, **tool()},
    "/blocker": tool(Blocker),
    "/flood": tool(Flood, send_timeout=30),
    "/closer": tool(Closer),
    "/operator": tool(Operator),
    "/raiser": tool(Raiser),
    "/subscriber": tool(Subscriber),
    "/forker": tool(Forker),
    "/broken": tool(Broken),
    "/not_websocket": tool(not_a_websocket),
    "/bad_limit": tool(max_message_size=0),
    "/unknown_limit": tool(max_mesage_size=1),
    "/manager_limit": tool(max_connections=1),
    "/limited": tool(max_message_size=1000),
    "/rated": tool(max_messages_per_second=5),
    "/fragmented": tool(max_fragments=3),
    "/compressed": tool(compression=True),
    "/dense": tool(compression=PerMessageDeflate(False, False, threshold=0)),
    "/narrow": tool(compression=PerMessageDeflate(False, False, 9, 10, threshold=0), max_message_size=10_000),
    "/protocols": tool(protocols=["chat", "superchat"]),
    "/extensions": tool(extensions=["x-known"]),
    "/version": tool(version=(13,)),
    "/heartbeat": tool(heartbeat_freq=0.1),
    "/origins": tool(origins=["https://page.example"]),
    "/any_origin": tool(origins="*"),
    "/hosts": tool(hosts=["127.0.0.1"]),
    "/proxied": {"tools.proxy.on": True, "tools.proxy.base": "https://page.example", **tool()},
    "/request": tool(Request),
    "/no_environ": tool(Request, keep_environ=False),
    "/little_environ": tool(Request, keep_environ=["HTTP_HOST", "QUERY_STRING"]),
    "/another": tool(name="another_name"),
    "/guarded": tool(name="guard"),
    "/basic": {
        "tools.auth_basic.on": True,
        "tools.auth_basic.realm": "tests",
        "tools.auth_basic.checkpassword": lambda _realm, user, password: (user, password) == ("ann", "secret"),
        **tool(),
    },
    "/dressed": {
        "tools.gzip.on": True,
        "tools.encode.on": True,
        "tools.json_out.on": True,
        "tools.etags.on": True,
        "tools.etags.autotags": True,
        "tools.caching.on": True,
        "tools.expires.on": True,
        "tools.trailing_slash.on": True,
        "tools.log_headers.on": True,
        "tools.decode.on": True,
        **tool(),
    },
    "/late_error": {"tools.late.on": True, **tool()},
    "/late_refusal": {"tools.late.on": True, "tools.late.status": 403, **tool()},
    **{
        path: tool()
        for path in (
            "/echo",
            "/refuse",
            "/redirect",
            "/internal",
            "/fail",
            "/ordinary",
            "/body",
            "/attributes",
            "/cookie",
            "/fork",
        )
    },
}


class FragilePoller:
    """The system's poller, which fails once when it is told to."""

    broken = False

    def __init__(self) -> None:
        self._poller = default_poller()
        self.register, self.modify = self._poller.register, self._poller.modify
        self.unregister, self.release = self._poller.unregister, self._poller.release

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Wait, or fail."""
        events = self._poller.poll(timeout)
        if FragilePoller.broken:
            FragilePoller.broken = False
            raise RuntimeError("the poller is broken")
        return events


def obey(root: Root) -> None:
    """Carry out the commands of the standard input."""
    # Not by sys.stdin: a forked process would wait for its lock for ever.
    while line := os.read(0, 1000):
        command = line.decode().strip()
        if command == "new manager":
            root.plugin.manager = WebSocketManager()
        elif command == "fail":
            FragilePoller.broken = True
            root.plugin.manager.broadcast("your manager fails")
        else:
            getattr(cherrypy.engine, command)()
        print("done", command, flush=True)
    os._exit(1)  # whoever gave the commands is gone


def configure() -> None:
    """Set the HTTP server up."""
    cherrypy.config.update(
        {
            "server.socket_host": "127.0.0.1",
            "server.socket_port": OPTIONS["port"],
            "server.thread_pool": OPTIONS["threads"],
            "server.shutdown_timeout": OPTIONS["shutdown_timeout"],
            "server.statistics": OPTIONS["statistics"],
            **({"server.socket_queue_size": OPTIONS["queue"]} if OPTIONS["queue"] else {}),
            "engine.autoreload.on": False,
            "log.screen": True,
            "log.access_file": "",
        }
    )
    cherrypy.log.access_log.handlers.clear()
    if OPTIONS["tls"]:
        cherrypy.server.ssl_module = OPTIONS["tls"]
        cherrypy.server.ssl_certificate = OPTIONS["certificate"]
        cherrypy.server.ssl_private_key = OPTIONS["key"]
    if OPTIONS["server"] == "native":
        cherrypy.server.httpserver = CPHTTPServer(cherrypy.server)
        cherrypy.server.httpserver.stats["Enabled"] = OPTIONS["statistics"]
    if OPTIONS["statistics"]:
        cherrypy.config.update({"tools.cpstats.on": True})


def main() -> None:
    """Serve until the engine exits."""
    if not OPTIONS["gc"]:
        gc.disable()
    configure()
    if OPTIONS["fragile"]:
        OPTIONS["plugin"]["poller"] = FragilePoller()
    plugin = Plugin(cherrypy.engine, **OPTIONS["plugin"])
    if OPTIONS["priority"] is not None:
        Plugin.start.priority = OPTIONS["priority"]  # type: ignore[attr-defined]
    root = Root(plugin)
    if OPTIONS["statistics"]:
        root.cpstats = cpstats.StatsPage()  # type: ignore[attr-defined]
    if OPTIONS["with_plugin"]:
        plugin.subscribe()
    if OPTIONS["daemonize"]:
        log = OPTIONS["daemonize"] + ".log"
        Daemonizer(cherrypy.engine, stdout=log, stderr=log).subscribe()
        PIDFile(cherrypy.engine, OPTIONS["daemonize"]).subscribe()
    else:
        threading.Thread(target=obey, args=(root,), daemon=True).start()
    if OPTIONS["autoreload"]:
        reloader = Autoreloader(cherrypy.engine, frequency=0.1, match="^$")
        reloader.files.add(OPTIONS["autoreload"])
        reloader.subscribe()
    cherrypy.tree.mount(root, "/", CONFIG)
    cherrypy.engine.signals.subscribe()
    cherrypy.engine.start()
    cherrypy.engine.block()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests' own Ctrl-C is not ours
    main()
