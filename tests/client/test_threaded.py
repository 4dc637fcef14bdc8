"""The client with a thread of its own, and what holds for every websocket that runs by itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

import pytest

from tests.client_servers import Scripted, accept, foreign_server
from tests.helpers import PATIENCE, Certificates, Peer, quiet, start_thread, until, wait_for
from ws4py.client import WebSocketBaseClient, threadedclient
from ws4py.exc import ConnectionClosed, SlowConsumer
from ws4py.messaging import Message


class Client(threadedclient.WebSocketClient):
    """Records its callbacks, and checks that they do not overlap."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"proxy": None} | options)
        self.events: list[tuple[Any, ...]] = []
        self.overlaps = 0
        self.inside = threading.Lock()
        self.on_message: Callable[[Message], None] = lambda message: None
        self.on_opened: Callable[[], None] = lambda: None
        self.ended = threading.Event()

    def record(self, *event: Any) -> None:
        self.overlaps += not self.inside.acquire(blocking=False)
        self.events.append(event)

    def opened(self) -> None:
        self.record("opened")
        try:
            self.on_opened()
        finally:
            self.inside.release()

    def received_message(self, message: Message) -> None:
        self.record("message", message.data)
        try:
            self.on_message(message)
        finally:
            self.inside.release()

    def ponged(self, pong: Message) -> None:
        self.record("pong", pong.data)
        self.inside.release()

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        self.record("closed", code, self.sock is not None and self.stream is not None)
        self.inside.release()
        self.ended.set()

    def unhandled_error(self, error: BaseException) -> None:
        self.events.append(("error", type(error)))

    def wait(self) -> list[tuple[Any, ...]]:
        task = start_thread(self.run_forever)
        task.result()
        assert self.overlaps == 0
        assert sum(event[0] == "closed" for event in self.events) == 1
        return self.events


def connected(url: str, **options: Any) -> Client:
    client = Client(url, **options)
    client.connect()
    return client


def serving(script: Callable[[Peer], None], **options: Any) -> Scripted:
    return Scripted(lambda sock: script(accept(sock)), **options)


def test_callbacks_in_order() -> None:
    with foreign_server(subprotocols=["chat"]) as url:
        client = Client(url, ["other", "chat"])
        client.on_opened = lambda: client.send("hello")
        client.on_message = lambda message: client.close(4000, "bye")
        client.connect()
        assert client.protocols == [b"chat"]
        assert client.wait() == [("opened",), ("message", b"hello"), ("closed", 4000, True)]
    assert client.terminated
    assert client.close_reason == "bye"
    assert client.sock is None
    assert client.stream is None
    client.close()
    with pytest.raises(ConnectionClosed):
        client.send("x")


def test_messages_of_all_kinds() -> None:
    with foreign_server() as url, WebSocketBaseClient(url, proxy=None, max_message_size=None) as client:
        for payload in ("text", b"\x00\xff", bytearray(b"b"), "ä" * 3_000_000, ""):
            binary = not isinstance(payload, str)
            client.send(payload, binary)
            message = client.receive(timeout=PATIENCE)
            assert message is not None
            assert message.is_binary == binary
            assert message.data == (payload.encode() if isinstance(payload, str) else payload)
        client.send(iter(["a", "b", "c"]))
        assert str(client.receive(timeout=PATIENCE)) == "abc"
        with pytest.raises(Empty):
            client.receive(block=False)
        with pytest.raises(Empty):
            client.receive(timeout=0.01)
        client.send("bye")
        assert client.receive(timeout=PATIENCE) is None
        assert client.receive() is None
    assert client.close_code == 4321


@pytest.mark.parametrize("kind", [WebSocketBaseClient, threadedclient.WebSocketClient])
def test_iteration(kind: type[WebSocketBaseClient]) -> None:
    received = []
    with foreign_server() as url, kind(url, proxy=None) as client:
        for number in range(200):
            client.send(str(number))
        client.send("bye")
        received = [str(message) for message in client]
    assert received == [str(number) for number in range(200)]
    assert client.close_code == 4321


def test_a_client_that_nobody_asks_for_messages_does_not_stall() -> None:
    with foreign_server() as url:
        client = threadedclient.WebSocketClient(url, proxy=None)
        client.connect()
        for number in range(500):
            client.send(str(number))
        client.send("bye")
        start_thread(client.run_forever).result()
    assert len(list(client)) == 64


def test_the_same_client_connects_again() -> None:
    with foreign_server() as url:
        client = Client(url)
        client.daemon = False
        for _ in range(2):
            client.events.clear()
            client.on_opened = lambda: client.send("bye")
            client.connect()
            assert not client.daemon
            assert client.wait() == [("opened",), ("closed", 4321, True)]
        with pytest.raises(RuntimeError, match="not connected"):
            Client(url).send("x")


def test_init_is_run_again_inside_closed() -> None:
    rounds: list[int] = []

    class Again(threadedclient.WebSocketClient):
        def opened(self) -> None:
            self.send("bye")

        def closed(self, code: int, reason: Any = None) -> None:
            rounds.append(code)
            self.sock.close()
            if len(rounds) < 3:
                self.__init__(self.url, proxy=None)  # type: ignore[misc]
                self.connect()
                self.run_forever()

    with foreign_server() as url:
        client = Again(url, proxy=None)
        client.connect()
        start_thread(client.run_forever).result()
    assert rounds == [4321] * 3


def test_init_is_run_again_inside_terminate() -> None:
    rounds: list[int] = []

    class Again(threadedclient.WebSocketClient):
        def opened(self) -> None:
            self.send("bye")

        def terminate(self) -> None:
            super().terminate()
            rounds.append(self.close_code or 0)
            if len(rounds) < 3:
                self.__init__(self.url, proxy=None)  # type: ignore[misc]
                self.connect()

    with foreign_server() as url:
        client = Again(url, proxy=None)
        client.connect()
        start_thread(client.run_forever).result()
    assert rounds == [4321] * 3


def test_run_in_a_thread_of_the_programs_own() -> None:
    class Own(WebSocketBaseClient):
        messages: list[bytes]

        def run(self) -> None:
            self.messages = []
            self.connect()
            self.send("hello")
            super().run()
            self.close()

        def received_message(self, message: Message) -> None:
            self.messages.append(message.data)
            self.close()

    with foreign_server() as url:
        client = Own(url, proxy=None)
        start_thread(client.run).result()
    assert client.messages == [b"hello"]
    assert client.close_code == 1000


def test_opened_is_called_once_by_a_client_without_a_thread() -> None:
    class Counting(WebSocketBaseClient):
        count = 0

        def opened(self) -> None:
            self.count += 1
            self.send("bye")

    with foreign_server() as url:
        client = Counting(url, proxy=None)
        client.connect()
        assert client.count == 1
        start_thread(client.run).result()
    assert client.count == 1


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_exception_in_a_handler_closes_with_1011() -> None:
    codes: list[Any] = []

    def script(peer: Peer) -> None:
        peer.send(peer.text("one"), peer.text("two"))
        codes.append(peer.receive_close())
        peer.send(peer.text("three"), peer.goodbye(1011))

    def fail(message: Message) -> None:
        raise LookupError(message)

    with quiet() as records, serving(script) as server:
        client = Client(server.url)
        client.on_message = fail
        client.connect()
        events = client.wait()
    assert codes == [(1011, "")]
    assert events == [("opened",), ("message", b"one"), ("error", LookupError), ("closed", 1011, True)]
    assert [record.exc_info[0] for record in records if record.exc_info] == [LookupError]


def test_an_exception_in_closed_is_logged() -> None:
    class Failing(Client):
        def closed(self, code: int, reason: Any = None) -> None:
            super().closed(code, reason)
            raise LookupError

    with quiet() as records, foreign_server() as url:
        client = Failing(url)
        client.on_opened = client.close
        client.connect()
        assert client.wait()[-1] == ("error", LookupError)
    assert [record.exc_info[0] for record in records if record.exc_info] == [LookupError]


def test_a_generator_that_fails_closes_with_1011() -> None:
    def script(peer: Peer) -> None:
        assert peer.receive_data().payload == b"a"
        assert peer.receive_close() == (1011, "")
        peer.send(peer.goodbye(1011))

    def parts() -> Any:
        yield "a"
        yield "b"
        raise LookupError

    with serving(script) as server:
        client = connected(server.url)
        with pytest.raises(LookupError):
            client.send(parts())
        client.wait()


def test_a_protocol_error_of_the_server() -> None:
    def script(peer: Peer) -> None:
        peer.send(b"\x83\x00")
        assert peer.receive_close()[0] == 1002

    with serving(script) as server:
        assert connected(server.url).wait()[-1] == ("closed", 1006, True)


def test_a_message_that_is_too_big() -> None:
    codes: list[Any] = []

    def script(peer: Peer) -> None:
        peer.send(peer.text("x" * 101))
        codes.append(peer.receive_close()[0])

    with serving(script) as server:
        connected(server.url, max_message_size=100).wait()
    assert codes == [1009]


def test_a_server_that_vanishes() -> None:
    with serving(lambda peer: peer.reset()) as server:
        events = connected(server.url).wait()
    assert events[-1] == ("closed", 1006, True)


# --- deadlines --------------------------------------------------------------------------------------------------------


def deaf(sock: socket.socket) -> None:
    """Accept, and read nothing until the client goes away."""
    peer = accept(sock)
    until(lambda: _is_reset(peer.sock))


def _is_reset(sock: socket.socket) -> bool:
    try:
        sock.sendall(b"\x8a\x00")  # an unasked Pong
    except OSError:
        return True
    return False


@pytest.mark.parametrize("where", ["another thread", "a callback"])
def test_a_close_that_is_not_answered(where: str) -> None:
    with Scripted(lambda sock: (accept(sock).receive_rest(), None)[1]) as server:
        client = Client(server.url, close_timeout=0.1, ping_interval=None)
        if where == "a callback":
            client.on_opened = client.close
        client.connect()
        if where == "another thread":
            until(lambda: client.events)
            client.close()
        started = time.monotonic()
        assert client.wait()[-1] == ("closed", 1006, True)
        assert time.monotonic() - started < PATIENCE / 2


def test_a_dead_peer_is_found() -> None:
    closes: list[Any] = []

    def script(peer: Peer) -> None:
        closes.append(peer.receive_close())
        assert peer.controls, "a Ping has come first"

    with serving(script) as server:
        client = connected(server.url, ping_interval=0.05, ping_timeout=0.05)
        assert client.wait() == [("opened",), ("closed", 1006, True)]
    assert client.close_reason == "Keepalive ping timeout"
    assert closes == [(1011, "Keepalive ping timeout")]


def test_a_peer_that_pongs_is_alive() -> None:
    def script(peer: Peer) -> None:
        for _ in range(5):
            ping = peer.receive()
            assert ping.opcode == 9
            peer.send(peer.pong(ping.payload))
        peer.say_goodbye()

    with serving(script) as server:
        client = connected(server.url, ping_interval=0.01, ping_timeout=PATIENCE)
        assert client.wait() == [("opened",), ("closed", 1000, True)], "its own Pongs are not shown to the application"


def test_heartbeats_go_on_while_a_callback_blocks() -> None:
    enough = threading.Event()

    def script(peer: Peer) -> None:
        peer.send(peer.text("go"))
        assert [peer.receive().payload for _ in range(3)] == [b"beep"] * 3
        enough.set()
        peer.say_goodbye()

    with serving(script) as server:
        client = Client(server.url, heartbeat_freq=0.01)
        client.on_message = lambda message: wait_for(enough)
        client.connect()
        client.wait()


@pytest.mark.parametrize("secure", [False, True])
def test_a_send_that_nobody_reads_has_an_end(secure: bool, certificates: Certificates) -> None:
    context = certificates.server if secure else None
    with Scripted(deaf, context) as server:
        client = connected(server.url, send_timeout=0.1, ssl_context=certificates.client, max_message_size=None)
        with pytest.raises(SlowConsumer):
            client.send("x" * 50_000_000)
        assert client.wait()[-1] == ("closed", 1006, True)


def test_pings_are_answered_while_a_message_is_sent_slowly() -> None:
    """Else two sides that only write would wait for each other."""

    def script(peer: Peer) -> None:
        for number in range(40):  # all that without reading a byte
            peer.send(peer.binary(b"x" * 500_000), peer.ping(b"%d" % number))
        assert len(peer.receive_message()) == 40_000_000
        peer.say_goodbye()

    with serving(script) as server:
        client = connected(server.url)
        client.send(b"y" * 40_000_000, binary=True)
        events = client.wait()
    assert sum(event[0] == "message" for event in events) == 40


def test_close_connection_and_terminate_from_another_thread() -> None:
    for method in ("close_connection", "terminate"):
        with serving(lambda peer: (peer.receive_rest(), None)[1]) as server:
            client = connected(server.url)
            until(lambda: client.events)  # noqa: B023 - it is called here
            getattr(client, method)()
            if method == "close_connection":
                assert client.sock is None
            assert client.wait()[-1][:2] == ("closed", 1006)


def test_ctrl_c_ends_run_forever_which_uses_no_cpu(tmp_path: Any) -> None:
    program = """if True:
        import resource, sys, time
        from ws4py.client.threadedclient import WebSocketClient
        client = WebSocketClient(sys.argv[1], proxy=None)
        client.connect()
        used = time.process_time()
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        print("ready", flush=True)
        try:
            client.run_forever()
        except KeyboardInterrupt:
            switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - switches
            print(time.process_time() - used < 0.1 and switches < 20, flush=True)
            client.close()
            client.run_forever()
            print(client.close_code)
    """
    with foreign_server() as url:
        command = [sys.executable, "-W", "error", "-c", program, url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=os.getcwd()) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)  # idle all the while
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=PATIENCE)
    assert output == "True\n1000\n"
