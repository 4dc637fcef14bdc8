"""The client on tornado's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.client_servers import Scripted, accept, foreign_server
from tests.helpers import PATIENCE, Certificates, quiet, wait_for
from ws4py.client import Backoff
from ws4py.exc import ConnectionClosed, HandshakeError
from ws4py.framing import build_frame
from ws4py.messaging import Message

pytest.importorskip("tornado")

from ws4py.client.tornadoclient import TornadoWebSocketClient


class Client(TornadoWebSocketClient):
    """Records its callbacks; ``end`` is done when it has ended."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"proxy": None} | options)
        self.events: list[tuple[Any, ...]] = []
        self.end = asyncio.Event()
        self.on_opened: Callable[[], None] = lambda: None
        self.on_message: Callable[[Message], None] = lambda message: None

    def opened(self) -> None:
        self.events.append(("opened", threading.get_ident()))
        self.on_opened()

    def received_message(self, message: Message) -> None:
        self.events.append(("message", message.data))
        self.on_message(message)

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        self.events.append(("closed", code))
        self.end.set()

    async def wait(self) -> list[tuple[Any, ...]]:
        await asyncio.wait_for(self.end.wait(), PATIENCE)
        await asyncio.sleep(0)
        return self.events[1:]


def run(test: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(test(), PATIENCE))


@pytest.mark.parametrize("secure", [False, True])
def test_callbacks_in_order(secure: bool, certificates: Certificates) -> None:
    async def test() -> None:
        client = Client(url, ["chat"], ssl_context=certificates.client)

        def send() -> None:
            client.send("x" * 500_000)
            client.send(iter("abc"))

        client.on_opened = send
        client.on_message = lambda message: client.close() if message.data == b"abc" else None
        await client.connect()
        assert client.protocols == [b"chat"]
        assert await client.wait() == [("message", b"x" * 500_000), ("message", b"abc"), ("closed", 1000)]
        assert client.events[0][1] == threading.get_ident()
        with pytest.raises(ConnectionClosed):
            client.send("x")

    with foreign_server(certificates.server if secure else None, subprotocols=["chat"]) as url:
        run(test)


def test_other_threads_send() -> None:
    async def test() -> None:
        client = Client(url)
        client.on_message = lambda message: client.close()
        await client.connect()
        await asyncio.to_thread(client.send, "hello")
        assert await client.wait() == [("message", b"hello"), ("closed", 1000)]

    with foreign_server() as url:
        run(test)


def test_how_much_waits_to_be_written() -> None:
    read = threading.Event()

    def script(sock: Any) -> None:
        peer = accept(sock)
        wait_for(read)
        assert peer.receive_message() == bytes(16 << 20)
        peer.send(peer.goodbye(*peer.receive_close()))

    async def test() -> None:
        client = Client(server.url)
        await client.connect()
        assert client.buffered == 0
        client.send(bytes(16 << 20), binary=True, timeout=0)
        assert client.buffered > 0
        read.set()
        while client.buffered:
            await asyncio.sleep(0)
        client.close()
        assert await client.wait() == [("closed", 1000)]
        assert client.buffered == 0

    with Scripted(script) as server:
        run(test)


def test_frames_behind_the_answer_are_kept() -> None:
    five = b"".join(build_frame(0x81, b"%d" % number) for number in range(5))

    async def test() -> None:
        client = Client(server.url)
        await client.connect()
        assert await client.wait() == [*(("message", b"%d" % number) for number in range(5)), ("closed", 1000)]

    with Scripted(lambda sock: (accept(sock, five).say_goodbye(), None)[1]) as server:
        run(test)


def test_a_failure_to_connect() -> None:
    async def test() -> None:
        client = Client(server.url)
        with pytest.raises(HandshakeError):
            await client.connect()
        assert client.events == [("closed", 1006)]
        client = Client(server.url)
        client.connect()  # and nobody looks at the future
        await client.wait()
        assert client.events == [("closed", 1006)]

    with Scripted(lambda sock: sock.sendall(b"nonsense")) as server:
        run(test)


def test_an_override_of_handshake_ok_that_fails() -> None:
    async def test() -> None:
        class Failing(Client):
            def handshake_ok(self) -> None:
                raise LookupError("no room")

        with foreign_server() as url, quiet():
            client = Failing(url)
            with pytest.raises(LookupError):
                await asyncio.wait_for(client.connect(), PATIENCE)
            await client.wait()
            assert client.terminated

    run(test)


def test_whatever_is_raised_while_it_connects_again_the_end_is_in_order() -> None:
    async def test() -> None:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        errors: list[str] = []

        class Unlucky(Client):
            @property
            def handshake_headers(self) -> list[tuple[str, str]]:
                if self.events:
                    raise LookupError("no ticket")
                return super().handshake_headers

            def unhandled_error(self, error: BaseException) -> None:
                errors.append(str(error))
                loop.call_soon_threadsafe(told.set)

        with Scripted(lambda sock: (accept(sock), None)[1]) as server, quiet():
            client = Unlucky(server.url, reconnect=Backoff(initial=0.001))
            await client.connect()
            await asyncio.wait_for(told.wait(), PATIENCE)
        assert errors == ["no ticket"]

    run(test)


def test_deadlines_and_heartbeats() -> None:
    async def test() -> None:
        client = Client(server.url, close_timeout=0.01)
        await client.connect()
        client.close()
        assert await client.wait() == [("closed", 1006)]
        client = Client(server.url, ping_interval=0.01, ping_timeout=0.01, heartbeat_freq=0.005)
        await client.connect()
        assert await client.wait() == [("closed", 1006)]
        assert client.close_reason == "Keepalive ping timeout"

    with Scripted(lambda sock: (accept(sock).receive_rest(), None)[1]) as server:
        run(test)


def test_a_pong_makes_the_next_ping_due_earlier() -> None:
    def script(sock: Any) -> None:
        peer = accept(sock)
        for _ in range(3):
            ping = peer.receive()
            assert ping.opcode == 9
            peer.send(peer.pong(ping.payload))
        assert peer.say_goodbye() == (1000, "")

    async def test() -> None:
        client = Client(server.url, ping_interval=0.01, ping_timeout=PATIENCE)
        await client.connect()
        assert await client.wait() == [("closed", 1000)]

    with Scripted(script) as server:
        run(test)


def test_an_exception_in_a_handler_closes_with_1011() -> None:
    def script(sock: Any) -> None:
        peer = accept(sock)
        peer.send(peer.text("x"))
        assert peer.receive_close() == (1011, "")
        peer.send(peer.goodbye(1011))

    def fail(message: Message) -> None:
        raise LookupError

    async def test() -> None:
        client = Client(server.url)
        client.on_message = fail
        await client.connect()
        assert await client.wait() == [("message", b"x"), ("closed", 1011)]

    with quiet(), Scripted(script) as server:
        run(test)


def test_what_would_block_the_loop_is_refused() -> None:
    client = TornadoWebSocketClient("ws://h/")
    for method in (client.receive, client.run):
        with pytest.raises(TypeError):
            method()
