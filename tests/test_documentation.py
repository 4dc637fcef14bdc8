"""Every block of code in the documentation runs: on its pages, and in the docstrings of the modules.

What a page's readers don't need to see stands in comments above a block:

``.. Before it:``, ``.. After it:``
    Python that belongs before, or after, a block of Python.
``.. Serves URL``
    the block is a server: it is started, and a client connects. The lines below are what the client sends (``>``), and
    what it is sent (``<``).
``.. It logs EXPRESSION``
    what the server has written in the end matches.
``.. It needs an echo server.``
    there is one, on port 9000.
``.. It needs a Redis.``
    there is one, on port 6379.
``.. Loaded by nginx``
    it is part of a configuration, which ``nginx -t`` checks.
``.. Not run: REASON``
    it can't run here.

A block of Python with a caption is a file as well, which the other blocks of its page may use, as they may use
the examples. Ports 9000 and 6379 are others in the tests.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.sync.client import ClientConnection, connect

from tests import redis_server
from tests.serving import PATIENCE, ROOT, eventually, free_port

PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]
HEAD = re.compile(r"\.\. code-block:: *(\S*)")
LITERAL = re.compile(r"(?!\.\. ).*::$")
NOTES = (
    "Before it:", "After it:", "Serves ", "It logs ", "It needs an echo server.", "It needs a Redis.",
    "Loaded by nginx", "Not run: ",
)  # fmt: skip
ENVIRONMENT = {
    **os.environ,
    "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")]),
    "PYTHONUNBUFFERED": "1",
}
ECHO = """
from wsgiref.simple_server import make_server
from ws4py.server.wsgirefserver import WebSocketWSGIRequestHandler, WSGIServer
from ws4py.server.wsgiutils import WebSocketWSGIApplication
from ws4py.websocket import EchoWebSocket

echo = WebSocketWSGIApplication(handler_cls=EchoWebSocket)
make_server("127.0.0.1", 9000, echo, WSGIServer, WebSocketWSGIRequestHandler).serve_forever()
"""


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    caption: str | None
    notes: dict[str, str]
    """What stands in the comments: by how they begin, the rest, and the lines below."""
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).with_suffix('')}-{self.line}"


def indented(lines: list[str], start: int) -> tuple[str, int]:
    """Return the indented text from a line on, and the line that follows."""
    end = start
    while end < len(lines) and (not lines[end] or lines[end].startswith(" ")):
        end += 1
    return textwrap.dedent("\n".join(lines[start:end])).strip("\n"), end


def blocks_of(page: Path, text: str) -> Iterator[Block]:
    """Yield the blocks of code of a page, or of the docstring of a module."""
    lines = text.splitlines()
    notes: dict[str, str] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if head := HEAD.fullmatch(line):
            first = number
            options = []
            while number < len(lines) and lines[number].strip():
                options.append(lines[number].strip())
                number += 1
            captions = [option.partition(": ")[2] for option in options if option.startswith(":caption:")]
            code, number = indented(lines, number)
            yield Block(page, first, head[1], captions[0] if captions else None, notes, code)
            notes = {}
        elif begin := next((note for note in NOTES if line.startswith(f".. {note}")), None):
            below, number = indented(lines, number)
            notes[begin.strip()] = f"{line[3 + len(begin) :]}\n{below}".strip("\n")
        elif line:
            assert not notes, f"{page.name}, line {number}: something stands between a note and its block"


BLOCKS = [block for page in PAGES for block in blocks_of(page, page.read_text(encoding="utf-8"))]

PLAIN = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b""]
"""
ECHOES = "\n> hello\n< hello"
DJANGO = """
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__)
from django.contrib.auth.decorators import login_required
from django.core.wsgi import get_wsgi_application
from django.urls import path
from ws4py import WebSocket
from ws4py.frameworks.django import WebSockets, websocket_path
class Chat(WebSocket): pass
def index(request): pass
"""
FLASK = """
from flask import Flask
from ws4py import WebSocket
from ws4py.frameworks.flask import WebSockets
"""
DOCSTRINGS: dict[str, dict[str, str]] = {
    "ws4py.extensions.permessage_deflate": {"Before it:": "from ws4py import PerMessageDeflate"},
    "ws4py.frameworks.django": {"Before it:": DJANGO},
    "ws4py.frameworks.flask": {"Before it:": FLASK},
    "ws4py.frameworks.flask_sock": {"Before it:": "from flask import Flask\napp = Flask('app')"},
    "ws4py.frameworks.gevent_websocket": {"Before it:": PLAIN},
    "ws4py.server.cherootserver": {"Before it:": PLAIN, "Serves": f"ws://127.0.0.1:9000/ws{ECHOES}"},
    "ws4py.server.cherrypyserver": {
        "Before it:": "import cherrypy\ncherrypy.config.update({'server.socket_port': 9000})",
        "Serves": f"ws://127.0.0.1:9000/ws{ECHOES}",
    },
    "ws4py.server.cherrypystats": {
        "Before it:": "from ws4py.server.cherrypystats import StatsHandler\n"
        "import cherrypy, ws4py\nplugin = ws4py.WebSocketPlugin(cherrypy.engine)"
    },
    "ws4py.server.geventserver": {"Serves": f"ws://127.0.0.1:9000/{ECHOES}"},
    "ws4py.server.stats": {"Before it:": "from ws4py import WebSocketManager\nmanager = WebSocketManager()"},
    "ws4py.server.threadedserver": {"Serves": f"ws://127.0.0.1:9000/{ECHOES}"},
    "ws4py.server.wsgirefserver": {"Serves": f"ws://127.0.0.1:9000/{ECHOES}"},
    "ws4py.server.wsgiutils": {"Serves": f"ws://localhost:9000/{ECHOES}"},
}
"""What the blocks in docstrings need: by the module, notes as those in the comments of a page."""


def docstring_blocks() -> Iterator[Block]:
    """Yield the blocks of the reference that come from the docstrings of modules."""
    for path in sorted((ROOT / "ws4py").rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for block in blocks_of(path, text):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield block._replace(notes=DOCSTRINGS.get(module, {}))


BLOCKS += docstring_blocks()


class Program:
    """A block that runs in a process of its own, in a directory that has the files of its page."""

    def __init__(self, block: Block, directory: Path, port: int) -> None:
        self.directory = directory
        for other in BLOCKS:
            if other.page == block.page and other.caption is not None:
                path = directory / other.caption
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(at_port(other.code, port))
        if block.language == "console":
            self.command = shlex.split(at_port(block.code, port).removeprefix("$ ").replace("\\\n", " "))
        else:
            parts = [block.notes.get("Before it:", ""), block.code, block.notes.get("After it:", "")]
            (directory / "program.py").write_text(at_port("\n\n".join(parts), port))
            self.command = [sys.executable, "program.py"]

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run it; stop it at the end, if it has not ended."""
        log = self.directory / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command, cwd=self.directory, env=ENVIRONMENT, stdout=output, stderr=output, start_new_session=True
            )
        try:
            yield process
        except BaseException:
            print(log.read_text(errors="replace"))
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(PATIENCE)


def at_port(text: str, port: int) -> str:
    """Return a text with another port."""
    return text.replace("9000", str(port))


def connected(url: str, process: subprocess.Popen[bytes]) -> ClientConnection:
    """Return a client, as soon as the server accepts it."""

    def attempt() -> ClientConnection | None:
        assert process.poll() is None, f"the server has ended with {process.returncode}"
        try:
            return connect(url, proxy=None)
        except (ConnectionRefusedError, FileNotFoundError):
            return None

    client = eventually(attempt, f"{url} is served")
    assert isinstance(client, ClientConnection)
    return client


def converse(client: ClientConnection, lines: list[str]) -> None:
    """Send and expect what the lines say."""
    for line in lines:
        direction, _, text = line.partition(" ")
        if direction == ">":
            client.send(text)
        else:
            assert direction == "<"
            assert client.recv(timeout=PATIENCE) == text


def test_none_is_missed() -> None:
    """A literal block doesn't say in which language it is, and is not found here."""
    assert len(BLOCKS) > 30
    for page in PAGES:
        assert [line for line in page.read_text().splitlines() if LITERAL.fullmatch(line)] == [], page.name


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.rst")), ids=lambda page: page.stem)
def test_what_stands_beside_the_pages_is_sound(page: Path) -> None:
    """Sphinx reads the pages; these are read as plain reStructuredText."""
    command = [sys.executable, "-m", "docutils", "--halt=2", str(page), os.devnull]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_that_it_names_are_there(page: Path) -> None:
    named = re.findall(r"``((?:benchmarks|docs|examples|loadtest|tests)/[\w./-]+)``", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_it_runs(block: Block, tmp_path: Path) -> None:
    notes = block.notes
    if "Not run:" in notes:
        assert notes["Not run:"].endswith(".")
        for path in re.findall(r"tests/\w+\.py|\.ci/run", notes["Not run:"]):
            assert (ROOT / path).exists(), path
        return
    with contextlib.ExitStack() as stack:
        if "It needs a Redis." in notes:
            block = stack.enter_context(with_redis(block, tmp_path / "redis"))
        check(block, tmp_path)


@contextlib.contextmanager
def with_redis(block: Block, directory: Path) -> Iterator[Block]:
    """Run a Redis; return the block with its port."""
    if redis_server.BINARY is None:
        pytest.skip("redis-server is not installed")
    directory.mkdir()
    port = free_port()
    with redis_server.RedisServer(directory, port):
        notes = {name: text.replace("6379", str(port)) for name, text in block.notes.items()}
        yield block._replace(code=block.code.replace("6379", str(port)), notes=notes)


def check(block: Block, tmp_path: Path) -> None:
    """Run a block, and see that it does what its page says."""
    notes = block.notes
    port = free_port()
    if "Loaded by nginx" in notes:
        check_by_nginx(block, tmp_path)
        return
    assert block.language in ("python", "console"), "say how it is run"
    program = Program(block, tmp_path, port)
    if "Serves" in notes:
        url, *lines = notes["Serves"].splitlines()
        log = tmp_path / "log"
        with program.running() as process:
            with connected(at_port(url, port), process) as client:
                converse(client, lines)
            if expected := notes.get("It logs"):
                eventually(lambda: re.search(expected, log.read_text()), f"{expected!r} is logged")
        assert expected or "Traceback" not in log.read_text()
        return
    with contextlib.ExitStack() as stack:
        if "It needs an echo server." in notes:
            (tmp_path / "server").mkdir()
            server = Program(
                block._replace(language="python", caption=None, notes={}, code=ECHO), tmp_path / "server", port
            )
            process = stack.enter_context(server.running())
            stack.enter_context(connected(at_port("ws://127.0.0.1:9000/", port), process))
        process = stack.enter_context(program.running())
        assert process.wait(PATIENCE) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def check_by_nginx(block: Block, directory: Path) -> None:
    """Have nginx read a part of its configuration."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    place = block.code if "location" in block.code else f"location / {{\n{block.code}\n}}"
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"pid {directory}/pid; error_log {directory}/errors; events {{}}\n"
        f"http {{ access_log off; server {{ listen 127.0.0.1:{free_port()};\n{place}\n}} }}\n"
    )
    command = ["nginx", "-t", "-p", str(directory), "-c", str(configuration)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def test_the_layers_are_those_of_the_contract() -> None:
    """What the design's page lists from top to bottom is in the order of import-linter's."""
    contract = (ROOT / "pyproject.toml").read_text().partition('id = "layers"')[2].partition("\n]\n")[0]
    layers = [re.findall(r"\w+", line) for line in contract.splitlines() if line.startswith('    "')]
    places = {name: place for place, names in enumerate(layers) for name in names}
    page = (ROOT / "docs" / "design.rst").read_text().partition("The layers\n")[2].partition("\nEach rule")[0]
    rows = [re.findall(r"``ws4py\.(\w+)``", row[:36]) for row in page.splitlines()]
    listed = [places[name] for names in rows for name in names]
    assert len(listed) > 15
    assert listed == sorted(listed)
