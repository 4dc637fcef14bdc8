"""The servers that are measured, each in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent / ".benchmarks"

CHERRYPY = ("cherrypy==18.10.0", "cheroot==11.1.2")


@dataclass(frozen=True)
class Peer:
    """A server under measurement.

    :ivar name: for the table.
    :ivar environment: the name of its virtual environment.
    :ivar requirements: what pip installs there.
    :ivar script: in ``servers/``; it is given the port, and then ``arguments``.
    """

    name: str
    environment: str
    requirements: tuple[str, ...]
    script: str
    arguments: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return ENVIRONMENTS / self.environment / "bin" / "python"

    @property
    def command(self) -> list[str]:
        """What starts the server, but for the port."""
        return [str(self.python), str(HERE / "servers" / self.script)]

    def install(self) -> None:
        """Make the environment, unless it is there already."""
        if not self.python.exists():
            print(f"Installing {self.environment} ...", file=sys.stderr)
            venv.create(ENVIRONMENTS / self.environment, with_pip=True)
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        subprocess.run([self.python, "-m", "pip", "install", "-q", *self.requirements], check=True, env=environment)


OURS = ("-e", str(HERE.parent), *CHERRYPY)

PEERS = {
    peer.name: peer
    for peer in (
        Peer("ws4py", "ours", OURS, "cherrypy_echo.py"),
        Peer("ws4py, workers=0", "ours", OURS, "cherrypy_echo.py", ("workers=0",)),
        Peer("ws4py 0.6.0", "ws4py-0.6.0", ("ws4py==0.6.0", *CHERRYPY), "cherrypy_echo.py"),
    )
}
