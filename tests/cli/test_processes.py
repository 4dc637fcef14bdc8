"""``ws4py serve --processes``: several processes that serve one address."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.sync.client import ClientConnection, connect, unix_connect

from tests.cli.commands import Serving, refused
from tests.redis_server import RedisServer
from tests.serving import PATIENCE, eventually
from ws4py.broker import connect as connect_broker

APPLICATION = """
import os
import pathlib

from ws4py.websocket import WebSocket

if pathlib.Path("broken").exists():
    raise SystemExit(3)

class Telling(WebSocket):
    def opened(self):
        self.subscribe("news")
        if not self.wait_subscribed(30):
            raise RuntimeError("there is no broker")
        self.send(str(os.getpid()))

    def received_message(self, message):
        self.send(message.data)

    def closed(self, code, reason=None):
        print("closed with", code, flush=True)
"""

NOTE = "ws4py: without --broker, a topic and a broadcast stay within one process\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "application.py").write_text(APPLICATION)
    return tmp_path


@pytest.fixture
def serving(directory: Path) -> Iterator[Serving]:
    with Serving(directory, "application:Telling", "--port", "0", "--processes", "2") as serving:
        yield serving


class Clients:
    """Clients of several processes, until the end of a test."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def open(self, port: int) -> tuple[int, ClientConnection]:
        """Return the process that serves a new client, and the client."""
        url = f"ws://127.0.0.1:{port}/"
        client = self._stack.enter_context(connect(url, open_timeout=PATIENCE, ping_interval=None, proxy=None))
        return int(client.recv(timeout=PATIENCE)), client

    def of_each(self, port: int, count: int = 2) -> dict[int, ClientConnection]:
        """Return a client of each of so many processes."""
        found: dict[int, ClientConnection] = {}

        def one_more() -> bool:
            process, client = self.open(port)
            if found.setdefault(process, client) is not client:
                client.close()
            return len(found) == count

        eventually(one_more, f"there are {count} processes")
        return found


@pytest.fixture
def clients() -> Iterator[Clients]:
    with contextlib.ExitStack() as stack:
        yield Clients(stack)


def close_code(client: ClientConnection) -> int | None:
    """Wait until a client is closed, and return with which code."""
    with contextlib.suppress(ConnectionClosed):
        client.recv(timeout=PATIENCE)
    return client.close_code


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def goes(process: int) -> None:
    eventually(lambda: not is_there(process), f"process {process} has ended")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_in_order(clients: Clients, serving: Serving, number: int) -> None:
    assert serving.line == f"application:Telling is at ws://127.0.0.1:{serving.port}/\n"
    opened = clients.of_each(serving.port)
    assert serving.process.pid not in opened
    serving.process.send_signal(number)
    assert [close_code(client) for client in opened.values()] == [1001] * 2
    output, errors = serving.process.communicate(timeout=PATIENCE)
    assert serving.process.returncode == 0
    assert output.count("closed with 1001\n") == 2
    assert errors == NOTE
    assert not any(map(is_there, opened))


def test_a_terminal_s_interrupt_comes_to_them_once(clients: Clients, serving: Serving) -> None:
    """Which it sends to all processes of a group: a second one would not wait."""
    (first,) = clients.of_each(serving.port, 1)
    assert os.getpgid(first) != os.getpgid(serving.process.pid)


def test_a_second_signal_does_not_wait(serving: Serving) -> None:
    with socket.create_connection(("127.0.0.1", serving.port), PATIENCE) as sock:
        sock.sendall(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        answer = b""
        while not re.search(rb"\x81.\d+", answer):
            answer += sock.recv(4096)
        serving.process.send_signal(signal.SIGTERM)
        assert b"\x03\xe9" in sock.recv(4096)  # 1001, which is not answered
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(PATIENCE) == 1


def test_a_process_that_dies_is_started_again(clients: Clients, serving: Serving) -> None:
    opened = clients.of_each(serving.port)
    victim = next(iter(opened))
    os.kill(victim, signal.SIGKILL)
    assert close_code(opened.pop(victim)) == 1006
    later = clients.of_each(serving.port)
    assert set(later) - {victim} == set(later) > set(opened)
    for process, client in opened.items():  # nobody else has noticed
        client.send("still there")
        assert client.recv(timeout=PATIENCE) == "still there", process
    _, errors = serving.end()
    line = r"ws4py: process [12] has been ended by SIGKILL, and is started again in 0.1 s\n"
    assert re.fullmatch(NOTE + line, errors), errors


def test_the_pause_grows_while_a_process_can_not_start(clients: Clients, serving: Serving, directory: Path) -> None:
    assert serving.process.stderr is not None
    assert serving.process.stderr.readline() == NOTE
    opened = clients.of_each(serving.port)
    (directory / "broken").touch()
    os.kill(next(iter(opened)), signal.SIGKILL)
    lines = [serving.process.stderr.readline() for _ in range(3)]
    assert [re.findall(r"with 3|SIGKILL|in [\d.]+ s", line) for line in lines] == [
        ["SIGKILL", "in 0.1 s"],
        ["with 3", "in 0.2 s"],
        ["with 3", "in 0.4 s"],
    ]
    (directory / "broken").unlink()
    assert len(clients.of_each(serving.port)) == 2


def test_a_rolling_restart(clients: Clients, serving: Serving) -> None:
    """At each moment somebody accepts, and at most one of them is on its way out."""
    before = clients.of_each(serving.port)
    serving.process.send_signal(signal.SIGHUP)
    codes = []
    for client in before.values():
        codes.append(close_code(client))
        clients.open(serving.port)[1].close()
    assert codes == [1001] * 2
    for process in before:
        goes(process)
    after = clients.of_each(serving.port)
    assert not set(before) & set(after)
    output, errors = serving.end()
    assert (serving.process.returncode, errors) == (0, NOTE)
    assert output.count("closed with 1001\n") == 4


def test_clients_that_come_all_the_time_are_served_over_a_rolling_restart(clients: Clients, serving: Serving) -> None:
    before = clients.of_each(serving.port)
    serving.process.send_signal(signal.SIGHUP)
    gone: set[int] = set()

    def one_more() -> bool:
        with contextlib.suppress(InvalidMessage, ConnectionError):  # it ended before its handshake did
            clients.open(serving.port)[1].close()
        gone.update(process for process in before if not is_there(process))
        return gone == set(before)

    for client in before.values():
        client.close()
    eventually(one_more, "all are new")
    assert len(clients.of_each(serving.port)) == 2


def test_a_rolling_restart_into_a_fault_changes_nothing(clients: Clients, serving: Serving, directory: Path) -> None:
    assert serving.process.stderr is not None
    assert serving.process.stderr.readline() == NOTE
    before = clients.of_each(serving.port)
    (directory / "broken").touch()
    serving.process.send_signal(signal.SIGHUP)
    line = serving.process.stderr.readline()
    assert line == "ws4py: a new process 1 has ended with 3 before it served: the others stay\n"
    for client in before.values():
        client.send("still there")
        assert client.recv(timeout=PATIENCE) == "still there"
    assert set(clients.of_each(serving.port)) == set(before)


def test_they_end_with_the_one_that_has_started_them(clients: Clients, serving: Serving) -> None:
    opened = clients.of_each(serving.port)
    serving.process.kill()
    assert [close_code(client) for client in opened.values()] == [1001] * 2
    for process in opened:
        goes(process)


def test_a_unix_socket(directory: Path) -> None:
    with Serving(directory, "application:Telling", "--unix", "socket", "--processes", "2") as serving:
        assert serving.line == "application:Telling is at ws+unix://socket\n"
        with unix_connect(str(directory / "socket"), "ws://localhost/") as client:
            before = int(client.recv(timeout=PATIENCE))
            serving.process.send_signal(signal.SIGHUP)
            assert close_code(client) == 1001
        goes(before)
        with unix_connect(str(directory / "socket"), "ws://localhost/") as client:
            assert int(client.recv(timeout=PATIENCE)) != before
        serving.end()
        assert not (directory / "socket").exists()


def test_topics_over_a_broker(clients: Clients, directory: Path, shared_redis: RedisServer) -> None:
    arguments = ["--port", "0", "--processes", "2", "--broker", shared_redis.url]
    with Serving(directory, "application:Telling", *arguments) as serving:
        opened = clients.of_each(serving.port).values()
        with connect_broker(shared_redis.url) as publisher:
            publisher.publish("news", "for all")
        assert [client.recv(timeout=PATIENCE) for client in opened] == ["for all", "for all"]
        assert serving.end()[1] == ""


def metric(text: str, name: str) -> dict[str, float]:
    """Return the values of a metric, by the processes."""
    return {
        process: float(value) for process, value in re.findall(rf'^{name}{{process="(\d)"}} (\S+)$', text, re.MULTILINE)
    }


def test_the_statistics_of_all(clients: Clients, directory: Path) -> None:
    """Whichever process is asked."""
    with Serving(directory, "application:Telling", "--port", "0", "--processes", "2", "--stats") as serving:
        opened = clients.of_each(serving.port)
        for _ in range(4):
            clients.open(serving.port)
        for client in opened.values():
            client.send("hello")
            client.recv(timeout=PATIENCE)
        for _ in range(4):
            # More may be counted: clients that were closed, and the statistics' own.
            figures = json.loads(serving.ask("/stats/stats.json"))
            assert figures["connections"]["opened"] >= 6
            assert figures["received"]["messages"]["text"] == 2
            assert figures["state"] == "running"
            rows = json.loads(serving.ask("/stats/connections.json?top=2&by=messages"))
            assert [row["messages_received"] for row in rows] == [1, 1]
            assert sorted(row["process"] for row in rows) == ["1", "2"]
            text = serving.ask("/stats/metrics").decode()
            assert metric(text, "ws4py_handled_messages_total") == {"1": 1, "2": 1}
            assert sum(metric(text, "ws4py_connections_open").values()) >= 6
            assert re.search(r'^ws4py_handler_seconds_count{process="1"} [1-9]', text, re.MULTILINE)
        with connect(f"ws://127.0.0.1:{serving.port}/stats/feed", proxy=None) as feed:
            shown = json.loads(feed.recv(timeout=PATIENCE))
            assert shown["stats"]["received"]["messages"]["text"] == 2
            assert {row["process"] for row in shown["busiest"]} == {"1", "2"}
        assert serving.end()[1] == NOTE


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="whether a process stands still is looked for in /proc"
)
def test_a_process_that_stands_still_is_missing_from_the_statistics(clients: Clients, directory: Path) -> None:
    with Serving(directory, "application:Telling", "--port", "0", "--processes", "2", "--stats") as serving:

        def there() -> set[str]:
            try:
                return set(metric(serving.ask("/stats/metrics").decode(), "ws4py_uptime_seconds"))
            except (OSError, HTTPException):  # who was asked has ended
                return set()

        still, other = clients.of_each(serving.port)
        os.kill(still, signal.SIGSTOP)
        try:
            eventually(lambda: Path(f"/proc/{still}/stat").read_text().rpartition(") ")[2][0] == "T", "it stands still")
            assert len(there()) == 1
        finally:
            os.kill(still, signal.SIGCONT)
        eventually(lambda: there() == {"1", "2"}, "it is there again")
        os.kill(other, signal.SIGKILL)
        goes(other)
        eventually(lambda: there() == {"1", "2"}, "the new one is there")


def test_what_goes_wrong(directory: Path, shared_redis: RedisServer) -> None:
    def fails(*arguments: str) -> str:
        return refused(*arguments, "--processes", "3", directory=directory)

    assert "at least 1" in refused("application:Telling", "--processes", "0", directory=directory)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use" in fails("application:Telling", "--port", str(taken.getsockname()[1]))
    assert "WS4PY_STATS_LOGIN" in fails("application:Telling", "--stats", "--host", "0.0.0.0")
    assert "no module nowhere" in fails("nowhere:Class", "--port", "0", "--broker", shared_redis.url)


def test_a_module_that_can_not_be_imported_ends_it(directory: Path) -> None:
    (directory / "broken").touch()
    with Serving(directory, "application:Telling", "--port", "0", "--processes", "3") as serving:
        assert serving.process.communicate(timeout=PATIENCE) == ("", NOTE)
        assert (serving.process.returncode, serving.line) == (3, "")


def test_they_are_those_processes_alone(clients: Clients, directory: Path) -> None:
    """A process that one of them starts is not one of them, and has not their sockets."""
    (directory / "parent.py").write_text(
        APPLICATION
        + "    def received_message(self, message):\n"
        + "        import subprocess, sys\n"
        + '        text = \'import os; print(sorted(os.listdir("/proc/self/fd")), "WS4PY_PROCESS" in os.environ)\'\n'
        + "        self.send(subprocess.check_output([sys.executable, '-c', text], text=True))\n"
    )
    if not Path("/proc/self/fd").exists():
        pytest.skip("descriptors are looked for in /proc")
    with Serving(directory, "parent:Telling", "--port", "0", "--processes", "2") as serving:
        _, client = clients.open(serving.port)
        client.send("")
        assert client.recv(timeout=PATIENCE, decode=True) == "['0', '1', '2', '3'] False\n"
