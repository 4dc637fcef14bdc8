"""WebSockets under gevent: what is special about it. What all servers do is in test_adapters.py."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from websockets.sync.client import connect

from tests.hosting import Hosted
from tests.serving import BINARY, CLOSE, PATIENCE, PING, PONG, ROOT, Peer, close_frame, eventually, frame

gevent = pytest.importorskip("gevent")

from gevent import socket  # noqa: E402
from gevent.event import Event  # noqa: E402

from ws4py.exc import ConnectionClosed, ManagerError, SlowConsumer  # noqa: E402
from ws4py.limits import Limits  # noqa: E402
from ws4py.server.geventmanager import GreenletManager  # noqa: E402
from ws4py.server.geventserver import GEventWebSocketPool, WebSocketServer  # noqa: E402
from ws4py.websocket import EchoWebSocket, WebSocket  # noqa: E402


def test_the_example() -> None:
    program = [str(ROOT / "examples" / "gevent_echo.py"), "PORT"]
    with Hosted("", program, status=None) as server, connect(server.url("/any/path")) as client:
        client.send("hello")
        assert client.recv(timeout=PATIENCE) == "hello"


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[False, True], ids=["unpatched", "patched"])
def server(request: pytest.FixtureRequest) -> Iterator[Hosted]:
    with Hosted("gevent", patch=request.param, spawn=2) as server:
        yield server


def test_fallback(server: Hosted) -> None:
    response = server.get("/")
    assert (response.status, response.body) == (200, b"fallback")


def test_subprotocol(server: Hosted) -> None:
    with connect(server.url("/"), subprotocols=["news", "chat"]) as client:  # type: ignore[list-item]
        assert client.subprotocol == "news"


def test_a_message_in_opened(server: Hosted) -> None:
    with server.open("/greet") as peer:
        assert peer.message() == "hello"
        peer.finish()


def test_websockets_take_no_place_of_http(server: Hosted) -> None:
    """``spawn=2`` is for requests."""
    peers = [server.open("/") for _ in range(5)]
    assert server.get("/").status == 200
    for peer in peers:
        peer.echo("here")
        peer.finish()


def test_broadcast(server: Hosted) -> None:
    with server.open("/") as one, server.open("/") as two:
        two.echo("here")
        one.send("broadcast news")
        assert one.message() == two.message() == "news"
        one.finish()
        two.finish()


def test_a_blocked_handler_delays_nobody(server: Hosted) -> None:
    with server.open("/") as blocked, server.open("/") as other:
        blocked.send("sleep 0.5")
        blocked.send(b"1", PING)
        assert blocked.receive().opcode == PONG, "not even its own control frames"
        assert other.echo("quick") < 0.4
        assert blocked.message() == "slept"
        blocked.finish()
        other.finish()


def test_fragments(server: Hosted) -> None:
    with server.open("/") as peer:
        peer.send("parts a b c")
        frames = [peer.receive() for _ in range(3)]
        assert [(item.fin, item.opcode, item.payload) for item in frames] == [
            (False, 1, b"a"),
            (False, 0, b"b"),
            (True, 0, b"c"),
        ]
        peer.finish()


def test_a_native_thread_may_send(server: Hosted) -> None:
    with server.open("/") as peer:
        peer.send("thread")
        assert peer.message() == "from a thread"
        peer.finish()


def test_no_descriptor_is_left(server: Hosted) -> None:
    process = psutil.Process(server.process.pid)
    server.open("/").finish()
    before = process.num_fds()
    for number in range(60):
        peer = server.open("/")
        peer.finish() if number % 2 else peer.reset()
    eventually(lambda: process.num_fds() <= before, "the descriptors are given back")


def test_garbage_in_place_of_a_request(server: Hosted) -> None:
    with server.connect() as peer:
        peer.sock.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert peer.read_to_the_end().startswith(b"HTTP/1.1 400")


# --- the handler of old -----------------------------------------------------------------------------------------------


def test_a_function_as_the_handler() -> None:
    with Hosted("gevent-function", quiet=False) as server:
        with server.open("/there", frame("first") + frame("second")) as peer:
            assert [peer.message(), peer.message()] == ["first", "second"]
            peer.echo(b"binary")
            peer.finish()
        server.wait_for("handler", "/there")
        server.wait_for("handled")
        with server.open("/") as peer:
            peer.send("leave")
            assert peer.receive().code == 1000
        with server.open("/") as peer:
            peer.send("raise")
            assert peer.receive().code == 1011
        server.wait_for_line("as it was told")
        with server.connect() as peer:
            assert peer.get("/").status == 426


# --- limits -----------------------------------------------------------------------------------------------------------


def limited(**limits: Any) -> Hosted:
    """Return a server with limits."""
    return Hosted("gevent", limits=limits, quiet=False)


def test_admission() -> None:
    with limited(max_connections=2, max_connections_per_ip=1) as server, server.open("/") as first:
        first.echo("here")
        with server.connect() as peer:
            response = peer.upgrade("/")
            assert (response.status, response.get("retry-after")) == (429, "10")
        with server.connect() as peer:  # a refusal is no end of the connection
            assert peer.upgrade("/").status == 429
            assert peer.get("/").status == 200
        first.finish()
        eventually(lambda: can_open(server), "there is room again")


def can_open(server: Hosted) -> bool:
    with server.connect() as peer:
        return peer.upgrade("/").status == 101


def test_max_message_size() -> None:
    with limited(max_message_size=1000) as server, server.open("/") as peer:
        peer.echo(b"x" * 1000)
        peer.send(b"x" * 1001)
        assert peer.receive().code == 1009


def test_keepalive() -> None:
    with limited(ping_interval=0.1, ping_timeout=0.2) as server, server.open("/") as lively:
        for _ in range(3):
            ping = lively.receive()
            assert ping.opcode == PING
            lively.send(ping.payload, PONG)
        with server.open("/") as dead:
            assert dead.receive().opcode == PING
            assert dead.receive().code == 1011
            assert dead.read_to_the_end() == b""
        server.wait_for("closed", 1006)


def test_a_slow_consumer() -> None:
    """It costs nobody else anything, and is given up."""
    with limited(send_timeout=0.5, max_outbox_size=65536) as server, server.open("/") as slow, server.open("/") as fast:
        slow.send("flood")
        server.wait_for("flooding")
        for _ in range(20):
            assert fast.echo("quick") < 0.4
        server.wait_for("flooded", "SlowConsumer")
        fast.finish()
        while (received := slow.receive()).opcode != CLOSE:
            assert received.opcode == BINARY
        assert received.code == 1013


@pytest.mark.parametrize("policy", ["close", "drop", "latest"])
def test_broadcasts_past_the_limit(policy: str) -> None:
    with limited(overflow=policy, max_outbox_size=65536) as server, server.open("/") as slow, server.open("/") as other:
        slow.echo("here")
        other.send("fan 500")
        server.wait_for("fanned")
        numbers = []
        if policy == "close":
            while (received := slow.receive()).opcode != CLOSE:
                numbers.append(int(received.payload[:5]))
            assert received.code == 1013
        else:
            slow.send("last words")
            while (message := slow.message()) != "last words":
                numbers.append(int(message[:5]))
        kept = numbers[:-1] if policy == "latest" else numbers
        assert kept == list(range(len(kept)))
        assert 5 < len(kept) < 499
        if policy == "latest":
            assert numbers[-1] == 499


# --- the end ----------------------------------------------------------------------------------------------------------


def test_stop_drops_what_does_not_answer() -> None:
    with limited(drain_timeout=0.3) as server, server.open("/") as mute, server.open("/") as blocked:
        blocked.echo("here")
        blocked.send("sleep 30")
        blocked.send(b"1", PING)
        blocked.receive()
        began = time.monotonic()
        server.process.terminate()
        assert mute.receive().code == 1001
        assert mute.read_to_the_end() == b""
        assert server.wait() == 0
        assert time.monotonic() - began < 5
        server.wait_for("closed", 1006, times=2)
        server.wait_for("stopped", 0)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_of_idle_websockets() -> None:
    """At most 21 KB each; it is about half of that."""
    count = 1000
    with Hosted("gevent-bare") as server:
        process = psutil.Process(server.process.pid)
        for peer in [server.open("/") for _ in range(20)]:
            peer.finish()
        before = process.memory_info().rss
        peers: list[Peer] = []
        try:
            peers.extend(server.open("/") for _ in range(count))
            server.wait_for("opened", times=count + 20)
            assert (process.memory_info().rss - before) / count < 21 * 1024
        finally:
            for peer in peers:
                peer.close()


# --- the manager and the pool, here ----------------------------------------------------------------------------------


class Recorder(EchoWebSocket):
    """Keeps what happens."""

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self.events: list[Any] = []
        self.ended = Event()
        self.greenlets: set[int] = set()

    def opened(self) -> None:
        self.note("opened")

    def received_message(self, message: Any) -> None:
        self.note(message.data)
        if message.data == b"sleep":
            gevent.sleep(30)
        super().received_message(message)

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        self.note(code)
        self.ended.set()

    def note(self, event: Any) -> None:
        self.events.append(event)
        self.greenlets.add(id(gevent.getcurrent()))


class Ends:
    """A websocket in a pool, and its peer."""

    def __init__(self, pool: GEventWebSocketPool, kind: Callable[[Any], Any] = Recorder) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(PATIENCE)
        self.websocket = kind(ours)
        pool.track(self.websocket)

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.peer.recv(count - len(data))
            assert part, data
            data += part
        return data


@pytest.fixture
def pool() -> Iterator[GEventWebSocketPool]:
    pool = GEventWebSocketPool(limits=Limits(drain_timeout=0.5))
    yield pool
    pool.manager.stop()
    pool.manager.join(PATIENCE)
    assert not pool.manager.is_alive()
    pool.join(PATIENCE)
    assert len(pool) == 0
    gc.collect()


def test_callbacks_share_a_greenlet(pool: GEventWebSocketPool) -> None:
    ends = Ends(pool)
    ends.peer.sendall(frame("one") + frame("two"))
    assert ends.read(10) == b"\x81\x03one\x81\x03two"
    assert len(pool) == 1
    ends.peer.sendall(close_frame(1000))
    assert ends.websocket.ended.wait(PATIENCE)
    assert ends.websocket.events == ["opened", b"one", b"two", 1000]
    assert len(ends.websocket.greenlets) == 1
    ends.peer.close()


def test_counters(pool: GEventWebSocketPool) -> None:
    """They are the manager's, and count the same."""
    ends = Ends(pool)
    ends.peer.sendall(frame("one") + frame(b"two") + frame(b"", PING))
    ends.read(12)
    stats = pool.manager.stats()
    assert stats.connections.opened == 1
    assert stats.received.messages == {"text": 1, "binary": 1, "ping": 1, "pong": 0, "close": 0}
    assert stats.sent.bytes == 12
    assert pool.manager.stats().workers.messages == 2
    assert pool.broadcast("news") == 1
    ends.read(6)
    assert (pool.manager.stats().broadcasts, pool.manager.stats().deliveries) == (1, 1)
    ends.peer.close()
    assert ends.websocket.ended.wait(PATIENCE)
    pool.join(PATIENCE)
    gevent.sleep(0)
    assert pool.manager.stats().connections.closed == {1006: 1}


def test_stats(pool: GEventWebSocketPool) -> None:
    ends = Ends(pool)
    ends.peer.sendall(frame("one"))
    ends.read(5)
    gevent.sleep(0)
    stats = pool.manager.stats()
    assert stats.workers.size == stats.workers.idle == 1
    assert stats.workers.messages == 1
    assert stats.uptime > 0
    assert len(pool.manager.connection_stats()) == 1
    ends.peer.close()


def test_send_waits_for_room(pool: GEventWebSocketPool) -> None:
    pool.manager.limits = pool.manager.limits.but(max_outbox_size=1000, send_timeout=PATIENCE)
    ends = Ends(pool)
    ends.peer.sendall(frame("one"))
    ends.read(5)
    sent: list[int] = []

    def send() -> None:
        for number in range(100):
            ends.websocket.send(bytes(65532), True)
            sent.append(number)

    greenlet = gevent.spawn(send)
    gevent.sleep(0)
    assert len(sent) < 100, "the peer has not read a byte"
    ends.read(100 * (65532 + 4))
    greenlet.join(PATIENCE)
    assert len(sent) == 100
    ends.peer.close()


def test_send_gives_a_slow_consumer_up(pool: GEventWebSocketPool) -> None:
    pool.manager.limits = pool.manager.limits.but(max_outbox_size=1000, send_timeout=0.05)
    ends = Ends(pool)

    def send_on() -> None:
        for _ in range(1000):
            ends.websocket.send(bytes(65536), True)

    with pytest.raises(SlowConsumer):
        send_on()
    with pytest.raises(ConnectionClosed):
        ends.websocket.send("more")
    assert pool.manager.stats().limits["send_timeout"] == 1
    ends.peer.close()


def test_a_killed_greenlet(pool: GEventWebSocketPool) -> None:
    ends, blocked = Ends(pool), Ends(pool)
    blocked.peer.sendall(frame("sleep"))
    ends.peer.sendall(frame("one"))
    ends.read(5)
    pool.kill(timeout=PATIENCE)
    assert ends.websocket.events == ["opened", b"one", 1006]
    assert blocked.websocket.events == ["opened", b"sleep", 1006]
    assert len(pool) == 0
    ends.peer.close()
    blocked.peer.close()


def test_a_greenlet_that_is_killed_before_it_has_begun(pool: GEventWebSocketPool) -> None:
    ends = Ends(pool)
    pool.killone(next(iter(pool)))
    ends.peer.close()
    assert ends.websocket.ended.wait(PATIENCE)
    assert ends.websocket.events == ["opened", 1006]


def test_terminate(pool: GEventWebSocketPool) -> None:
    ends = Ends(pool)
    ends.websocket.terminate()
    assert ends.websocket.ended.wait(PATIENCE)
    assert ends.websocket.events == ["opened", 1006]
    assert ends.peer.recv(1) == b""
    ends.peer.close()


def test_remove(pool: GEventWebSocketPool) -> None:
    """The websocket may then run by itself."""
    ends = Ends(pool)
    ends.peer.sendall(frame("one"))
    ends.read(5)
    pool.manager.remove(ends.websocket)
    pool.join(PATIENCE)
    assert len(pool.manager) == 0
    assert ends.websocket.events == ["opened", b"one"]
    greenlet = gevent.spawn(ends.websocket.run)
    ends.peer.sendall(frame("two") + close_frame())
    assert ends.read(5) == b"\x81\x03two"
    greenlet.join(PATIENCE)
    assert ends.websocket.events[-1] == 1000
    ends.peer.close()


def test_a_size_makes_the_next_one_wait() -> None:
    pool = GEventWebSocketPool(1, limits=Limits(drain_timeout=0.5))
    first = Ends(pool)
    second = gevent.spawn(Ends, pool)
    gevent.sleep(0)
    gevent.sleep(0)
    assert not second.ready()
    first.peer.close()
    second.join(PATIENCE)
    ends = second.value
    ends.peer.sendall(frame("one"))
    ends.read(5)
    ends.peer.close()
    pool.manager.stop()
    pool.manager.join(PATIENCE)


def connection(kind: Callable[[Any], Any] = Recorder) -> tuple[Any, Any]:
    """Return a websocket that nobody runs yet, and its peer."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    return kind(ours), theirs


def test_topics(pool: GEventWebSocketPool) -> None:
    """Greenlets publish, and threads."""
    one, two, other = Ends(pool), Ends(pool), Ends(pool)
    for ends in (one, two):
        ends.websocket.subscribe("news")
    other.websocket.subscribe("sport")

    def publish(name: str) -> None:
        for number in range(100):
            pool.manager.publish("news", f"{name}{number:03}")

    greenlets = [gevent.spawn(publish, name) for name in "ab"]
    threads = [gevent.get_hub().threadpool.spawn(publish, name) for name in "cd"]
    gevent.joinall([*greenlets, *threads], PATIENCE, raise_error=True)
    order = one.read(400 * 6)
    assert two.read(400 * 6) == order
    texts = [order[place + 2 : place + 6].decode() for place in range(0, len(order), 6)]
    for name in "abcd":
        assert [text for text in texts if text[0] == name] == [f"{name}{number:03}" for number in range(100)]
    pool.manager.publish("sport", "goal")
    assert other.read(6) == b"\x81\x04goal"
    stats = pool.manager.stats()
    assert (stats.publications, stats.publication_deliveries) == (401, 801)
    one.peer.close()
    assert one.websocket.ended.wait(PATIENCE)
    two.websocket.unsubscribe("news")
    assert (pool.manager.stats().topics.open, pool.manager.stats().topics.subscriptions) == (1, 1)
    for ends in (two, other):
        ends.peer.close()


def test_a_resume_while_greenlets_and_threads_publish() -> None:
    pool = GEventWebSocketPool(limits=Limits(drain_timeout=0.5), history={"news": (1000, 60.0)})
    first = Ends(pool)
    start = first.websocket.subscribe("news", last=0)

    def publish(name: str) -> None:
        for number in range(100):
            pool.manager.publish("news", f"{name}{number:03}")
            if name in "ab":
                gevent.sleep(0)

    greenlets = [gevent.spawn(publish, name) for name in "ab"]
    threads = [gevent.get_hub().threadpool.spawn(publish, name) for name in "cd"]
    later = []
    for _ in range(5):
        gevent.sleep(0)
        ends = Ends(pool)
        assert ends.websocket.subscribe("news", since=start.position).recovered
        later.append(ends)
    gevent.joinall([*greenlets, *threads], PATIENCE, raise_error=True)
    order = first.read(400 * 6)
    for ends in later:
        assert ends.read(400 * 6) == order
    for ends in (first, *later):
        ends.peer.close()
    pool.manager.stop()
    pool.manager.join(PATIENCE)


def test_who_waits_for_a_place_is_served_all_the_same() -> None:
    """It gets broadcasts, and its messages wait; the hub itself never waits for the place."""
    pool = GEventWebSocketPool(1, limits=Limits(drain_timeout=0.5))
    first = Ends(pool)
    websocket, peer = connection()
    gevent.spawn(pool.track, websocket)
    gevent.sleep(0)
    assert pool.broadcast("news") == 2
    assert peer.recv(100) == first.read(6) == b"\x81\x04news"
    peer.sendall(frame("one"))
    first.peer.sendall(frame("two"))
    first.read(5)
    assert websocket.events == []
    first.peer.close()
    assert peer.recv(100) == b"\x81\x03one"
    peer.close()
    assert websocket.ended.wait(PATIENCE)
    pool.manager.stop()
    pool.manager.join(PATIENCE)


def test_who_does_not_wait_for_a_place_ends() -> None:
    pool = GEventWebSocketPool(1, limits=Limits(drain_timeout=0.5))
    first = Ends(pool)
    websocket, peer = connection()
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        pool.track(websocket)
    assert websocket.ended.wait(PATIENCE)
    assert websocket.events == ["opened", 1006]
    assert peer.recv(100) == b""
    peer.close()
    first.peer.sendall(frame("one"))
    first.read(5)
    assert len(pool.manager) == 1
    first.peer.close()
    pool.manager.stop()
    pool.manager.join(PATIENCE)
    assert pool.manager.stats().workers.waiting == 0


def test_a_crowd_that_was_added_before_the_start() -> None:
    """It waits for places, too."""
    pool = GEventWebSocketPool(1)
    manager = GreenletManager(pool.spawn, drain_timeout=0.5)
    websockets = [connection() for _ in range(3)]
    for websocket, _ in websockets:
        manager.add(websocket)
    manager.start()
    for _, peer in websockets:
        peer.sendall(frame("one"))
        assert peer.recv(100) == b"\x81\x03one"
        peer.close()
    for websocket, _ in websockets:
        assert websocket.ended.wait(PATIENCE)
    manager.stop()
    manager.join(PATIENCE)


def test_run_in_the_pool(pool: GEventWebSocketPool) -> None:
    """As programs for 0.6 do it; clear() finds it."""
    ours, peer = socket.socketpair()
    peer.settimeout(PATIENCE)
    websocket = Recorder(ours)
    greenlet = pool.spawn(websocket.run)
    peer.sendall(frame("one"))
    assert peer.recv(5) == b"\x81\x03one"
    tracked = Ends(pool)
    pool.clear()
    assert peer.recv(4) == b"\x88\x19\x03\xe9"
    assert tracked.read(4) == b"\x88\x19\x03\xe9"
    for end in (peer, tracked.peer):
        end.sendall(close_frame(1001))
        while end.recv(100):
            pass
        end.close()
    greenlet.join(PATIENCE)
    assert websocket.events[-1] == 1001
    assert tracked.websocket.ended.wait(PATIENCE)


def test_a_manager_can_be_started_again() -> None:
    manager = GreenletManager(drain_timeout=0.2)
    ours, peer = socket.socketpair()
    with pytest.raises(ManagerError), manager:
        manager.start()
    assert not manager.running
    with pytest.raises(ManagerError):
        manager.add(WebSocket(ours))
    with manager:
        manager.add(EchoWebSocket(ours))
        peer.sendall(frame("one"))
        assert peer.recv(5) == b"\x81\x03one"
        peer.close()
    assert len(manager) == 0


def test_nothing_wakes_an_idle_manager(pool: GEventWebSocketPool) -> None:
    pool.manager.limits = pool.manager.limits.but(ping_interval=None)
    ends = Ends(pool)
    ends.peer.sendall(frame("one"))
    ends.read(5)
    gevent.sleep(0)
    before = pool.manager.stats().workers.turns
    used = time.process_time()
    gevent.sleep(0.3)
    assert time.process_time() - used < 0.05
    assert pool.manager.stats().workers.turns == before
    ends.peer.close()


def test_server_in_this_process() -> None:
    """Started, stopped, and started again; a timeout of stop() is the deadline of the drain."""
    for _ in range(2):
        server = WebSocketServer(("127.0.0.1", 0), websocket_class=EchoWebSocket, log=None, websocket_protocols=["a"])
        server.start()
        peer = socket.create_connection(("127.0.0.1", server.server_port), timeout=PATIENCE)
        ends = Peer(peer, f"127.0.0.1:{server.server_port}")
        assert ends.upgrade("/", frame("early")).status == 101
        assert ends.message() == "early"
        began = time.monotonic()
        server.stop(timeout=0.1)
        assert time.monotonic() - began < 5
        assert ends.receive().code == 1001
        assert ends.read_to_the_end() == b""
        ends.close()


def test_websocket_class_must_fit_a_handler() -> None:
    with pytest.raises(TypeError, match="must be a WebSocket"):
        WebSocketServer(("127.0.0.1", 0), lambda *_: None, lambda *_: None)  # type: ignore[arg-type]
