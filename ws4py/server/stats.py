"""What a manager counts, served over HTTP: as JSON, for Prometheus, and as a page to look at.

.. code-block:: python

    from ws4py.server.stats import StatsApplication, basic_auth

    stats = StatsApplication(manager, authorize=basic_auth('admin', 'secret'))

It is a WSGI application, and it serves nothing before it is mounted: ``cherrypy.tree.graft(stats, '/stats')`` or
:class:`ws4py.server.cherrypystats.StatsHandler` for CherryPy; ``mount(application, stats, '/stats')`` for cheroot,
gevent and any other server of WSGI. What is behind its path:

=======================  ===============================================================================================
``/``                    the dashboard
``/stats.json``          :meth:`WebSocketManager.stats() <ws4py.manager.WebSocketManager.stats>`
``/connections.json``    :meth:`WebSocketManager.connection_stats() <ws4py.manager.WebSocketManager.connection_stats>`,
                         with ``?top=N&by=KEY``
``/metrics``             the text that Prometheus scrapes; 501 without the package prometheus_client
``/limits.json``         what each limit does that they count, in words
``/dashboard.json``      what the dashboard asks for if its websocket is refused
``/feed``                that websocket
=======================  ===============================================================================================

Whoever can ask sees the addresses of clients: see ``authorize`` and ``connections``.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

from ws4py.exc import WebSocketException
from ws4py.handshake import is_allowed_host
from ws4py.limits import ACTIONS
from ws4py.manager import WebSocketManager
from ws4py.manager.adding import add_stats, add_tables, look
from ws4py.manager.ranking import SORT_KEYS, SortKey
from ws4py.messaging import CloseCode, Message
from ws4py.server.adapters import find_server
from ws4py.server.exposition import ProcessesCollector, StatsCollector
from ws4py.server.wsgiutils import WebSocketWSGIApplication
from ws4py.websocket import WebSocket

__all__ = ["StatsApplication", "StatsCollector", "basic_auth", "mount"]

logger = logging.getLogger("ws4py")

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]
Authorize = Callable[[dict[str, Any]], bool]
Gather = Callable[[int, Sequence[SortKey]], Mapping[str, Mapping[str, Any]]]
"""Returns what :func:`ws4py.manager.adding.look` does in each process, by its number; its arguments are that one's."""

DASHBOARD: Final = Path(__file__).parent / "dashboard"
FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
}
SECURITY: Final = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]

MOST_ROWS: Final = 1000
"""The most connections in one answer."""

DASHBOARD_ROWS: Final = 10

Choice = tuple[SortKey, SortKey]
"""By what the connections in the two tables of a dashboard are the first: the slowest, and the busiest."""

TOO_MANY_VIEWERS: Final = "As many dashboards as may have a websocket are open"

LEAST_INTERVAL: Final = 1.0
"""For how many seconds a viewer gets nothing new, whatever it asks for, but for its turn."""

FEED_BACKLOG: Final = 1 << 16
"""A viewer for whom more bytes than that wait misses a turn."""

FEED_LIMITS: Final[dict[str, Any]] = {"max_message_size": 1024, "max_messages_per_second": 20}


class _Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: str, text: str, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


class Answer(NamedTuple):
    """A response."""

    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"),)
    status: str = "200 OK"


# --- who may see it ---------------------------------------------------------------------------------------------------


def basic_auth(name: str, password: str, realm: str = "statistics") -> Authorize:
    """Return an ``authorize`` that asks for a name and a password (RFC 7617). Use it over TLS, or on this machine."""
    wanted = base64.b64encode(f"{name}:{password}".encode())

    def authorize(environ: dict[str, Any]) -> bool:
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        return scheme.lower() == "basic" and hmac.compare_digest(given.strip().encode("latin-1", "replace"), wanted)

    authorize.challenge = f'Basic realm="{realm}", charset="UTF-8"'  # type: ignore[attr-defined]
    return authorize


# --- the application --------------------------------------------------------------------------------------------------


class StatsApplication:
    """The WSGI application. Any number of threads may call it at once.

    :param manager: whose figures it serves; by default the one of the server that has the request: ws4py's for gevent,
        or a cheroot with a manager attached to it.
    :param authorize: a function of the WSGI environ that tells whether a request may be answered. It is asked for each
        path, the dashboard's websocket included. If it has an attribute ``challenge``, that is the ``WWW-Authenticate``
        of the 401 that the others get; without one they get a 403. None lets everybody in.
    :param connections: serve figures of single connections, with the addresses of their peers.
    :param hosts: the names by which this server may be asked, as in the Host header, with or without a port; others get
        a 403. None for any: then a page of an attacker whose name has come to mean this server's address (DNS
        rebinding) can read what its visitors can.
    :param interval: how often a dashboard gets new figures, in seconds.
    :param max_viewers: how many dashboards this process feeds at once. The websocket of a further one is answered with
        503, and that dashboard asks for each of its figures instead.
    :param gather: asks all processes, if there are several; their figures are served in the place of this one's.
    """

    def __init__(
        self,
        manager: WebSocketManager | None = None,
        *,
        authorize: Authorize | None = None,
        connections: bool = True,
        hosts: str | Iterable[str] | None = None,
        interval: float = 1.0,
        max_viewers: int = 32,
        gather: Gather | None = None,
    ) -> None:
        if not interval > 0:
            raise ValueError(f"interval must be a number of seconds over 0, not {interval!r}")
        if not isinstance(max_viewers, int) or isinstance(max_viewers, bool) or max_viewers < 0:
            raise ValueError(f"max_viewers must be a whole number of at least 0, not {max_viewers!r}")
        self.manager = manager
        self.authorize = authorize
        self.connections = connections
        self.hosts = hosts if hosts is None or isinstance(hosts, str) else tuple(hosts)
        self.interval = interval
        self.max_viewers = max_viewers
        self.gather = gather
        self._feed = _Feed(self)
        with suppress(ModuleNotFoundError):  # which a scrape says
            import prometheus_client.exposition  # noqa: F401 - now, for it would keep the first scrape's server waiting

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        try:
            self._check(environ)
            if environ.get("PATH_INFO") == "/feed":
                if not self.has_room:
                    raise _Refused("503 Service Unavailable", TOO_MANY_VIEWERS)
                application = WebSocketWSGIApplication(
                    handler_cls=self.viewer(self._find_manager(environ)),
                    answer=True,
                    manager=self.manager,
                    **FEED_LIMITS,
                )
                return application(environ, start_response)
            answer = self._answer(environ)
        except _Refused as error:
            body = f"{error}\n".encode()
            answer = Answer(body, "text/plain; charset=utf-8", (*error.headers, *Answer._field_defaults["headers"]))
            answer = answer._replace(status=error.status)
        headers = [("Content-Type", answer.content_type), ("Content-Length", str(len(answer.body)))]
        if answer.status.startswith("304"):
            headers = []
        start_response(answer.status, [*headers, *answer.headers, *SECURITY])
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [answer.body]

    def allows(self, environ: dict[str, Any]) -> bool:
        """Tell whether whoever made a request may see the figures."""
        return self.authorize is None or bool(self.authorize(environ))

    @property
    def has_room(self) -> bool:
        """Whether one more dashboard may have a websocket."""
        return len(self._feed) < self.max_viewers

    def _check(self, environ: dict[str, Any]) -> None:
        """See whether the request may be answered."""
        if not is_allowed_host(environ.get("HTTP_HOST", ""), self.hosts):
            raise _Refused("403 Forbidden", "These statistics are not served by this name")
        if not self.allows(environ):
            challenge = getattr(self.authorize, "challenge", None)
            if challenge is None:
                raise _Refused("403 Forbidden", "These statistics are not for everybody")
            raise _Refused("401 Unauthorized", "These statistics are protected", ("WWW-Authenticate", challenge))
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            raise _Refused("405 Method Not Allowed", "These statistics can only be read", ("Allow", "GET, HEAD"))

    def _answer(self, environ: dict[str, Any]) -> Answer:
        path = environ.get("PATH_INFO", "")
        if not path:
            # Relative, so it is right behind any proxy.
            base = environ.get("SCRIPT_NAME", "").rpartition("/")[2]
            raise _Refused("302 Found", "The dashboard is one slash further", ("Location", f"{base}/"))
        if path in FILES:
            return _file(path, environ)
        if path == "/stats.json":
            return _json(self._look(self._find_manager(environ))["stats"])
        if path == "/limits.json":
            return _json(dict(ACTIONS))
        if path == "/connections.json":
            return self._connections(environ)
        if path == "/dashboard.json":
            slowest, busiest = (self._key(environ, name, value) for name, value in _Viewer.DEFAULTS.items())
            (figures,) = self.dashboards(self._find_manager(environ), [(slowest, busiest)])
            return _json(figures)
        if path == "/metrics":
            return self._metrics(environ)
        raise _Refused("404 Not Found", "There is no such page here")

    def _find_manager(self, environ: dict[str, Any]) -> WebSocketManager:
        manager = find_server(environ).manager if self.manager is None else self.manager
        if not isinstance(manager, WebSocketManager):
            raise _Refused("503 Service Unavailable", "No manager of websockets was given, and this server has none")
        return manager

    def _key(self, environ: dict[str, Any], name: str, default: SortKey) -> SortKey:
        value = parse_qs(environ.get("QUERY_STRING", "")).get(name, [default])[-1]
        for key in SORT_KEYS:
            if key == value:
                return key
        raise _Refused("400 Bad Request", f"{name} must be one of {', '.join(SORT_KEYS)}")

    def _connections(self, environ: dict[str, Any]) -> Answer:
        if not self.connections:
            raise _Refused("404 Not Found", "Figures of single connections are not served here")
        number = parse_qs(environ.get("QUERY_STRING", "")).get("top", ["10"])[-1]
        if not (number.isascii() and number.isdigit() and len(number) < 6 and int(number) <= MOST_ROWS):
            raise _Refused("400 Bad Request", f"top must be a whole number of at most {MOST_ROWS}")
        key = self._key(environ, "by", "messages")
        return _json(self._look(self._find_manager(environ), int(number), [key])["tables"][key])

    def _metrics(self, environ: dict[str, Any]) -> Answer:
        try:
            from prometheus_client import CollectorRegistry
            from prometheus_client.exposition import choose_encoder
        except ModuleNotFoundError:
            raise _Refused(
                "501 Not Implemented", "This needs the package prometheus_client: pip install 'ws4py[stats]'"
            ) from None
        registry = CollectorRegistry()
        if self.gather is None:
            registry.register(StatsCollector(self._find_manager(environ)))
        else:
            figures = {process: item["stats"] for process, item in self.gather(0, ()).items()}
            registry.register(ProcessesCollector(figures))
        encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        return Answer(encode(registry), content_type)

    def dashboards(self, manager: WebSocketManager, choices: Sequence[Choice]) -> list[dict[str, Any]]:
        """Return what each of some dashboards shows: the snapshot, and the connections with the most of what it chose.

        They are made together: the connections are looked through once, however many dashboards there are.
        """
        keys = sorted({key for choice in choices for key in choice}) if self.connections else []
        found = self._look(manager, DASHBOARD_ROWS, keys)
        figures, tables = {"stats": found["stats"], "interval": self.interval}, found["tables"]
        if not self.connections:
            return [figures] * len(choices)
        return [{**figures, "slowest": tables[slowest], "busiest": tables[busiest]} for slowest, busiest in choices]

    def _look(self, manager: WebSocketManager, top: int = 0, keys: Sequence[SortKey] = ()) -> dict[str, Any]:
        """Return the figures of a manager, or of all processes: see :func:`ws4py.manager.adding.look`."""
        if self.gather is None:
            return look(manager, top, keys)
        figures = self.gather(top, keys)
        return {"stats": add_stats(figures), "tables": add_tables(figures, top)}

    def viewer(self, manager: WebSocketManager) -> Callable[..., WebSocket]:
        """Return what makes the websocket of a dashboard, as a ``handler_cls``."""
        return functools.partial(_Viewer, self._feed, manager)


@functools.cache
def _read(name: str) -> tuple[bytes, str]:
    data = (DASHBOARD / name).read_bytes()
    return data, f'"{hashlib.sha256(data).hexdigest()[:16]}"'


def _file(path: str, environ: dict[str, Any]) -> Answer:
    name, content_type = FILES[path]
    data, tag = _read(name)
    headers = (("Cache-Control", "no-cache"), ("ETag", tag))
    if tag in environ.get("HTTP_IF_NONE_MATCH", ""):
        return Answer(b"", content_type, headers, "304 Not Modified")
    return Answer(data, content_type, headers)


def _json(value: Any) -> Answer:
    return Answer(json.dumps(value, separators=(",", ":")).encode(), "application/json")


def mount(application: Application, stats: Application, path: str = "/stats") -> Application:
    """Return a WSGI application that has ``stats`` under ``path``, and is ``application`` everywhere else."""
    path = "/" + path.strip("/")

    def mounted(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        wanted: str = environ.get("PATH_INFO", "")
        if wanted != path and not wanted.startswith(f"{path}/"):
            return application(environ, start_response)
        # The same object: servers of ours look into it for the websocket.
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + path
        environ["PATH_INFO"] = wanted[len(path) :]
        return stats(environ, start_response)

    return mounted


# --- the dashboard's websocket ----------------------------------------------------------------------------------------


class _Viewer(WebSocket):
    """The websocket of one dashboard. It may choose by what the connections in its tables are the first."""

    DEFAULTS: Final[dict[str, SortKey]] = {"slowest": "round_trip", "busiest": "messages"}

    def __init__(self, feed: _Feed, manager: WebSocketManager, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.feed = feed
        self.manager = manager
        self.keys = dict(self.DEFAULTS)
        self.waiting = True
        """Whether it has asked for something that it does not show yet."""
        self.fed_at = -math.inf

    @property
    def choice(self) -> Choice:
        return self.keys["slowest"], self.keys["busiest"]

    def opened(self) -> None:
        if not self.feed.add(self):  # a crowd of handshakes found room at the same time
            self.close(CloseCode.TRY_AGAIN_LATER, TOO_MANY_VIEWERS)

    def received_message(self, message: Message) -> None:
        try:
            wish = json.loads(message.data)
        except (ValueError, RecursionError):
            return
        if isinstance(wish, dict):
            self.keys.update({name: key for name, key in wish.items() if name in self.keys and key in SORT_KEYS})
            self.waiting = True

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        self.feed.discard(self)


class _Feed:
    """Sends new figures to the dashboards that are open, from a thread that there is while one is.

    What it does is bounded, whatever viewers ask for: a wish only chooses what the viewer is shown next, and all of
    them get the same snapshot.
    """

    def __init__(self, application: StatsApplication) -> None:
        self._application = application
        self._lock = threading.Lock()
        self._viewers: set[_Viewer] = set()
        self._thread: threading.Thread | None = None
        self._changed = threading.Event()  # a viewer has come, or the last one has gone

    def __len__(self) -> int:
        return len(self._viewers)

    def add(self, viewer: _Viewer) -> bool:
        """Show the figures to one more, if there is room."""
        with self._lock:
            if len(self._viewers) >= self._application.max_viewers:
                return False
            self._viewers.add(viewer)
            self._changed.set()
            if self._thread is None or not self._thread.is_alive():  # the latter: in a forked process
                self._thread = threading.Thread(target=self._run, name="WebSocketStatistics", daemon=True)
                self._thread.start()
        return True

    def discard(self, viewer: _Viewer) -> None:
        """Show them to one less."""
        with self._lock:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._changed.set()

    def _run(self) -> None:
        turn = 0.0
        while True:
            self._changed.clear()
            with self._lock:
                viewers = list(self._viewers)
                if not viewers:
                    self._thread = None
                    return
            now = time.monotonic()
            everyone = now >= turn
            if not everyone:
                viewers = [viewer for viewer in viewers if viewer.waiting and now - viewer.fed_at >= LEAST_INTERVAL]
            for manager in {viewer.manager for viewer in viewers}:
                self._show(manager, [viewer for viewer in viewers if viewer.manager is manager])
            if everyone:
                turn = time.monotonic() + self._application.interval
            self._changed.wait(max(0.0, min(turn - time.monotonic(), LEAST_INTERVAL)))

    def _show(self, manager: WebSocketManager, viewers: list[_Viewer]) -> None:
        """Send a manager's figures as they are now to some viewers."""
        now = time.monotonic()
        for viewer in viewers:
            viewer.waiting = False  # before its choice is read: what it asks for from now on is for the next time
            viewer.fed_at = now
        try:
            wanted: dict[Choice, list[_Viewer]] = {}
            for viewer in viewers:
                wanted.setdefault(viewer.choice, []).append(viewer)
            shown = self._application.dashboards(manager, list(wanted))
            for figures, group in zip(shown, wanted.values(), strict=True):
                text = json.dumps(figures, separators=(",", ":"))
                for viewer in group:
                    self._send(viewer, text)
        except Exception:
            logger.exception("The statistics could not be sent to %r", viewers[0])

    def _send(self, viewer: _Viewer, figures: str) -> None:
        if viewer.buffered > FEED_BACKLOG:
            return  # it is behind, and the next figures are newer
        try:
            viewer.send(figures)
        except (WebSocketException, OSError) as error:
            logger.debug("A dashboard has gone: %s", error)
