"""``ws4py publish``, and ``ws4py serve`` with a broker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from websockets.sync.client import ClientConnection, connect

from tests.cli.commands import Serving, environment, refused
from tests.redis_server import RedisServer
from tests.serving import PATIENCE, free_port

APPLICATION = """
from ws4py.websocket import WebSocket

class OnTopic(WebSocket):
    def opened(self):
        self.subscribe("news")
        self.send("subscribed" if self.wait_subscribed(30) else "too late")
"""


def publish(*arguments: str, given: bytes = b"", status: int = 0, **changes: str) -> str:
    """Run the command; return what it has written to its error output."""
    done = subprocess.run(
        [sys.executable, "-m", "ws4py", "publish", *arguments],
        input=given,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        env=environment(**changes),
    )
    assert (done.returncode, done.stdout) == (status, b""), done
    return done.stderr.decode()


def opened(serving: Serving) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{serving.port}/", proxy=None)


def test_servers_with_one_broker_get_what_is_published(shared_redis: RedisServer, tmp_path: Path) -> None:
    url = shared_redis.url
    (tmp_path / "application.py").write_text(APPLICATION)
    first = Serving(tmp_path, "application:OnTopic", "--port", "0", "--broker", url)
    second = Serving(tmp_path, "application:OnTopic", "--port", "0", WS4PY_BROKER=url)
    with first, second, opened(first) as one, opened(second) as two:

        def receive() -> str | bytes:
            mine, others = one.recv(timeout=PATIENCE), two.recv(timeout=PATIENCE)
            assert mine == others
            return mine

        assert receive() == "subscribed"
        publish("news", "Tea is served", "--broker", url)
        assert receive() == "Tea is served"
        publish("news", given="one\ntwo é\n".encode(), WS4PY_BROKER=url)
        assert (receive(), receive()) == ("one", "two é")
        publish("news", "--binary", given=b"\xff\n", WS4PY_BROKER=url)
        assert receive() == b"\xff\n"


def test_what_can_not_be_published() -> None:
    closed = f"redis://127.0.0.1:{free_port()}/0"
    assert "not taken" in publish("news", "x", "--broker", closed, "--timeout", "0.1", status=1)
    assert "begins with" in publish("news", "x", "--broker", "http://localhost", status=1)
    assert "Nobody is on" in publish("news", "x", WS4PY_BROKER="memory://", status=1)
    assert "name of a topic" in publish("", "x", "--broker", closed, status=1)
    assert "from the input" in publish("news", "x", "--binary", status=1)


def test_a_server_says_what_is_wrong_with_its_broker(tmp_path: Path) -> None:
    echo = "ws4py.websocket:EchoWebSocket"
    assert "begins with" in refused(echo, "--broker", "nats://localhost", directory=tmp_path)
