"""The servers that are measured, each in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ENVIRONMENTS: Final = HERE.parent / ".benchmarks"


@dataclass(frozen=True)
class Peer:
    """A server under measurement.

    :ivar name: on the command line and in the results.
    :ivar title: in tables and charts.
    :ivar environment: the name of its virtual environment; that of the C floor has no interpreter.
    :ivar script: in ``servers/``; it is given the port, and then ``arguments``.
    :ivar able: to do what not all are: ``http`` (pages from the same process), ``tls``, ``deflate``, ``ping`` (Pings by
        itself), ``slow`` (a handler that blocks), ``compute`` (a thread that computes), ``max_workers`` (a limit of an
        endpoint).
    """

    name: str
    title: str
    environment: str
    script: str = ""
    arguments: tuple[str, ...] = ()
    able: frozenset[str] = frozenset({"http", "tls", "deflate", "ping", "slow"})

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return ENVIRONMENTS / self.environment / "bin" / "python"

    @property
    def command(self) -> list[str]:
        """What starts the server, but for the port."""
        if not self.script:
            return [str(ENVIRONMENTS / "limit")]
        return [str(self.python), str(HERE / "servers" / self.script)]


CHERRYPY: Final = ("cherrypy==18.10.0", "cheroot==11.1.2")
GEVENT: Final = ("gevent",)

REQUIREMENTS: Final[dict[str, tuple[str, ...]]] = {
    "ours": ("-e", str(HERE.parent), *CHERRYPY, *GEVENT),
    "ws4py-0.6.0": ("ws4py==0.6.0", *CHERRYPY, *GEVENT),
    "gevent-websocket": ("gevent-websocket", "wsaccel", *GEVENT),
    "websockets": ("websockets", "uvloop"),
    "aiohttp": ("aiohttp", "uvloop"),
    "tornado": ("tornado",),
    "picows": ("picows", "uvloop"),
    "flask-sock": ("flask-sock", "gunicorn"),
    "charts": ("matplotlib",),
}
"""What pip installs into each environment; ``charts`` has no server."""

NO_DEFLATE: Final = frozenset({"http", "tls", "ping", "slow"})
EVERYTHING: Final = frozenset({"http", "tls", "deflate", "ping", "slow", "compute"})

PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer("ws4py", "ws4py", "ours", "cherrypy_server.py", able=EVERYTHING | {"max_workers"}),
        Peer("ws4py-workers0", "ws4py, workers=0", "ours", "cherrypy_server.py", ("workers=0",), EVERYTHING),
        Peer(
            "ws4py-own",
            "ws4py, own server",
            "ours",
            "threaded_server.py",
            able=EVERYTHING - {"http"} | {"max_workers"},
        ),
        Peer("ws4py-gevent", "ws4py, gevent", "ours", "gevent_server.py"),
        Peer("ws4py-0.6", "ws4py 0.6.0, CherryPy", "ws4py-0.6.0", "cherrypy_server.py", able=NO_DEFLATE),
        Peer("ws4py-0.6-gevent", "ws4py 0.6.0, gevent", "ws4py-0.6.0", "gevent_server.py", able=NO_DEFLATE - {"ping"}),
        Peer(
            "gevent-websocket",
            "gevent-websocket",
            "gevent-websocket",
            "geventwebsocket_server.py",
            able=NO_DEFLATE - {"ping"},
        ),
        Peer(
            "websockets-threads",
            "websockets, threads",
            "websockets",
            "websockets_threads_server.py",
            able=EVERYTHING - {"http"},
        ),
        Peer(
            "websockets-asyncio",
            "websockets, asyncio",
            "websockets",
            "websockets_asyncio_server.py",
            able=EVERYTHING - {"http"},
        ),
        Peer("aiohttp", "aiohttp, uvloop", "aiohttp", "aiohttp_server.py", able=EVERYTHING),
        Peer("tornado", "tornado", "tornado", "tornado_server.py", able=EVERYTHING),
        Peer("picows", "picows, uvloop", "picows", "picows_server.py", able=EVERYTHING - {"http", "deflate"}),
        Peer("flask-sock", "Flask-Sock, gunicorn", "flask-sock", "flasksock_server.py"),
        Peer("c", "the C floor", "c", able=frozenset()),
    )
}


def install(environment: str) -> None:
    """Make an environment, unless it is there already."""
    if environment not in REQUIREMENTS:
        return
    folder = ENVIRONMENTS / environment
    python, done = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS[environment])
    if done.exists() and done.read_text() == wanted:
        return
    print(f"Installing {environment} ...", file=sys.stderr)
    if not python.exists():
        venv.create(folder, with_pip=True)
    variables = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS[environment]], check=True, env=variables)
    done.write_text(wanted)


def packages(environment: str) -> list[str]:
    """Return what is installed in an environment, as ``name==version`` each."""
    if environment not in REQUIREMENTS:
        return []
    code = (
        "import importlib.metadata as m;"
        "print(*sorted({f'{d.name}=={d.version}' for d in m.distributions()}, key=str.lower), sep='\\n')"
    )
    python = ENVIRONMENTS / environment / "bin" / "python"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.split()
