"""``ws4py serve``: a class of websockets, in a process of its own."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect, unix_connect
from websockets.typing import Origin, Subprotocol

from tests.cli.commands import Serving, refused
from tests.serving import PATIENCE, Peer, certificates, close_frame, eventually
from ws4py import cli

APPLICATION = """
import signal
import threading

from ws4py.websocket import EchoWebSocket, WebSocket

class Greeting(WebSocket):
    def opened(self):
        self.send("hello")

    def closed(self, code, reason=None):
        print("closed with", code, flush=True)

class Killing(WebSocket):
    def received_message(self, message):
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

class Rooms:
    paths = {"/greeting": Greeting, "/echo": EchoWebSocket}

number = 3
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "application.py").write_text(APPLICATION)
    (tmp_path / "needy.py").write_text("import there_is_no_such_module")
    return tmp_path


@pytest.fixture
def serving(directory: Path) -> Iterator[Serving]:
    with Serving(directory, "application:Greeting", "--port", "0", "--stats", "--access-log") as serving:
        yield serving


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(serving: Serving, number: int) -> None:
    assert serving.line == f"application:Greeting is at ws://127.0.0.1:{serving.port}/\n"
    with Peer(socket.create_connection(("127.0.0.1", serving.port), PATIENCE), "127.0.0.1") as peer:
        assert peer.upgrade("/x").status == 101
        assert peer.message() == "hello"
        serving.process.send_signal(number)
        assert peer.receive().code == 1001
        peer.sock.sendall(close_frame(1001))
        output, errors = serving.process.communicate(timeout=PATIENCE)
    assert (serving.process.returncode, output) == (0, "closed with 1001\n")
    assert re.fullmatch(r"\S+ \S+ WebSocketManager has started: .*\n\S+ \S+ .*/x.* 1001 .*\n", errors), errors


def test_a_signal_that_another_thread_takes(directory: Path) -> None:
    """The system may give it to any thread, and Python's handler is for the main thread to run."""
    with (
        Serving(directory, "application:Killing", "--port", "0") as serving,
        Peer(socket.create_connection(("127.0.0.1", serving.port), PATIENCE), "127.0.0.1") as peer,
    ):
        assert peer.upgrade("/").status == 101
        peer.send("now")
        assert peer.receive().code == 1001
        peer.sock.sendall(close_frame(1001))
        assert serving.process.wait(PATIENCE) == 0


def test_a_second_signal_does_not_wait(serving: Serving) -> None:
    with Peer(socket.create_connection(("127.0.0.1", serving.port), PATIENCE), "127.0.0.1") as peer:
        assert peer.upgrade("/").status == 101
        assert peer.message() == "hello"
        serving.process.send_signal(signal.SIGTERM)
        assert peer.receive().code == 1001
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(PATIENCE) == -signal.SIGTERM


def test_statistics_are_for_this_machine(serving: Serving) -> None:
    with connect(f"ws://127.0.0.1:{serving.port}/"):
        eventually(lambda: json.loads(serving.ask("/stats/stats.json"))["connections"]["open"] == 1, "it is counted")
    assert b"<html" in serving.ask("/stats/", Host="localhost:80")
    with pytest.raises(urllib.error.HTTPError, match="403") as caught:
        serving.ask("/stats/stats.json", Host="evil.example")
    caught.value.close()


def test_statistics_with_a_login(directory: Path) -> None:
    arguments = ["application:Greeting", "--port", "0", "--host", "0.0.0.0", "--stats"]
    assert "WS4PY_STATS_LOGIN" in refused(*arguments, directory=directory)
    assert "WS4PY_STATS_LOGIN" in refused(*arguments, directory=directory, WS4PY_STATS_LOGIN="me:")
    assert "WS4PY_STATS_LOGIN" in refused(*arguments, "--unix", "s", "--host", "::1", directory=directory)
    with Serving(directory, *arguments, WS4PY_STATS_LOGIN="me:secret") as serving:
        with pytest.raises(urllib.error.HTTPError, match="401") as caught:
            serving.ask("/stats/stats.json")
        caught.value.close()
        login = base64.b64encode(b"me:secret").decode()
        assert json.loads(serving.ask("/stats/stats.json", Authorization=f"Basic {login}", Host="a.example"))
        assert serving.end() == ("", "")


def test_paths_and_options(directory: Path) -> None:
    options = ["--subprotocol", "a", "--subprotocol", "b", "--compression", "--origin", "http://example.org"]
    options += ["--workers", "3", "--limit", "max_message_size=10", "--limit", "ping_interval=None"]
    with Serving(directory, "application:Rooms.paths", "--port", "0", *options) as serving:
        url = f"ws://127.0.0.1:{serving.port}"
        mine, page = Subprotocol("b"), Origin("http://example.org")
        with connect(f"{url}/echo", subprotocols=[mine], origin=page) as client:
            assert client.subprotocol == "b"
            assert client.response is not None
            assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
            client.send("here")
            assert client.recv(timeout=PATIENCE) == "here"
            client.send("x" * 11)
            with pytest.raises(Exception, match="1009"):
                client.recv(timeout=PATIENCE)
        with connect(f"{url}/greeting") as client:
            assert client.recv(timeout=PATIENCE) == "hello"
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            serving.ask("/stats/stats.json")
        caught.value.close()


def test_tls(directory: Path) -> None:
    files = certificates()
    arguments = ["--certificate", files.certificate, "--key", files.key]
    with Serving(directory, "application:Greeting", "--port", "0", *arguments) as serving:
        assert serving.line.endswith(f"wss://127.0.0.1:{serving.port}/\n")
        sock = socket.create_connection(("127.0.0.1", serving.port), PATIENCE)
        with Peer(files.context.wrap_socket(sock, server_hostname="127.0.0.1"), "127.0.0.1") as peer:
            assert peer.upgrade("/").status == 101
            assert peer.message() == "hello"


def test_a_unix_socket(directory: Path) -> None:
    with Serving(directory, "application:Greeting", "--unix", "socket") as serving:
        assert serving.line == "application:Greeting is at ws+unix://socket\n"
        with unix_connect(str(directory / "socket"), "ws://localhost/") as client:
            assert client.recv(timeout=PATIENCE) == "hello"
        serving.end()
        assert not (directory / "socket").exists()


def test_several_processes_on_a_port(directory: Path) -> None:
    arguments = ["application:Greeting", "--reuse-port", "--port"]
    with Serving(directory, *arguments, "0") as first, Serving(directory, *arguments, str(first.port)) as second:
        assert second.port == first.port
        first.end()
        with connect(f"ws://127.0.0.1:{second.port}/") as client:
            assert client.recv(timeout=PATIENCE) == "hello"


def test_what_goes_wrong(directory: Path) -> None:
    def fails(*arguments: str) -> str:
        return refused(*arguments, directory=directory)

    assert "MODULE:NAME" in fails("application")
    assert "no module nowhere" in fails("nowhere:Class")
    assert "name Missing" in fails("application:Missing")
    assert "name number" in fails("application:number")
    assert "max_conections" in fails("application:Greeting", "--limit", "max_conections=1")
    assert "max_connections must be" in fails("application:Greeting", "--limit", "max_connections=many")
    assert "No such file" in fails("application:Greeting", "--certificate", "nowhere.pem")
    assert "certificate" in fails("application:Greeting", "--key", "nowhere.pem")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use" in fails("application:Greeting", "--port", str(taken.getsockname()[1]))


def test_a_module_that_can_not_be_imported(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the module that has a fault, so there is its traceback."""
    monkeypatch.chdir(directory)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module"):
        cli.main(["serve", "needy:Class"])


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["serve"], ["serve", "a:b", "--limit", "wrong"], ["serve", "a:b", "--port", "x"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
    assert "NAME=VALUE" in capsys.readouterr().err
