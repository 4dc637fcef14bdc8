"""The client in a greenlet."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import Empty
from typing import Any

import pytest

from tests.client_servers import Scripted, accept, foreign_server
from tests.helpers import PATIENCE, Certificates, quiet, wait_for
from ws4py.client import Backoff
from ws4py.exc import ConnectionClosed, HandshakeError, SlowConsumer
from ws4py.framing import build_frame

gevent = pytest.importorskip("gevent")

from ws4py.client.geventclient import WebSocketClient  # noqa: E402


def join(*functions: Any) -> None:
    """Run functions in greenlets, and wait for them."""
    greenlets = [gevent.spawn(function) for function in functions]
    assert len(gevent.joinall(greenlets, PATIENCE, raise_error=True)) == len(greenlets)


def connected(url: str, **options: Any) -> WebSocketClient:
    client = WebSocketClient(url, **{"proxy": None} | options)
    client.connect()
    return client


@pytest.mark.parametrize("secure", [False, True])
def test_greenlets_that_send_and_receive(secure: bool, certificates: Certificates) -> None:
    with foreign_server(certificates.server if secure else None) as url:
        client = connected(url, ssl_context=certificates.client)
        received = []

        def incoming() -> None:
            while (message := client.receive()) is not None:
                received.append(message.data)

        def outgoing() -> None:
            for number in range(0, 400_000, 20_000):
                client.send("*" * number)
            client.send("bye")

        join(incoming, outgoing)
    assert received == [b"*" * number for number in range(0, 400_000, 20_000)]
    assert client.close_code == 4321
    assert client.receive() is None
    assert client.receive(block=False) is None
    with pytest.raises(ConnectionClosed):
        client.send("x")


def test_receive_without_waiting() -> None:
    with foreign_server() as url:
        client = connected(url)
        with pytest.raises(Empty):
            client.receive(block=False)
        with pytest.raises(Empty):
            client.receive(timeout=0.01)
        client.send("x")
        message = client.receive()
        assert message is not None
        assert message.data == b"x"
        client.close()
        client.run_forever()
    assert client.close_code == 1000


def test_other_greenlets_run_meanwhile() -> None:
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        for ticks in range(1, 21):  # noqa: B007 - it is looked at outside
            gevent.sleep(0.001)
        client.close()

    with foreign_server() as url:
        client = connected(url)
        join(lambda: list(client), tick)
    assert ticks == 20


def test_it_is_a_context_manager_and_an_iterator() -> None:
    with foreign_server() as url, WebSocketClient(url, proxy=None) as client:
        client.send("a")
        client.send("bye")
        assert [str(message) for message in client] == ["a"]


def test_frames_behind_the_answer_are_kept() -> None:
    five = b"".join(build_frame(0x81, b"%d" % number) for number in range(5))
    with Scripted(lambda sock: (accept(sock, five).say_goodbye(), None)[1]) as server:
        client = connected(server.url)
        join(lambda: [str(message) for message in client] == list("01234") or pytest.fail("frames are missing"))


def test_deadlines() -> None:
    with Scripted(lambda sock: (accept(sock).receive_rest(), None)[1]) as server:
        client = connected(server.url, ping_interval=0.01, ping_timeout=0.01)
        join(lambda: list(client))
        assert client.close_reason == "Keepalive ping timeout"
        client = connected(server.url, close_timeout=0.01)
        began = time.monotonic()
        client.close()
        join(client.run_forever)
        assert client.close_code == 1006
        assert time.monotonic() - began < PATIENCE / 2


def test_a_name_that_is_not_found_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other greenlets run meanwhile, and a deadline of theirs is not taken for it."""
    monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *_: gevent.sleep(3600))
    turns = []

    def connect() -> None:
        with pytest.raises(TimeoutError, match="localhost"):
            connected("ws://localhost:1/", connect_timeout=0.05)
        turns.append("given up")

    join(connect, lambda: turns.append("meanwhile"))
    assert turns == ["meanwhile", "given up"]
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        connected("ws://localhost:1/")


def test_a_socks_proxy_that_takes_its_time(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("python_socks")
    given_up = threading.Event()

    def script(sock: Any) -> None:
        for part in (b"\x05\x00", b"\x05", b"\x00\x00\x01\x7f\x00\x00\x01\x00\x00"):
            assert sock.recv(99) or part != b"\x05"
            sock.sendall(part)
            if part == b"\x05":
                wait_for(given_up)
                break
        sock.sendall(b"\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        assert sock.recv(1) == b"", "what comes too late is closed"

    with Scripted(script) as server:

        def connect() -> None:
            with pytest.raises(TimeoutError, match=r"proxy in 0\.2 seconds"):
                connected("ws://1.2.3.4/", connect_timeout=0.2, proxy=f"socks5://127.0.0.1:{server.port}")

        join(connect)
        given_up.set()
    assert capfd.readouterr().err == ""


def test_whatever_is_raised_while_it_connects_again_the_end_is_in_order() -> None:
    told: list[Any] = []

    class Unlucky(WebSocketClient):
        lost = False

        def opened(self) -> None:
            self.lost = True

        def unhandled_error(self, error: BaseException) -> None:
            told.append(str(error))

        @property
        def handshake_headers(self) -> list[tuple[str, str]]:
            if self.lost:
                raise LookupError("no ticket")
            return super().handshake_headers

    with Scripted(lambda sock: (accept(sock), None)[1]) as server, quiet():
        client = Unlucky(server.url, proxy=None, reconnect=Backoff(initial=0.001))
        client.connect()
        join(lambda: told.append(client.receive()), client.run_forever)
    assert sorted(map(str, told)) == ["None", "no ticket"]


def test_a_send_that_nobody_reads_has_an_end() -> None:
    def script(sock: Any) -> None:
        accept(sock)
        gone.wait(PATIENCE)

    import threading

    gone = threading.Event()
    with Scripted(script) as server:
        client = connected(server.url, send_timeout=0.05)
        with pytest.raises(SlowConsumer):
            client.send("x" * 50_000_000)
        join(client.run_forever)
        gone.set()
    assert client.close_code == 1006


def test_heartbeats() -> None:
    def script(sock: Any) -> None:
        peer = accept(sock)
        assert [peer.receive().payload for _ in range(3)] == [b"beep"] * 3
        peer.say_goodbye()

    with Scripted(script) as server:
        client = connected(server.url, heartbeat_freq=0.01)
        join(client.run_forever)
    assert client.close_code == 1000


def test_a_refusal() -> None:
    with Scripted(lambda sock: sock.sendall(b"nonsense")) as server, pytest.raises(HandshakeError):
        connected(server.url)


def test_the_same_client_connects_again() -> None:
    with foreign_server() as url:
        client = connected(url)
        for _ in range(2):
            client.send("bye")
            join(client.run_forever)
            assert client.close_code == 4321
            client.connect()
        client.close()
        join(client.run_forever)


PROGRAM = """if True:
    from gevent import monkey
    monkey.patch_all()
    import sys
    import gevent
    from gevent.event import Event
    from ws4py.client.geventclient import WebSocketClient
    from ws4py.client.threadedclient import WebSocketClient as ThreadedClient

    for kind in WebSocketClient, ThreadedClient:
        answered = Event()

        class Client(kind):
            def ponged(self, pong):
                answered.set()

        with Client(sys.argv[1], proxy=None, heartbeat_freq=0.01, ssl_options={"ca_certs": sys.argv[2]}) as client:
            for number in range(10):
                gevent.spawn(client.send, "x" * number)
            print(sorted(len(client.receive(timeout=20)) for _ in range(10)) == list(range(10)))
            print(answered.wait(20))  # a heartbeat
        print(client.close_code)
"""


@pytest.mark.parametrize("secure", [False, True])
def test_with_monkey_patching(secure: bool, certificates: Certificates, tmp_path: Path) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_text("".join(_pem(der) for der in certificates.client.get_ca_certs(binary_form=True)))
    with foreign_server(certificates.server if secure else None) as url:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, url, str(trusted)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=Path(__file__).resolve().parents[2],
            check=True,
        )
    assert (done.stdout, done.stderr) == ("True\nTrue\n1000\n" * 2, "")


def _pem(der: bytes) -> str:
    import ssl

    return ssl.DER_cert_to_PEM_cert(der)


def test_importing_the_clients_imports_neither_gevent_nor_tornado() -> None:
    program = "import sys, ws4py.client.threadedclient, ws4py.cli; print({'gevent', 'tornado'} & set(sys.modules))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "set()\n"
