"""Brokers by their URLs, and publishing without a server."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.helpers import PATIENCE, EchoRecorder, Peer, Stage, quiet, wait_for
from tests.redis_server import RedisServer
from tests.serving import ROOT, free_port
from ws4py.broker import MemoryBroker, Publisher, connect, make_broker
from ws4py.exc import BrokerError
from ws4py.messaging import BinaryMessage, PingControlMessage


@pytest.fixture
def publisher(shared_redis: RedisServer) -> Iterator[Publisher]:
    with connect(shared_redis.url) as publisher:
        yield publisher


def on_topic(stage: Stage, url: str) -> Peer:
    """Return the peer of a websocket that is on a topic, and whose subscription holds."""
    manager = stage.manager(broker=url)
    websocket, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)
    websocket.subscribe("news")
    assert manager.broker.wait_subscribed(PATIENCE)
    return peer


def test_it_publishes_to_all_managers(stage: Stage, shared_redis: RedisServer, publisher: Publisher) -> None:
    peers = [on_topic(stage, shared_redis.url) for _ in range(2)]
    publisher.publish("news", "é")
    publisher.publish("news", b"\xff", binary=True)
    publisher.publish("news", BinaryMessage(b"\xfe"), wait=False)
    publisher.flush()
    for peer in peers:
        assert [peer.receive_message() for _ in range(3)] == ["é".encode(), b"\xff", b"\xfe"]


def test_in_one_line(stage: Stage, shared_redis: RedisServer) -> None:
    peer = on_topic(stage, shared_redis.url)
    connect(shared_redis.url).publish("news", "and forgotten")
    assert peer.receive_text() == "and forgotten"


def test_what_does_not_wait_is_sent_at_the_end_of_the_process(stage: Stage, shared_redis: RedisServer) -> None:
    peer = on_topic(stage, shared_redis.url)
    program = (
        "import sys\nfrom ws4py.broker import connect\npublisher = connect(sys.argv[1])\n"
        "for number in range(1000):\n    publisher.publish('news', str(number), wait=False)\n"
    )
    command = [sys.executable, "-W", "error", "-c", program, shared_redis.url]
    subprocess.run(command, check=True, cwd=ROOT, timeout=PATIENCE)
    assert [peer.receive_text() for _ in range(1000)] == [str(number) for number in range(1000)]


def test_it_says_when_redis_does_not_take_it() -> None:
    with quiet(), connect(f"redis://127.0.0.1:{free_port()}", timeout=0.1) as publisher:
        with pytest.raises(BrokerError, match="1 wait"):
            publisher.publish("news", "x")
        publisher.publish("news", "y", wait=False)
        with pytest.raises(BrokerError, match="2 wait"):
            publisher.flush()


def test_it_says_when_redis_refuses(own_redis: RedisServer) -> None:
    with contextlib.closing(own_redis.client()) as client:
        client.execute_command("ACL", "SETUSER", "poor", "on", "nopass", "resetchannels", "+@all")
    url = own_redis.url.replace("//", "//poor:@")
    with quiet(), connect(url) as publisher, pytest.raises(BrokerError, match="has not taken"):
        publisher.publish("news", "x")


def test_a_closed_one_publishes_nothing(shared_redis: RedisServer) -> None:
    publisher = connect(shared_redis.url)
    publisher.close()
    with pytest.raises(BrokerError, match="closed"):
        publisher.publish("news", "x")


@pytest.mark.parametrize("topic", ["", "x" * 256, None])
def test_names_that_can_not_be(publisher: Publisher, topic: str) -> None:
    with pytest.raises((TypeError, ValueError), match="name of a topic"):
        publisher.publish(topic, "x")


def test_messages_and_keys_that_can_not_be(publisher: Publisher) -> None:
    for message, key in ((PingControlMessage("?"), None), ("text", ""), ("text", "x" * 129)):
        with pytest.raises(ValueError, match=r"can't be published|has 1 to 128 characters"):
            publisher.publish("news", message, key=key)


FAREWELL = """
import socket, sys
from ws4py.manager import WebSocketManager
from ws4py.websocket import WebSocket

class Talker(WebSocket):
    def closed(self, code, reason=None):
        manager.publish("news", "farewell")

manager = WebSocketManager(broker=sys.argv[1], drain_timeout=0.2)
manager.daemon = True
manager.start()
ours, theirs = socket.socketpair()
manager.add(Talker(ours))
"""


def test_what_is_published_at_the_end_of_the_process_is_sent(stage: Stage, shared_redis: RedisServer) -> None:
    """The managers are stopped before their brokers are closed."""
    peer = on_topic(stage, shared_redis.url)
    subprocess.run([sys.executable, "-c", FAREWELL, shared_redis.url], cwd=ROOT, check=True, timeout=PATIENCE)
    assert peer.receive_text() == "farewell"


def test_a_url_of_a_broker_in_memory() -> None:
    assert isinstance(make_broker("memory://"), MemoryBroker)
    assert make_broker("memory://") is not make_broker("memory://")
    with pytest.raises(ValueError, match="Nobody is on"):
        connect("memory://")


@pytest.mark.parametrize("url", ["", "redis", "http://localhost", "memory://x", "redis://localhost?colour=blue"])
def test_urls_that_can_not_be(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        make_broker(url)


def test_nothing_of_a_url_s_password_is_told(tmp_path: object) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        make_broker("rredis://user:secret@localhost/0")
    assert "secret" not in str(caught.value)


def test_the_core_needs_no_redis_and_says_what_is_missing() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from ws4py.broker import make_broker\nfrom ws4py.exc import BrokerError\nimport ws4py.manager\n"
        "try:\n    make_broker('redis://user:secret@localhost/0')\nexcept BrokerError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, check=True, cwd=ROOT, timeout=PATIENCE, capture_output=True, text=True)
    assert done.stdout == "redis:// needs redis: pip install 'ws4py[redis]'\n"
