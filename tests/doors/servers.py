"""Each door as its users start it, and what the tests show of it: the table of the documentation."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.doors.setup import folder
from tests.serving import PATIENCE, ROOT, Peer, Server, certificates, eventually, free_port


class Kind(NamedTuple):
    """A server, and how it is started."""

    title: str
    program: list[str]
    """The interpreter's arguments; PLACE is where it listens."""
    package: str
    """What has to be installed; with a version, in a folder of its own."""
    end: signal.Signals = signal.SIGINT
    """How it is asked to end."""
    tls: tuple[str, ...] | None = None
    """What is added for TLS; None if it can't."""


GUNICORN: Final = [
    str(ROOT / "tests" / "programs" / "gunicorn_script.py"),
    *("tests.doors.app:application", "--graceful-timeout", "5", "--access-logfile", "-"),
]
GUNICORN_TLS: Final = ("--certfile", "CERTIFICATE", "--keyfile", "KEY")
UWSGI: Final = [
    "-c",
    "import os, sys; os.execv(sys.argv[1], sys.argv[1:])",
    "UWSGI",
    *("--master", "--die-on-term", "--enable-threads", "--threads", "4", "--need-app"),
    *("--module", "tests.doors.app:application"),
]


def gunicorn(worker: str, version: str = "") -> Kind:
    """Return a gunicorn."""
    threads = ["--threads", "4"] if worker == "gthread" else []
    title = f"gunicorn {'23' if version == 'eventlet' else version or 'newest'}, {worker}"
    package = f"gunicorn-{version}" if version else "gunicorn"
    tls = None if worker == "eventlet" else GUNICORN_TLS
    return Kind(title, [*GUNICORN, "-b", "PLACE", "-k", worker, *threads], package, signal.SIGTERM, tls)


def program(title: str, kind: str, package: str, tls: bool = False) -> Kind:
    """Return a server that is started by a program of its users."""
    return Kind(title, ["-m", "tests.doors.app", kind, "PLACE"], package, tls=("CERTIFICATE", "KEY") if tls else None)


KINDS: Final[dict[str, Kind]] = {
    "gunicorn-gthread": gunicorn("gthread"),
    "gunicorn-sync": gunicorn("sync"),
    **{
        f"gunicorn-{version}-{kind}": gunicorn(kind, version)
        for version in ("25", "23", "20.1")
        for kind in ("gthread", "sync")
    },
    "gunicorn-gevent": gunicorn("gevent"),
    "gunicorn-eventlet": gunicorn("eventlet", "eventlet"),
    "werkzeug": program("werkzeug, threaded", "werkzeug", "werkzeug", tls=True),
    "werkzeug-single": program("werkzeug, one thread", "werkzeug-single", "werkzeug", tls=True),
    "werkzeug-reloader": program("werkzeug with reloader", "werkzeug-reloader", "werkzeug"),
    "flask": program("Flask's app.run()", "flask", "flask", tls=True),
    "wsgiref": program("wsgiref", "wsgiref", ""),
    "django": program("Django's runserver", "django", "django"),
    "waitress": program("waitress", "waitress", "waitress"),
    "uwsgi": Kind("uWSGI, --http-socket", [*UWSGI, "--http-socket", "PLACE"], "uwsgi", signal.SIGTERM),
    "uwsgi-router": Kind(
        "uWSGI, --http --http-websockets", [*UWSGI, "--http", "PLACE", "--http-websockets"], "uwsgi", signal.SIGTERM
    ),
}

OTHERS: Final = {
    "waitress-lookahead": program("waitress with lookahead", "waitress-lookahead", "waitress"),
    "gunicorn-eventlet-tls": gunicorn("eventlet", "eventlet")._replace(tls=GUNICORN_TLS),
}
"""Those that are no doors."""

LIMITED: Final = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
os.execv(sys.executable, [sys.executable, "-u", *sys.argv[3:]])
"""


class Door(Server):
    """One of these servers, in a process of its own.

    :param name: of the kind.
    :param tls: with TLS.
    :param unix: on a unix socket.
    :param more: further arguments.
    :param descriptors: how many it may have, soft and hard.
    :param environment: variables of the process.
    """

    def __init__(
        self,
        name: str,
        *more: str,
        tls: bool = False,
        unix: bool = False,
        descriptors: tuple[int, int] | None = None,
        **environment: str,
    ) -> None:
        self.kind = {**KINDS, **OTHERS}[name]
        self.path = ""
        self._peers: list[Peer] = []
        port = free_port()
        words = {"PLACE": str(port) if self.kind.program[1] == "tests.doors.app" else f"127.0.0.1:{port}"}
        if unix:
            self.path = tempfile.mktemp(prefix="ws4py-tests-", suffix=".sock")
            words["PLACE"] = f"unix:{self.path}" if self.kind.package.startswith("gunicorn") else self.path
        paths = [str(ROOT)]
        if self.kind.package in ("waitress", "uwsgi") or "-" in self.kind.package:
            found = folder(self.kind.package)
            if found is None:
                pytest.skip(f"{self.kind.package} is installed by: python -m tests.doors.setup")
            paths.insert(0, str(found))
            words["UWSGI"] = str(found / "bin" / "uwsgi")
        elif self.kind.package:
            pytest.importorskip(self.kind.package)
        arguments = [*self.kind.program]
        if tls:
            assert self.kind.tls is not None
            certificate, key, context = certificates()
            words |= {"CERTIFICATE": certificate, "KEY": key}
            arguments += self.kind.tls
        arguments = [words.get(word, word) for word in (*arguments, *more)]
        if descriptors is not None:
            arguments = ["-c", LIMITED, *map(str, descriptors), *arguments]
        super().__init__(
            program=arguments,
            port=port,
            status=None,
            environment={"PYTHONPATH": os.pathsep.join([*paths, *sys.path[1:]]), **environment},
        )
        self.tls = context if tls else None

    def connect_plainly(self) -> socket.socket:
        """See :meth:`Server.connect_plainly`."""
        if not self.path:
            return super().connect_plainly()
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        return sock

    def wait_until_ready(self) -> None:
        """Wait until it answers."""

        def answers() -> bool:
            assert self.process.poll() is None, f"the server has ended:\n{self.log()}"
            try:
                with self.connect() as peer:
                    peer.sock.sendall(peer.request("/", Connection="close"))
                    return b"descriptors" in peer.read_to_the_end()
            except OSError:
                return False

        eventually(answers, "the server answers")

    def __enter__(self) -> Door:
        """Wait until it answers."""
        super().__enter__()
        return self

    def connect(self) -> Peer:
        """See :meth:`Server.connect`. It is closed with the server at the latest."""
        peer = super().connect()
        self._peers.append(peer)
        return peer

    def kill(self) -> None:
        """See :meth:`Server.kill`."""
        super().kill()
        for peer in self._peers:
            peer.close()
        if self.path:
            Path(self.path).unlink(missing_ok=True)

    def state(self, websockets: int | None = None) -> dict[str, Any]:
        """Return what the process has."""
        with self.connect() as peer:
            peer.sock.sendall(peer.request("/", Connection="close"))
            said = peer.read_to_the_end()
        state: dict[str, Any] = json.loads(said.partition(b"\r\n\r\n")[2])
        return state

    def end(self) -> None:
        """Ask it to end, as is usual with it. A worker of uWSGI that answers a request would do so without a word."""
        if self.kind.package == "uwsgi":
            eventually(lambda: self.log().count("=> generated") >= len(self._peers), "it has answered all requests")
        self.process.send_signal(self.kind.end)


# --- the table --------------------------------------------------------------------------------------------------------

NO_TEST: Final = "?"

BEHAVIOURS: Final = {
    "threads": "no thread",
    "tls": "TLS",
    "unix": "unix",
    "keepalive": "keep-alive",
    "early": "early",
    "log": "log",
    "end": "end",
    "reload": "reload",
    "descriptors": "descriptors",
    "own": "own manager",
}

CELLS: Final[dict[tuple[str, str], str]] = {}
"""What a test shows, by the behaviour and the server."""


def shows(behaviour: str, *kinds: str, cell: str = "yes") -> Callable[[Any], Any]:
    """Decorate a test that shows a behaviour of servers.

    :param cell: what it is that it shows.
    """
    assert behaviour in BEHAVIOURS
    for kind in kinds:
        assert kind in KINDS
        assert CELLS.setdefault((behaviour, kind), cell) == cell
    return pytest.mark.parametrize("kind", kinds)


def rows() -> list[tuple[str, ...]]:
    """Return the table of the documentation; a cell without a test has :data:`NO_TEST`."""
    import tests.server.test_doors  # noqa: F401 - it fills the cells

    table = [("server", *BEHAVIOURS.values())]
    for name, kind in KINDS.items():
        table.append((kind.title, *(CELLS.get((behaviour, name), NO_TEST) for behaviour in BEHAVIOURS)))
    return table
