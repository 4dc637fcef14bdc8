"""Connecting again, by itself."""

from __future__ import annotations

import socket
import statistics
import threading
from typing import Any

import pytest

from tests.client_servers import Scripted, accept, read_request
from tests.helpers import PATIENCE, quiet, start_thread, until
from ws4py.client import Backoff, WebSocketBaseClient, threadedclient
from ws4py.client.reconnect import may_help, retry_after
from ws4py.exc import HandshakeError
from ws4py.framing import build_frame

QUICK = Backoff(initial=0.001, maximum=0.002)


class Client(threadedclient.WebSocketClient):
    """Counts its lives."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"proxy": None, "reconnect": QUICK} | options)
        self.lives: list[Any] = []

    def opened(self) -> None:
        self.lives.append("opened")

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        self.lives.append(code)


def test_delays_grow_to_a_maximum_and_are_spread() -> None:
    backoff = Backoff(initial=1, maximum=8, factor=2, jitter=0)
    assert [backoff.delay(attempt) for attempt in range(6)] == [1, 2, 4, 8, 8, 8]
    assert backoff.delay(10**6) == 8
    assert backoff.delay(0, 30) == 30
    delays = [Backoff(jitter=0.5).delay(3) or 0.0 for _ in range(500)]
    assert min(delays) >= 4
    assert max(delays) <= 8
    assert statistics.stdev(delays) > 0.5
    assert [Backoff(attempts=2).delay(attempt) is None for attempt in range(4)] == [False, False, True, True]


@pytest.mark.parametrize("wrong", [{"initial": -1}, {"initial": 2, "maximum": 1}, {"factor": 0.5}, {"jitter": 2}])
def test_backoffs_that_are_none(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="backoff"):
        Backoff(**wrong)  # type: ignore[arg-type]


def test_what_it_may_help_against() -> None:
    assert [code for code in (1000, 1001, 1002, 1005, 1006, 1008, 1011, 1012, 1013, 4001) if may_help(code)] == [
        *(1001, 1005, 1006, 1011, 1012, 1013)
    ]
    statuses = (400, 401, 403, 404, 408, 426, 429, 500, 503)
    assert [status for status in statuses if may_help(HandshakeError("", status))] == [400, 408, 429, 500, 503]
    assert retry_after(HandshakeError("", 503, [("Retry-After", "7")])) == 7
    assert retry_after(HandshakeError("", 503, [("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT")])) == 0


def test_a_lost_connection_comes_back() -> None:
    turns = iter(["vanish", "refuse", "going away", "finish"])

    def script(sock: socket.socket) -> None:
        turn = next(turns)
        if turn == "refuse":
            read_request(sock)
            sock.sendall(b"HTTP/1.1 503 Later\r\n\r\n")
            return
        peer = accept(sock)
        assert peer.receive_text() == turn
        if turn != "vanish":
            peer.say_goodbye(1001 if turn == "going away" else 1000)

    class Talking(Client):
        def opened(self) -> None:
            super().opened()
            self.send({"0": "vanish", "2": "going away", "4": "finish"}[str(len(self.lives) - 1)])

    with Scripted(script) as server:
        client = Talking(server.url)
        client.connect()
        start_thread(client.run_forever).result()
        assert server.connections == 4
    assert client.lives == ["opened", 1006, "opened", 1001, "opened", 1000]
    assert client.terminated


def test_messages_are_iterated_over_from_one_connection_to_the_next() -> None:
    numbers = iter(range(3))

    def script(sock: socket.socket) -> None:
        peer = accept(sock)
        number = next(numbers)
        peer.send(peer.text(str(number)))
        if number == 2:
            peer.say_goodbye()

    for kind in (WebSocketBaseClient, threadedclient.WebSocketClient):
        numbers = iter(range(3))
        with Scripted(script) as server, kind(server.url, proxy=None, reconnect=QUICK) as client:
            assert [str(message) for message in client] == ["0", "1", "2"]


def test_close_ends_the_wait() -> None:
    with Scripted(lambda sock: (accept(sock), None)[1]) as server:
        client = Client(server.url, reconnect=Backoff(initial=3600, maximum=3600))
        client.connect()
        until(lambda: 1006 in client.lives)
        client.close()
        start_thread(client.run_forever).result()
        assert server.connections == 1
        assert client.receive() is None


def test_it_is_given_up_after_so_many_attempts() -> None:
    accepted = threading.Event()

    def script(sock: socket.socket) -> None:
        if not accepted.is_set():
            accept(sock)
            accepted.set()

    with Scripted(script) as server:
        client = Client(server.url, reconnect=Backoff(initial=0, attempts=3))
        client.connect()
        start_thread(client.run_forever).result()
        assert server.connections == 4
    assert client.terminated
    assert client.lives == ["opened", 1006]


def test_a_refusal_for_good_is_not_tried_again() -> None:
    first = threading.Event()

    def script(sock: socket.socket) -> None:
        if not first.is_set():
            first.set()
            accept(sock)
            return
        read_request(sock)
        sock.sendall(b"HTTP/1.1 401 Unauthorized\r\n\r\n")

    errors: list[BaseException] = []

    class Reporting(Client):
        def unhandled_error(self, error: BaseException) -> None:
            errors.append(error)

    with Scripted(script) as server:
        client = Reporting(server.url)
        client.connect()
        start_thread(client.run_forever).result()
        assert server.connections == 2
    assert [str(error) for error in errors] == ["Invalid response status: 401 Unauthorized"]


def test_the_first_connection_is_not_tried_again() -> None:
    with Scripted(lambda sock: None) as server:
        with pytest.raises(HandshakeError):
            Client(server.url).connect()
        assert server.connections == 1


class Unlucky(WebSocketBaseClient):
    """Raises what it is told to when it connects again, and keeps what it is told of."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"proxy": None, "reconnect": QUICK} | options)
        self.to_raise: list[BaseException] = []
        self.errors: list[BaseException] = []

    def opened(self) -> None:
        self.to_raise.append(self.misfortune)

    def unhandled_error(self, error: BaseException) -> None:
        self.errors.append(error)

    @property
    def handshake_headers(self) -> list[tuple[str, str]]:
        if self.to_raise:
            raise self.to_raise.pop()
        return super().handshake_headers

    misfortune: BaseException


class UnluckyThread(Unlucky, threadedclient.WebSocketClient):
    """Likewise, in a thread of its own."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "misfortune", [LookupError("no ticket"), UnicodeError("no name"), MemoryError(), SystemExit(3)]
)
@pytest.mark.parametrize("kind", [Unlucky, UnluckyThread])
def test_whatever_is_raised_the_end_is_in_order(kind: type[Unlucky], misfortune: BaseException) -> None:
    with Scripted(lambda sock: (accept(sock), None)[1]) as server, quiet():
        client = kind(server.url)
        client.misfortune = misfortune
        client.connect()

        def receive_all() -> list[Any]:
            got = []
            for _ in range(2):
                try:
                    got.append(client.receive(timeout=PATIENCE))
                except SystemExit:  # it is raised to whoever runs the client
                    got.append(None)
            return got

        assert start_thread(receive_all).result() == [None, None]
        assert client.terminated
        if isinstance(client, UnluckyThread):
            client.run_forever()
        assert client.errors == ([misfortune] if isinstance(misfortune, Exception) else [])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("kind", "callback"),
    [
        *((WebSocketBaseClient, callback) for callback in ("ponged", "closed")),
        *((threadedclient.WebSocketClient, callback) for callback in ("opened", "ponged", "closed")),
    ],
)
def test_a_callback_that_ends_its_thread_leaves_nobody_waiting(kind: type[WebSocketBaseClient], callback: str) -> None:
    def leave(*_: object) -> None:
        raise SystemExit

    def script(sock: socket.socket) -> None:
        peer = accept(sock)
        peer.send(build_frame(0x8A, b"x"))
        peer.say_goodbye(1001)

    with Scripted(script) as server, quiet():
        client = type("Leaving", (kind,), {callback: leave})(server.url, proxy=None, reconnect=QUICK)
        client.connect()

        def receive() -> Any:
            for _ in range(2):
                try:
                    message = client.receive(timeout=PATIENCE)
                except SystemExit:
                    continue
                return message
            raise AssertionError("both have left")

        assert start_thread(receive).result() is None
        client.close_connection()


@pytest.mark.parametrize("location", ["http://[", "ws://a..b/", f"//{'a' * 70}.test/"])
def test_a_bad_redirection_is_a_refusal_that_may_pass(location: str) -> None:
    turns = iter(["vanish", "redirect", "finish"])

    def script(sock: socket.socket) -> None:
        turn = next(turns)
        if turn == "redirect":
            read_request(sock)
            sock.sendall(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n".encode())
            return
        peer = accept(sock)
        if turn == "finish":
            peer.say_goodbye()

    with Scripted(script) as server:
        client = Client(server.url)
        client.connect()
        assert start_thread(client.receive).result() is None
        client.run_forever()
        assert server.connections == 3
    assert client.lives == ["opened", 1006, "opened", 1000]
