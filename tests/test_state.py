"""What a websocket says of itself: how far it has come, by which subprotocol, as which connection, how quick it is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.client_servers import Scripted, accept, read_request
from tests.helpers import Gate, Peer, Recorder, Script, Stage, start_thread, until, wait_for
from ws4py import Backoff, ConnectionClosed, HandshakeError, SlowConsumer, State, WebSocketBaseClient, WebSocketClient
from ws4py.framing import OPCODE_PING
from ws4py.websocket import WebSocket

WAYS = pytest.mark.parametrize("way", ["manager", "run"])


def start(stage: Stage, way: str, websocket_class: type[Recorder] = Recorder) -> tuple[Any, Peer]:
    """Return a websocket that is run in some way, and its peer."""
    manager = stage.manager(ping_interval=None) if way == "manager" else None
    websocket, peer = stage.connect(manager, websocket_class)
    if manager is None:
        task = start_thread(websocket.run)
        stage.closers.append(peer.close)
        stage.closers.append(task.join)
    wait_for(websocket.was_opened)
    return websocket, peer


def send_on(websocket: WebSocket) -> None:
    """Send until that raises."""
    while True:
        websocket.send_bytes(bytes(1000), timeout=0)


# --- the state --------------------------------------------------------------------------------------------------------


def test_its_numbers_are_those_of_browsers() -> None:
    assert [(state.name, int(state)) for state in State] == [
        *(("CONNECTING", 0), ("OPEN", 1), ("CLOSING", 2), ("CLOSED", 3))
    ]


@WAYS
def test_the_state_of_one_that_is_closed_by_its_peer(stage: Stage, way: str) -> None:
    seen: list[State] = []
    script = Script.of(opened=lambda self: seen.append(self.state), closed=lambda self, *_: seen.append(self.state))
    websocket, peer = start(stage, way, script)
    assert websocket.state == State.OPEN
    peer.say_goodbye()
    websocket.end()
    until(lambda: websocket.sock is None)
    assert websocket.state == State.CLOSED
    assert seen == [State.OPEN, State.CLOSED]


@WAYS
def test_the_state_of_one_that_closes(stage: Stage, way: str) -> None:
    websocket, peer = start(stage, way)
    websocket.close()
    assert websocket.state == State.CLOSING
    assert peer.receive_close()[0] == 1000
    assert websocket.state == State.CLOSING
    peer.send(peer.goodbye())
    websocket.end()
    assert websocket.state == State.CLOSED


@WAYS
def test_the_state_of_one_whose_peer_breaks_a_rule(stage: Stage, way: str) -> None:
    websocket, peer = start(stage, way)
    peer.send(peer.frame(0x83))
    assert peer.receive_close()[0] == 1002
    until(lambda: websocket.state is not State.OPEN)
    peer.close()
    websocket.end()
    assert websocket.state == State.CLOSED


@WAYS
def test_the_state_of_one_whose_generator_fails(stage: Stage, way: str) -> None:
    def parts() -> Iterator[str]:
        yield "one"
        raise ZeroDivisionError

    websocket, peer = start(stage, way)
    with pytest.raises(ZeroDivisionError):
        websocket.send(parts())
    assert websocket.state == State.CLOSING
    assert websocket.server_terminated
    assert peer.receive_close()[0] == 1011
    peer.send(peer.goodbye(1011))
    websocket.end()
    assert websocket.state == State.CLOSED


@pytest.mark.parametrize("what", ["a Close", "a broken rule"])
def test_the_state_while_a_handler_of_an_earlier_message_runs(stage: Stage, what: str) -> None:
    websocket, peer = stage.connect(stage.manager(), Gate)
    peer.send(peer.text("x"))
    websocket.wait_entered()
    peer.send(peer.goodbye() if what == "a Close" else peer.frame(0x83))
    until(lambda: websocket.state is State.CLOSING)
    websocket.gate.set()
    assert peer.receive_text() == "x"
    peer.receive_close()
    peer.close()
    websocket.end()
    assert websocket.state == State.CLOSED


def test_the_state_of_one_whose_peer_vanishes(stage: Stage) -> None:
    websocket, peer = start(stage, "manager")
    peer.close()
    websocket.end()
    assert websocket.state == State.CLOSED


def test_the_state_of_a_client() -> None:
    connecting, go_on = threading.Event(), threading.Event()

    def script(sock: socket.socket) -> None:
        connecting.set()
        wait_for(go_on)
        peer = accept(sock, b"", "Sec-WebSocket-Protocol: b")
        assert peer.receive_close()[0] == 1000
        peer.send(peer.goodbye())

    with Scripted(script) as server:
        client = WebSocketClient(server.url, ["a", "b"], proxy=None)
        assert (client.state, client.subprotocol) == (State.CONNECTING, None)
        task = start_thread(client.connect)
        wait_for(connecting)
        assert (client.state, client.subprotocol) == (State.CONNECTING, None)
        go_on.set()
        task.result()
        assert (client.state, client.subprotocol) == (State.OPEN, "b")
        client.close()
        client.run_forever()
        assert (client.state, client.subprotocol) == (State.CLOSED, "b")


def test_a_client_that_is_refused_may_connect_yet() -> None:
    def script(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with Scripted(script) as server:
        client = WebSocketBaseClient(server.url, proxy=None)
        with pytest.raises(HandshakeError):
            client.connect()
        assert client.state == State.CONNECTING


def test_a_client_that_has_given_up_is_closed() -> None:
    def script(sock: socket.socket) -> None:
        accept(sock)

    with Scripted(script) as server:
        client = WebSocketClient(server.url, proxy=None, reconnect=Backoff(initial=0.001, maximum=0.002, attempts=2))
        client.connect()
    client.run_forever()
    assert client.state == State.CLOSED


# --- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocols", "chosen"), [(None, None), ([], None), (["chat"], "chat"), ([b"chat"], "chat"), (["a", "b"], "a")]
)
def test_the_subprotocol(stage: Stage, protocols: list[Any] | None, chosen: str | None) -> None:
    websocket, _ = stage.connect(None, Recorder, protocols=protocols)
    assert websocket.subprotocol == chosen


def test_the_id_is_the_managers(stage: Stage) -> None:
    manager = stage.manager()
    seen: list[int | None] = []
    first, _ = stage.connect(manager, Recorder)
    second, peer = stage.connect(manager, Script.of(closed=lambda self, *_: seen.append(self.id)))
    alone, _ = stage.connect(None, Recorder)
    assert alone.id is None
    assert {item.id for item in manager.connection_stats()} == {first.id, second.id}
    assert first.id != second.id
    number = second.id
    peer.say_goodbye()
    second.end()
    assert seen == [number]
    until(lambda: second.id is None)
    manager.remove(first)
    assert first.id is None


def test_the_latency_is_how_long_the_last_pong_took(stage: Stage) -> None:
    manager, clock = stage.timed_manager(ping_interval=30.0)
    websocket, peer = stage.connect(manager, Recorder)
    wait_for(websocket.was_opened)
    assert websocket.latency is None
    for seconds in (0.25, 0.5):
        clock.advance(30.0)
        ping = peer.receive()
        clock.advance(seconds)
        peer.send(peer.pong(ping.payload))
        until(lambda: websocket.latency == seconds)  # noqa: B023 - it is called at once
    assert [item.round_trip for item in manager.connection_stats()] == [0.5]


def test_a_websocket_that_nobody_runs_has_no_latency(stage: Stage) -> None:
    websocket, _ = stage.connect(None, Recorder)
    assert websocket.latency is None


def test_the_latency_of_a_websocket_that_runs_by_itself(stage: Stage) -> None:
    websocket, peer = stage.connect(None, Recorder)
    websocket._limits = {"ping_interval": 0.01}
    task = start_thread(websocket.run)
    ping = peer.receive()
    assert ping.opcode == OPCODE_PING
    assert websocket.latency is None
    peer.send(peer.pong(ping.payload))
    until(lambda: (websocket.latency or 0.0) > 0.0)
    peer.say_goodbye()
    task.result()
    assert [event[0] for event in websocket.events] == ["opened", "closed"]


def test_the_latency_of_a_client() -> None:
    def script(sock: socket.socket) -> None:
        peer = accept(sock)
        peer.send(peer.pong(peer.receive().payload))
        peer.receive_close()
        peer.send(peer.goodbye())

    with Scripted(script) as server:
        client = WebSocketClient(server.url, proxy=None, ping_interval=0.01)
        client.connect()
        until(lambda: client.latency is not None)
        client.close()
        client.run_forever()


class Named(Recorder):
    """As programs for 0.6 have it: with attributes of its own."""

    state = "lobby"  # type: ignore[assignment]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.id = 7
        self.latency = "low"  # type: ignore[assignment]
        self.subprotocol = "none"


@WAYS
def test_an_application_may_have_attributes_of_these_names(stage: Stage, way: str) -> None:
    websocket, peer = start(stage, way, Named)
    websocket.state = "game"
    peer.say_goodbye()
    websocket.end()
    assert (websocket.id, websocket.state, websocket.latency, websocket.subprotocol) == (7, "game", "low", "none")
    assert websocket.errors == []


def test_the_documentation_of_computed_attributes_is_to_be_had() -> None:
    assert "how far" in (WebSocket.state.__doc__ or "").lower()


# --- what a send says of the end --------------------------------------------------------------------------------------


SENDS = pytest.mark.parametrize(
    "send",
    [
        lambda websocket: websocket.send("x"),
        lambda websocket: websocket.send(iter(["x", "y"])),
        lambda websocket: websocket.send_bytes(b"x"),
        lambda websocket: websocket.ping(b"x"),
    ],
    ids=["message", "generator", "bytes", "ping"],
)


@WAYS
@SENDS
def test_it_says_what_the_peer_said(stage: Stage, way: str, send: Any) -> None:
    raised: list[BaseException] = []

    def attempt(self: WebSocket, *_: object) -> None:
        try:
            send(self)
        except ConnectionClosed as error:
            raised.append(error)

    websocket, peer = start(stage, way, Script.of(closed=attempt))
    peer.say_goodbye(4000, "enough \n")
    websocket.end()
    until(lambda: websocket.sock is None)
    attempt(websocket)
    assert [(error.code, error.reason) for error in raised] == [(4000, "enough \n")] * 2  # type: ignore[attr-defined]
    assert all(str(error).endswith(r"(closed with 4000: 'enough \n')") for error in raised)


def test_it_says_what_the_peer_said_in_the_handler_of_an_earlier_message(stage: Stage) -> None:
    raised: list[ConnectionClosed] = []
    peers: list[Peer] = []

    def parts() -> Iterator[str]:
        yield "one"
        yield "two"
        peers[0].send(peers[0].goodbye(4000, "enough"))
        assert peers[0].receive().payload == b"one"
        assert peers[0].receive_close()[0] == 4000
        yield "three"
        yield "four"

    def handle(self: WebSocket, *_: object) -> None:
        try:
            self.send(parts())
        except ConnectionClosed as error:
            raised.append(error)
            assert (self.state, self.close_code) == (State.CLOSING, None)

    websocket, peer = stage.connect(stage.manager(close_timeout=0.05), Script.of(message=handle))
    peers.append(peer)
    peer.send(peer.text("go"))
    websocket.end()
    assert [(error.code, error.reason) for error in raised] == [(4000, "enough")]
    assert websocket.errors == []


def test_it_says_1006_without_a_close(stage: Stage) -> None:
    websocket, peer = start(stage, "manager")
    peer.reset()
    websocket.end()
    with pytest.raises(ConnectionClosed, match=r"\(closed with 1006: 'Going away'\)") as caught:
        websocket.send("x")
    assert (caught.value.code, caught.value.reason) == (1006, "Going away")


def test_it_says_1005_of_a_close_without_a_code(stage: Stage) -> None:
    websocket, peer = start(stage, "manager")
    peer.say_goodbye(None)
    websocket.end()
    with pytest.raises(ConnectionClosed, match=r"\(closed with 1005\)") as caught:
        websocket.send("x")
    assert (caught.value.code, caught.value.reason) == (1005, "")


@WAYS
def test_it_says_nothing_before_the_peer_does(stage: Stage, way: str) -> None:
    websocket, peer = start(stage, way)
    websocket.close(4001, "mine")
    with pytest.raises(ConnectionClosed) as caught:
        websocket.send("x")
    assert (caught.value.code, caught.value.reason) == (None, None)
    assert "closed with" not in str(caught.value)
    assert peer.receive_close() == (4001, "mine")


def test_a_slow_consumer_that_is_still_there_has_no_code(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=1000, ping_interval=None)
    websocket, _ = stage.connect(manager, Recorder, small=True)
    wait_for(websocket.was_opened)
    with pytest.raises(SlowConsumer) as caught:
        send_on(websocket)
    assert caught.value.code is None
    assert websocket.state == State.OPEN


def test_a_client_that_is_not_connected() -> None:
    with pytest.raises(ConnectionClosed) as caught:
        WebSocketBaseClient("ws://127.0.0.1/").send("x")
    assert caught.value.code is None
