"""The files of examples/deploy, each with its program: nginx and haproxy in front of websockets, and a unit of systemd.

The proxies are real ones. What a test changes in their files is where they listen and find things, how long they wait,
and how many descriptors they want.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from tests.cli.commands import Serving
from tests.redis_server import RedisServer
from tests.serving import PATIENCE, PING, PONG, ROOT, Peer, certificates, eventually, free_port

FOLDER = ROOT / "examples" / "deploy"
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

APPLICATION = """
import json
import os

from ws4py.websocket import WebSocket

class Telling(WebSocket):
    def opened(self):
        names = ("REMOTE_ADDR", "HTTP_HOST", "HTTP_X_FORWARDED_PROTO")
        self.send(json.dumps([os.getpid(), *(self.environ.get(name) for name in names)]))

    def received_message(self, message):
        self.send(message.data)
"""


class Proxy:
    """A program in front of a server, with a file of the examples.

    :param server: its port.
    :param changes: of its file: what stands there, and what instead.
    """

    def __init__(self, program: str, directory: Path, server: int, changes: dict[str, str]) -> None:
        binary = shutil.which(program, path=SEARCH)
        if binary is None:
            pytest.skip(f"{program} is not installed")
        self.port = free_port()
        files = certificates()
        both = directory / "both.pem"
        both.write_text(Path(files.certificate).read_text() + Path(files.key).read_text())
        name = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[program]
        text = (FOLDER / name).read_text()
        for old, new in {
            "127.0.0.1:9000": f"127.0.0.1:{server}",
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "maxconn 20000": "maxconn 200",
            "bind :443 ssl": f"bind 127.0.0.1:{self.port} ssl",
            "/etc/ssl/example.org.pem": str(both),
            "/etc/ssl/example.org.key": str(both),
            "/etc/haproxy/example.org.pem": str(both),
            **changes,
        }.items():
            assert old in text or old not in changes, f"{old} in {name}"
            text = text.replace(old, new)
        configuration = directory / name
        if program == "nginx":
            text = (
                f"daemon off; pid {directory}/pid; error_log {directory}/errors; events {{}}\n"
                f"http {{\naccess_log off;\n{text}\n}}\n"
            )
            self.check = [binary, "-t", "-p", str(directory), "-c", str(configuration)]
            command = [binary, "-p", str(directory), "-c", str(configuration)]
        else:
            self.check = [binary, "-c", "-f", str(configuration)]
            command = [binary, "-db", "-f", str(configuration)]
        configuration.write_text(text)
        checked = subprocess.run(self.check, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert checked.returncode == 0, checked
        assert "warn" not in checked.stderr.lower(), checked
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def listens() -> bool:
            assert self._process.poll() is None, f"{program} has ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), PATIENCE):
                return True
            return False

        eventually(listens, f"{program} listens")

    def connect(self) -> Peer:
        """Return a connection from an address that is not the proxy's."""
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE, ("127.0.0.2", 0))
        return Peer(certificates().context.wrap_socket(sock, server_hostname="127.0.0.1"), "127.0.0.1")

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "application.py").write_text(APPLICATION)
    return tmp_path


@contextlib.contextmanager
def behind(program: str, directory: Path, *arguments: str, **changes: str) -> Iterator[tuple[Serving, Proxy]]:
    """Serve the application behind a proxy.

    :param changes: ``idle``: for how long the proxy has nothing pass until it cuts a websocket.
    """
    idle = {"nginx": "proxy_read_timeout 75s", "haproxy": "timeout tunnel       75s"}[program]
    altered = {idle: idle.replace("75s", changes["idle"])} if changes else {}
    options = ["--port", "0", "--trusted-proxy", "127.0.0.1", *arguments]
    with Serving(directory, "application:Telling", *options) as serving:
        proxy = Proxy(program, directory, serving.port, altered)
        try:
            yield serving, proxy
        finally:
            proxy.end()


BOTH = pytest.mark.parametrize("program", ["nginx", "haproxy"])


@BOTH
def test_a_websocket_by_way_of_a_proxy(program: str, directory: Path) -> None:
    """Its client is known by its own address, whatever it says itself; pages of the same host may connect."""
    with behind(program, directory) as (_, proxy), proxy.connect() as peer:
        answer = peer.upgrade(
            "/x",
            Origin="https://127.0.0.1",
            X_Forwarded_For="203.0.113.7",
            X_Forwarded_Proto="http",
        )
        assert answer.status == 101, answer
        assert str(peer.message()).endswith(', "127.0.0.2", "127.0.0.1", "https"]')
        for message in ("here", "x" * 100_000):
            peer.echo(message)
        peer.finish()
        with proxy.connect() as other:
            assert other.upgrade("/x", Origin="http://127.0.0.1").status == 403
        with proxy.connect() as other:
            assert other.get("/x").status == 426


@BOTH
def test_an_idle_websocket_survives_by_our_pings(program: str, directory: Path) -> None:
    limit = ("--limit", "ping_interval=0.4")
    with behind(program, directory, *limit, idle="1s") as (_, proxy), proxy.connect() as peer:
        assert peer.upgrade("/").status == 101
        peer.message()
        for _ in range(6):  # in over two seconds
            ping = peer.receive()
            assert ping.opcode == PING
            peer.send(ping.payload, PONG)
        peer.echo("still there")


@BOTH
def test_without_pings_the_proxy_cuts_it(program: str, directory: Path) -> None:
    limit = ("--limit", "ping_interval=None")
    with behind(program, directory, *limit, idle="1s") as (_, proxy), proxy.connect() as peer:
        assert peer.upgrade("/").status == 101
        peer.message()
        assert peer.read_to_the_end() == b""


@BOTH
def test_the_timeouts_are_longer_than_the_interval_of_pings(program: str) -> None:
    from ws4py.limits import Limits

    text = (FOLDER / {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[program]).read_text()
    (timeout,) = re.findall(r"(?:proxy_read_timeout|timeout tunnel) +(\d+)s", text)
    interval = Limits().ping_interval
    assert interval is not None
    assert int(timeout) >= 2 * interval


class Returning(threading.Thread):
    """A client that comes back whenever it has lost its websocket, and knows which processes it has had."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.processes: list[str] = []
        self.codes: list[int | None] = []
        self._port = port
        self._end = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._end.is_set():
            try:
                with connect(
                    f"wss://127.0.0.1:{self._port}/",
                    ssl=certificates().context,
                    ping_interval=None,
                    open_timeout=PATIENCE,
                    proxy=None,
                ) as client:
                    self.processes.append(str(client.recv(timeout=PATIENCE)).partition(",")[0])
                    while not self._end.is_set():
                        with contextlib.suppress(TimeoutError):
                            client.recv(timeout=0.05)
            except ConnectionClosed as closed:
                self.codes.append(closed.rcvd.code if closed.rcvd else None)
            except (InvalidHandshake, OSError, EOFError):
                self._end.wait(0.01)

    def end(self) -> None:
        self._end.set()
        self.join(PATIENCE)
        assert not self.is_alive()


@BOTH
def test_a_rolling_restart_behind_a_proxy(program: str, directory: Path) -> None:
    """Of three processes: each client loses its websocket in order, with 1001, and comes back to a new one."""
    with behind(program, directory, "--processes", "3") as (serving, proxy):
        clients = [Returning(proxy.port) for _ in range(12)]
        try:
            eventually(lambda: all(client.processes for client in clients), "all are there")
            before = {client.processes[0] for client in clients}
            serving.process.send_signal(signal.SIGHUP)
            eventually(lambda: not any(is_there(process) for process in before), "the old processes have ended")
            eventually(lambda: not any(client.processes[-1] in before for client in clients), "all are back")
        finally:
            for client in clients:
                client.end()
        codes = {code for client in clients for code in client.codes}
        assert codes == {1001}


def is_there(process: str) -> bool:
    return Path(f"/proc/{process.strip('[')}").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux'")
def test_the_unit(tmp_path: Path) -> None:
    """systemd reads it, and the command that it starts is one."""
    analyze = shutil.which("systemd-analyze", path=SEARCH)
    if analyze is None:
        pytest.skip("systemd is not installed")
    text = (FOLDER / "ws4py.service").read_text()
    command = shutil.which("ws4py", path=os.path.dirname(sys.executable)) or sys.executable
    unit = tmp_path / "ws4py.service"
    unit.write_text(text.replace("/srv/application/venv/bin/ws4py", command).replace("/srv/application", str(tmp_path)))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


GUNICORN = """
from flask import Flask
from ws4py import WebSocketManager
from ws4py.frameworks.flask import WebSockets
from ws4py.websocket import WebSocket
import os

manager = WebSocketManager(broker=os.environ["REDIS"])
manager.daemon = True
manager.start()
app = Flask(__name__)
websockets = WebSockets(app, manager=manager)

@websockets.route("/news")
class News(WebSocket):
    def opened(self):
        self.subscribe("news")
        if self.wait_subscribed(30):
            self.send(str(os.getpid()))

@app.post("/news")
def publish():
    manager.publish("news", str(os.getpid()))
    return ""
"""


def test_workers_of_gunicorn_share_topics(tmp_path: Path, shared_redis: RedisServer) -> None:
    """What one worker publishes comes to the websockets of the other one."""
    pytest.importorskip("gunicorn")
    pytest.importorskip("flask")
    (tmp_path / "news.py").write_text(GUNICORN)
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "--workers",
            "2",
            "--threads",
            "4",
            "--bind",
            f"127.0.0.1:{port}",
            "news:app",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "REDIS": shared_redis.url},
        stderr=subprocess.DEVNULL,
    )
    try:
        with contextlib.ExitStack() as stack:
            peers: dict[str, Peer] = {}

            def of_both_workers() -> bool:
                try:
                    peer = Peer(socket.create_connection(("127.0.0.1", port), PATIENCE), "127.0.0.1")
                except ConnectionRefusedError:
                    return False
                stack.enter_context(peer)
                assert peer.upgrade("/news").status == 101
                peers[str(peer.message())] = peer
                return len(peers) == 2

            eventually(of_both_workers, "both workers have a websocket")
            request = f"POST /news HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n\r\n".encode()
            with Peer(socket.create_connection(("127.0.0.1", port), PATIENCE), "127.0.0.1") as publisher:
                publisher.sock.sendall(request)
                assert publisher.read_response().status == 200
            (first, second) = [peer.message() for peer in peers.values()]
            assert first == second
            assert first in peers
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
